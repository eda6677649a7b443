"""Limit ranges, priority classes, and how long a pod tolerates a node that is away."""

from __future__ import annotations

from typing import Any

import pytest

from bus.kube.errors import StatusError
from tests.unit.kube_admission.conftest import Rules

Object = dict[str, Any]
SCHEDULING = "scheduling.k8s.io"


async def limit(rig: Rules, kind: str, name: str = "l", **fields: Object) -> Object:
    body = {"metadata": {"name": name}, "spec": {"limits": [{"type": kind, **fields}]}}
    return await rig.create("limitranges", body)


async def test_what_a_container_does_not_say_is_filled_in(rig: Rules) -> None:
    made = await limit(rig, "Container", default={"cpu": "1", "memory": "1Gi"}, defaultRequest={"cpu": "100m"})
    assert made["spec"]["limits"][0]["defaultRequest"] == {"cpu": "100m", "memory": "1Gi"}, (
        "a request is the limit by default"
    )
    pod = await rig.pod(container={"resources": {"requests": {"cpu": "200m"}}})
    assert pod["spec"]["containers"][0]["resources"] == {
        "requests": {"cpu": "200m", "memory": "1Gi"},
        "limits": {"cpu": "1", "memory": "1Gi"},
    }
    said = "LimitRanger plugin set: memory request for container c; cpu, memory limit for container c"
    assert pod["metadata"]["annotations"]["kubernetes.io/limit-ranger"] == said
    assert pod["status"]["qosClass"] == "Burstable"


@pytest.mark.parametrize(
    ("fields", "resources", "says"),
    [
        ({"min": {"cpu": "100m"}}, {"requests": {"cpu": "50m"}}, "minimum cpu usage per Pod is 100m, but request is 50m"),
        ({"min": {"cpu": "100m"}}, {}, "minimum cpu usage per Pod is 100m.  No request is specified"),
        ({"max": {"cpu": "1"}}, {"limits": {"cpu": "2"}}, "maximum cpu usage per Pod is 1, but limit is 2"),
        ({"max": {"cpu": "1"}}, {"requests": {"cpu": "500m"}}, "maximum cpu usage per Pod is 1.  No limit is specified"),
        (
            {"maxLimitRequestRatio": {"cpu": "2"}},
            {"requests": {"cpu": "100m"}, "limits": {"cpu": "300m"}},
            "cpu max limit to request ratio per Pod is 2, but provided ratio is 3.000000",
        ),
        (
            {"min": {"cpu": "100m", "memory": "1Gi"}},
            {"requests": {"cpu": "50m", "memory": "1Mi"}},
            "[minimum cpu usage per Pod is 100m, but request is 50m, "
            "minimum memory usage per Pod is 1Gi, but request is 1Mi]",
        ),
    ],
)
async def test_too_little_and_too_much(rig: Rules, fields: Object, resources: Object, says: str) -> None:
    await limit(rig, "Pod", **fields)
    refused = await rig.refused(container={"resources": resources})
    assert (refused.code, refused.message) == (403, f'pods "p" is forbidden: {says}')


async def test_each_container_for_itself(rig: Rules) -> None:
    await limit(rig, "Container", max={"memory": "1Gi"})
    pod = await rig.pod()
    assert pod["spec"]["containers"][0]["resources"]["limits"] == {"memory": "1Gi"}, "the most is the default"
    refused = await rig.refused("q", container={"resources": {"limits": {"memory": "2Gi"}}})
    assert "maximum memory usage per Container is 1Gi, but limit is 2Gi" in refused.message


async def test_claims(rig: Rules) -> None:
    await limit(rig, "PersistentVolumeClaim", min={"storage": "1Gi"}, max={"storage": "2Gi"})

    def claim(name: str, size: str) -> Object:
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
        return {"metadata": {"name": name}, "spec": spec}

    await rig.create("persistentvolumeclaims", claim("ok", "1Gi"))
    for size, says in (
        ("3Gi", "maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi"),
        ("1Mi", "minimum"),
    ):
        with pytest.raises(StatusError, match=says):
            await rig.create("persistentvolumeclaims", claim("bad", size))


