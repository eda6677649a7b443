"""What a kubelet tells of its node as figures: /stats/summary, /metrics/resource, /pods.  Pure.

Source: kubernetes, k8s.io/kubelet/pkg/apis/stats/v1alpha1 (Summary); pkg/kubelet/metrics/collectors/resource_metrics.go (the
names that metrics-server reads).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bus.kube import times
from schemas import usage

Object = dict[str, Any]


def summary(node: str, at_us: int, used: usage.NodeUsage) -> Object:
    at = times.of_micros(at_us)
    pods = [
        {
            "podRef": {"name": p.name, "namespace": p.namespace, "uid": p.uid},
            "containers": [{"name": c.name, **_amounts(at, c)} for c in p.containers],
            "cpu": {"time": at, "usageNanoCores": sum(c.cpu_nano for c in p.containers)},
            "memory": {"time": at, "workingSetBytes": sum(c.memory_bytes for c in p.containers)},
        }
        for p in used.pods
    ]
    return {"node": {"nodeName": node, **_amounts(at, used)}, "pods": pods}


def _amounts(at: str, used: usage.NodeUsage | usage.ContainerUsage) -> Object:
    cpu: Object = {"time": at, "usageNanoCores": used.cpu_nano}
    if used.cpu_total_nano:
        cpu["usageCoreNanoSeconds"] = used.cpu_total_nano
    return {"cpu": cpu, "memory": {"time": at, "workingSetBytes": used.memory_bytes}}


def resource(at_us: int, used: usage.NodeUsage) -> str:
    """Prometheus text.  A daemon that doesn't count CPU from the start (an older one) has no counters here."""
    at_ms = at_us // 1000
    cpu = [(_labels(c.name, p), c.cpu_total_nano / 1e9) for p in used.pods for c in p.containers if c.cpu_total_nano]
    memory = [(_labels(c.name, p), c.memory_bytes) for p in used.pods for c in p.containers]
    pod_cpu = [(_labels("", p), sum(c.cpu_total_nano for c in p.containers) / 1e9) for p in used.pods]
    pod_memory = [(_labels("", p), sum(c.memory_bytes for c in p.containers)) for p in used.pods]
    node_cpu = [("", used.cpu_total_nano / 1e9)] if used.cpu_total_nano else []
    families = (
        ("container_cpu_usage_seconds_total", "counter", cpu),
        ("container_memory_working_set_bytes", "gauge", memory),
        ("node_cpu_usage_seconds_total", "counter", node_cpu),
        ("node_memory_working_set_bytes", "gauge", [("", used.memory_bytes)]),
        ("pod_cpu_usage_seconds_total", "counter", [(labels, v) for labels, v in pod_cpu if v]),
        ("pod_memory_working_set_bytes", "gauge", pod_memory),
        ("resource_scrape_error", "gauge", [("", 0)]),
    )
    lines = []
    for name, kind, rows in families:
        lines += [f"# TYPE {name} {kind}", *(_line(name, labels, value, at_ms) for labels, value in rows)]
    return "\n".join(lines) + "\n"


def _line(name: str, labels: str, value: float, at_ms: int) -> str:
    return f"{name}{labels} {value:.9g} {at_ms}" if name != "resource_scrape_error" else f"{name} {value:g}"


def _labels(container: str, pod: usage.PodUsage) -> str:
    own = f'container="{container}",' if container else ""
    return f'{{{own}namespace="{pod.namespace}",pod="{pod.name}"}}'  # names of the API: nothing in them needs escaping


def pods(found: Iterable[Object]) -> Object:
    return {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": list(found)}
