"""Autoscalers: the arithmetic by hand-made figures, windows and policies over time, a deployment that follows its load."""

from __future__ import annotations

import asyncio
from fractions import Fraction
from typing import Any

import pytest

from cloud.standalone import run_controllers
from cloud.standalone.controllers import horizontal, replica_counts, scaling_limits
from cloud.standalone.controllers.replica_counts import NoMetric, Used
from cloud.standalone.controllers.scaling_limits import Memory
from schemas import times, usage
from tests.unit.cloud_controllers.kubelets import Cluster, Object, deployment, running

NOW = 1_790_000_000 * times.US_PER_S
MIN = 60 * times.US_PER_S
SPACE = ("autoscaling", "horizontalpodautoscalers")


def pod(n: int, *, ready: str = "True", started: int = NOW - 60 * MIN, cpu: str | None = "100m", **status: Any) -> Object:
    requests = {"requests": {"cpu": cpu, "memory": "100Mi"}} if cpu else {}
    condition = {"type": "Ready", "status": ready, "lastTransitionTime": times.rfc3339(started + times.US_PER_S)}
    return {
        "metadata": {"name": f"p{n}", "uid": f"u{n}"},
        "spec": {"containers": [{"name": "c", "resources": requests}]},
        "status": {"phase": "Running", "startTime": times.rfc3339(started), "conditions": [condition], **status},
    }


def used(*milli: int | None) -> dict[str, Used]:
    return {
        f"u{n}": Used(NOW, 10 * times.US_PER_S, {"c": (Fraction(m), m << 20)}) for n, m in enumerate(milli) if m is not None
    }


def ask(pods: list[Object], figures: dict[str, Used], **how: Any) -> int:
    how = {"resource": "cpu", "utilization": 50} | how
    return replica_counts.count(len(pods), pods, figures, NOW, **how).replicas


@pytest.mark.parametrize(
    ("figures", "replicas"),
    [
        ((50, 50), 2),  # as wanted
        ((54, 54), 2),  # within a tenth
        ((100, 100), 4),
        ((60, 61), 3),  # 2.42, rounded up
        ((10, 10), 1),
        ((100, None), 2),  # nobody knows of the second: it is taken to use nothing, and then there is enough
        ((10, None), 2),  # ... and all that it may, which is above the target: not down
        ((150, None), 3),
    ],
)
def test_a_utilization(figures: tuple[int | None, ...], replicas: int) -> None:
    assert ask([pod(0), pod(1)], used(*figures)) == replicas


def test_an_average_and_a_container_and_memory() -> None:
    pods = [pod(0), pod(1)]
    assert ask(pods, used(100, 200), utilization=None, average=Fraction(50)) == 6
    assert ask(pods, used(100, 200), utilization=None, average=Fraction(100), container="c") == 3
    assert ask(pods, used(100, 200), resource="memory", utilization=100) == 3
    with pytest.raises(NoMetric, match="did not receive metrics"):
        ask(pods, used(1, 1), container="other")


def test_pods_that_start_count_as_idle_when_it_goes_up() -> None:
    young = pod(1, started=NOW - MIN, ready="False")
    assert ask([pod(0), young], used(200, 500)) == 4, "(200 + 0) / 100 / 2 is twice the target"
    assert ask([pod(0), young], used(10, 500)) == 1, "and are left out when it goes down"
    assert ask([pod(0), pod(1, phase="Pending")], used(80, None)) == 2, "80 over two is below the target: nothing happens"
    assert ask([pod(0), pod(1, phase="Failed")], used(100, 0)) == 2


def test_what_cannot_be_counted_says_why() -> None:
    for pods, figures, why in (
        ([], used(), "no pods returned by selector"),
        ([pod(0)], used(), "did not receive metrics for targeted pods"),
        ([pod(0, cpu=None)], used(10), "missing request for cpu in container c of Pod p0"),
    ):
        with pytest.raises(NoMetric, match=why):
            ask(pods, figures)
    assert ask([pod(0, cpu=None)], used(100), utilization=None, average=Fraction(50)) == 2, "no request is needed for that"


# --- windows and policies