@pytest.mark.parametrize(
    ("item", "says"),
    [
        ({"type": "Pod", "default": {"cpu": "1"}}, "may not be specified when `type` is 'Pod'"),
        ({"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}}, "min value 2 is greater than max value 1"),
        ({"type": "Pod", "maxLimitRequestRatio": {"cpu": "500m"}}, "ratio 500m is less than 1"),
        ({"type": "PersistentVolumeClaim"}, "either minimum or maximum storage value is required"),
    ],
)
async def test_limits_that_make_no_sense(rig: Rules, item: Object, says: str) -> None:
    with pytest.raises(StatusError, match=says):
        await rig.create("limitranges", {"metadata": {"name": "l"}, "spec": {"limits": [item]}})


# --- priorities --------------------------------------------------------------------------------------------------------


async def test_the_number_behind_a_class(rig: Rules) -> None:
    spec = (await rig.pod("plain"))["spec"]
    assert (spec["priority"], spec["preemptionPolicy"]) == (0, "PreemptLowerPriority") and "priorityClassName" not in spec
    body = {"metadata": {"name": "gold"}, "value": 1000, "preemptionPolicy": "Never"}
    await rig.create("priorityclasses", body, "", SCHEDULING)
    spec = (await rig.pod("g", priorityClassName="gold"))["spec"]
    assert (spec["priority"], spec["preemptionPolicy"]) == (1000, "Never")
    assert (await rig.pod("s", priorityClassName="system-node-critical"))["spec"]["priority"] == 2_000_001_000
    assert "no PriorityClass with name tin was found" in (await rig.refused("t", priorityClassName="tin")).message
    said = "the integer value of priority (7) must not be provided in pod spec; priority admission controller computed 1000"
    assert said in (await rig.refused("t", priorityClassName="gold", priority=7)).message


async def test_the_default_class_is_one(rig: Rules) -> None:
    await rig.create("priorityclasses", {"metadata": {"name": "d"}, "value": 5, "globalDefault": True}, "", SCHEDULING)
    spec = (await rig.pod())["spec"]
    assert (spec["priority"], spec["priorityClassName"]) == (5, "d")
    with pytest.raises(StatusError, match="PriorityClass d is already marked as default. Only one default can exist"):
        await rig.create("priorityclasses", {"metadata": {"name": "e"}, "value": 6, "globalDefault": True}, "", SCHEDULING)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"metadata": {"name": "system-mine"}, "value": 1}, "reserved for system use only"),
        (
            {"metadata": {"name": "high"}, "value": 1_000_000_001},
            "maximum allowed value of a user defined priority is 1000000000",
        ),
        ({"metadata": {"name": "odd"}, "value": 1, "preemptionPolicy": "Maybe"}, "Unsupported value"),
    ],
)
async def test_classes_that_are_refused(rig: Rules, body: Object, says: str) -> None:
    with pytest.raises(StatusError, match=says):
        await rig.create("priorityclasses", body, "", SCHEDULING)


async def test_a_value_stays(rig: Rules) -> None:
    await rig.create("priorityclasses", {"metadata": {"name": "gold"}, "value": 1000}, "", SCHEDULING)
    args = (SCHEDULING, "priorityclasses", "", "gold", {"value": 2})
    with pytest.raises(StatusError, match="may not be changed in an update"):
        await rig.api.patch(*args, kind="merge", how=rig.how)


async def test_five_minutes_on_a_node_that_is_away_unless_the_pod_says(rig: Rules) -> None:
    def of(pod: Object) -> dict[str, Any]:
        return {
            t.get("key", "").rpartition("/")[2]: t.get("tolerationSeconds") for t in pod["spec"].get("tolerations") or []
        }

    assert of(await rig.pod("a")) == {"not-ready": 300, "unreachable": 300}
    mine = {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}
    assert of(await rig.pod("b", tolerations=[mine])) == {"unreachable": None, "not-ready": 300}
    assert of(await rig.pod("c", tolerations=[{"operator": "Exists"}])) == {"": None}
