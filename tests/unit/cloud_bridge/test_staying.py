"""Which tolerations make a cluster leave a pod on a node that is cut off."""

from __future__ import annotations

from typing import Any

import pytest

from cloud.bridge import staying
from cloud.standalone.controllers import taints

HOUR_US = 3_600_000_000
KEY = taints.UNREACHABLE
ADMITTED = {"key": KEY, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
FOREVER = {"key": KEY, "operator": "Exists", "effect": "NoExecute"}
OTHER = {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}


def pod(*tolerations: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {"metadata": metadata, "spec": {"nodeName": "edge-1", "tolerations": list(tolerations)}, "status": {}}


def merged(obj: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    notes = {**obj["metadata"].get("annotations", {}), **change["metadata"]["annotations"]}
    return {**obj, "metadata": {**obj["metadata"], "annotations": notes}, "spec": {**obj["spec"], **change["spec"]}}


@pytest.mark.parametrize(
    ("before", "autonomy_us", "after"),
    [
        ([OTHER, ADMITTED], None, [OTHER, FOREVER]),
        ([OTHER, ADMITTED], HOUR_US, [OTHER, {**ADMITTED, "tolerationSeconds": 3900}]),
        ([{**ADMITTED, "tolerationSeconds": 30}], HOUR_US, [{**ADMITTED, "tolerationSeconds": 3630}]),
        ([OTHER], None, [OTHER, FOREVER]),
        ([], HOUR_US, [{**FOREVER, "tolerationSeconds": 3600}]),
        # Only the first that matches counts for the cluster's controller.
        ([ADMITTED, FOREVER], None, [FOREVER, FOREVER]),
    ],
)
def test_pods_stay_for_the_nodes_autonomy(before: list[Any], autonomy_us: int | None, after: list[Any]) -> None:
    change = staying.patch(pod(*before), autonomy_us)
    assert change is not None and change["spec"]["tolerations"] == after
    assert staying.patch(merged(pod(*before), change), autonomy_us) is None, "once is enough"


@pytest.mark.parametrize("before", [[FOREVER], [{"operator": "Exists"}], [FOREVER, ADMITTED]])
def test_pods_that_stay_for_ever_anyway_are_left_alone(before: list[Any]) -> None:
    assert staying.patch(pod(*before), None) is None
    assert staying.patch(pod(*before), HOUR_US) is None


def test_an_autonomy_that_changes_is_counted_from_the_pods_own_seconds() -> None:
    obj = pod({**ADMITTED, "tolerationSeconds": 30})
    for autonomy_us, seconds in ((None, None), (HOUR_US, 3630), (2 * HOUR_US, 7230), (None, None), (0, 30)):
        change = staying.patch(obj, autonomy_us)
        assert change is not None
        obj = merged(obj, change)
        assert obj["spec"]["tolerations"][0].get("tolerationSeconds") == seconds
        assert obj["metadata"]["annotations"] == {staying.OWN: "30"}


@pytest.mark.parametrize("spoilt", [{"metadata": {"deletionTimestamp": "t"}}, {"status": {"phase": "Succeeded"}}])
def test_pods_that_end_are_left_alone(spoilt: dict[str, Any]) -> None:
    assert staying.patch({**pod(ADMITTED), **spoilt}, None) is None