def limited(memory: Memory, current: int, wanted: int, at_us: int, **behavior: Any) -> tuple[int, str]:
    spec = {"minReplicas": 1, "maxReplicas": 100, "behavior": behavior}
    found = scaling_limits.limit(spec, current, wanted, memory, at_us)
    memory.pending = (current, found.replicas, at_us)
    memory.confirm(found.replicas)
    return found.replicas, found.limited[1] if found.limited[0] else found.able[0]


def test_down_waits_for_the_highest_of_five_minutes() -> None:
    memory = Memory()
    assert limited(memory, 10, 10, NOW)[0] == 10
    assert limited(memory, 10, 4, NOW + MIN) == (10, "ScaleDownStabilized")
    assert limited(memory, 10, 6, NOW + 4 * MIN) == (10, "ScaleDownStabilized")
    assert limited(memory, 10, 4, NOW + 5 * MIN + 1)[0] == 6
    assert limited(memory, 6, 4, NOW + 9 * MIN + 1)[0] == 4
    quick = {"scaleDown": {"stabilizationWindowSeconds": 0}}
    assert limited(Memory(), 10, 4, NOW, **quick)[0] == 4


def test_up_goes_by_four_pods_or_doubles_in_fifteen_seconds() -> None:
    memory = Memory()
    assert limited(memory, 1, 50, NOW) == (5, "ScaleUpLimit")
    assert limited(memory, 5, 50, NOW + times.US_PER_S) == (5, "ScaleUpLimit"), "what was added counts in its period"
    assert limited(memory, 5, 50, NOW + 16 * times.US_PER_S) == (10, "ScaleUpLimit")


def test_policies() -> None:
    slow = {"type": "Pods", "value": 2, "periodSeconds": 60}
    tenth = {"type": "Percent", "value": 10, "periodSeconds": 60}
    down = {"stabilizationWindowSeconds": 0, "policies": [slow, tenth]}
    assert limited(Memory(), 80, 10, NOW, scaleDown=down) == (72, "ScaleDownLimit")
    assert limited(Memory(), 80, 10, NOW, scaleDown={**down, "selectPolicy": "Min"}) == (78, "ScaleDownLimit")
    assert limited(Memory(), 80, 10, NOW, scaleDown={**down, "selectPolicy": "Disabled"}) == (80, "ScaleDownLimit")
    memory, calm = (
        Memory(),
        {"stabilizationWindowSeconds": 120, "policies": [{"type": "Pods", "value": 50, "periodSeconds": 15}]},
    )
    limited(memory, 2, 2, NOW, scaleUp=calm)
    assert limited(memory, 2, 9, NOW + MIN, scaleUp=calm) == (2, "ScaleUpStabilized")
    assert limited(memory, 2, 9, NOW + 3 * MIN, scaleUp=calm)[0] == 9


def test_least_and_most() -> None:
    spec = {"minReplicas": 2, "maxReplicas": 5}
    for current, wanted, found, reason in (
        (3, 9, 5, "TooManyReplicas"),
        (3, 1, 2, "TooFewReplicas"),
        (3, 4, 4, "DesiredWithinRange"),
    ):
        got = scaling_limits.limit(spec, current, wanted, Memory(), NOW)
        assert (got.replicas, got.limited[1]) == (found, reason)


def test_a_change_that_was_refused_is_not_remembered() -> None:
    memory = Memory()
    memory.pending = (2, 6, NOW)
    memory.confirm(2)
    assert not memory.added


# --- the controller


