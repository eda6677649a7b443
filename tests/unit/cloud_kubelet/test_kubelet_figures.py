"""What a node uses, in the words of a kubelet."""

from __future__ import annotations

from cloud.kubelet import figures
from schemas import usage

USED = usage.NodeUsage(
    window_ms=1000,
    cpu_nano=5,
    memory_bytes=7,
    cpu_total_nano=3_500_000_000,
    pods=[
        usage.PodUsage(
            namespace="d",
            name="p",
            uid="u",
            containers=[
                usage.ContainerUsage(name="a", cpu_nano=1, memory_bytes=2, cpu_total_nano=1_000_000_000),
                usage.ContainerUsage(name="b", cpu_nano=3, memory_bytes=4, cpu_total_nano=250_000_000),
            ],
        )
    ],
)


def test_prometheus_text() -> None:
    lines = figures.resource(1_700_000_000_000_000, USED).splitlines()
    assert 'container_cpu_usage_seconds_total{container="a",namespace="d",pod="p"} 1 1700000000000' in lines
    assert 'pod_cpu_usage_seconds_total{namespace="d",pod="p"} 1.25 1700000000000' in lines
    assert "node_cpu_usage_seconds_total 3.5 1700000000000" in lines
    assert "node_memory_working_set_bytes 7 1700000000000" in lines
    assert "resource_scrape_error 0" in lines


def test_a_daemon_that_counts_no_cpu_gives_no_counter() -> None:
    old = USED.model_copy(update={"cpu_total_nano": 0, "pods": []})
    lines = [line for line in figures.resource(1, old).splitlines() if not line.startswith("#")]
    assert [line.split()[0] for line in lines] == ["node_memory_working_set_bytes", "resource_scrape_error"]


def test_a_summary() -> None:
    told = figures.summary("n", 1_700_000_000_000_000, USED)
    assert told["node"]["nodeName"] == "n" and told["node"]["cpu"]["usageCoreNanoSeconds"] == 3_500_000_000
    (pod,) = told["pods"]
    assert pod["podRef"] == {"name": "p", "namespace": "d", "uid": "u"}
    assert (pod["cpu"]["usageNanoCores"], pod["memory"]["workingSetBytes"]) == (4, 6)
    assert pod["containers"][0]["cpu"] == {
        "time": "2023-11-14T22:13:20Z",
        "usageNanoCores": 1,
        "usageCoreNanoSeconds": 10**9,
    }