class Load:
    """What the nodes say: so many thousandths of a core for each pod."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.milli, self.asked = cluster, 0, list[list[str]]()

    async def ask(self, nodes: Any) -> dict[str, tuple[int, usage.NodeUsage] | None]:
        names = list(nodes)
        self.asked.append(names)
        out: dict[str, tuple[int, usage.NodeUsage] | None] = {}
        for node in names:
            told = [
                usage.PodUsage(
                    namespace="default", name=p["metadata"]["name"], uid=p["metadata"]["uid"],
                    containers=[usage.ContainerUsage(name="c", cpu_nano=self.milli * 1_000_000, memory_bytes=1 << 20)],
                )
                for p in await self.cluster.list("", "pods") if p["spec"].get("nodeName") == node
            ]  # fmt: skip
            at_us = times.micros("2030-01-01T00:00:00Z") or 0  # long after they were ready
            out[node] = at_us, usage.NodeUsage(window_ms=1000, cpu_nano=0, memory_bytes=0, pods=told)
        return out


def scaler(**spec: Any) -> Object:
    target = {"type": "Utilization", "averageUtilization": 50}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "minReplicas": 1,
            "maxReplicas": 6,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
            "behavior": {
                "scaleUp": {"policies": [{"type": "Pods", "value": 100, "periodSeconds": 15}]},
                "scaleDown": {"stabilizationWindowSeconds": 0},
            },
            **spec,
        },
    }


def said(obj: Object, kind: str) -> tuple[str, str]:
    found = next(c for c in obj["status"]["conditions"] if c["type"] == kind)
    return found["status"], found["reason"]


async def test_a_deployment_follows_its_load(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster()
    monkeypatch.setattr(horizontal, "LOOK_US", 10_000)
    monkeypatch.setattr(run_controllers.gauges, "PERIOD_S", 0.01)
    load = Load(cluster)
    cluster.runner = run_controllers.ControllerRunner(cluster.registry, usage=load.ask)
    await cluster.node("n1", cpu="16")
    await cluster.node("idle")
    web = deployment(replicas=1)
    web["spec"]["template"]["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "100m"}}
    web["spec"]["template"]["spec"]["nodeSelector"] = {"kubernetes.io/hostname": "n1"}
    await cluster.patch("", "nodes", "n1", {"metadata": {"labels": {"kubernetes.io/hostname": "n1"}}}, "")
    load.milli = 300
    async with running(cluster):
        await cluster.create("apps", "deployments", web)
        await cluster.create(*SPACE, scaler())

        async def until(replicas: int) -> Object:
            """Pods run as soon as they are there."""
            while True:
                await cluster.kubelets()
                await cluster.until(lambda: cluster.runner.loaded.is_set())
                now = await cluster.get("apps", "deployments", "web")
                shown = await cluster.get(*SPACE, "web")
                if now["spec"]["replicas"] == replicas == shown["status"].get("currentReplicas"):
                    return shown
                await asyncio.sleep(0.01)

        shown = await until(6)
        assert said(shown, "ScalingActive") == ("True", "ValidMetricFound")
        load.milli = 50
        assert (await until(6))["status"]["desiredReplicas"] == 6
        load.milli = 1
        shown = await until(1)
        assert said(shown, "AbleToScale")[0] == "True"
        assert shown["status"]["currentMetrics"][0]["resource"]["current"]["averageUtilization"] == 1
    assert {n for names in load.asked for n in names} == {"n1"}, "a node without such pods is not asked"


async def test_without_figures_nothing_is_scaled_and_it_says_so(cluster: Cluster) -> None:
    await cluster.node("n1")
    await cluster.create("apps", "deployments", deployment(replicas=2))
    await cluster.settle()
    await cluster.create(*SPACE, scaler())
    await cluster.create(*SPACE, scaler(scaleTargetRef={"kind": "Deployment", "name": "no", "apiVersion": "apps/v1"}) | {
        "metadata": {"name": "no"}
    })  # fmt: skip
    await cluster.quiet()
    shown, lost = await cluster.get(*SPACE, "web"), await cluster.get(*SPACE, "no")
    assert said(shown, "ScalingActive") == ("False", "FailedGetResourceMetric")
    assert said(lost, "AbleToScale") == ("False", "FailedGetScale")
    assert (await cluster.get("apps", "deployments", "web"))["spec"]["replicas"] == 2


async def test_least_and_most_need_no_figures(cluster: Cluster) -> None:
    await cluster.node("n1")
    await cluster.create("apps", "deployments", deployment(replicas=9))
    await cluster.create(*SPACE, scaler())
    await cluster.settle()
    assert (await cluster.get("apps", "deployments", "web"))["spec"]["replicas"] == 6
    await cluster.patch("apps", "deployments", "web", {"spec": {"replicas": 0}})
    await cluster.patch(*SPACE, "web", {"spec": {"maxReplicas": 7}})
    await cluster.quiet()
    shown = await cluster.get(*SPACE, "web")
    assert said(shown, "ScalingActive") == ("False", "ScalingDisabled")
