"""``kubectl autoscale`` sends protobuf and says nothing of why it failed: it must be read."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.contract.kube_served import served

pytestmark = pytest.mark.contract


async def test_kubectl_autoscale(tmp_path: Path) -> None:
    async with served(tmp_path) as api:
        await api.ok("create", "deployment", "web", "--image=i")
        await api.ok("autoscale", "deployment/web", "--cpu=60%", "--memory=200Mi", "--min=2", "--max=7")
        spec = yaml.safe_load(await api.ok("get", "hpa", "web", "-o", "yaml"))["spec"]
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 7)
    targets = {m["resource"]["name"]: m["resource"]["target"] for m in spec["metrics"]}
    assert targets == {
        "cpu": {"type": "Utilization", "averageUtilization": 60},
        "memory": {"type": "AverageValue", "averageValue": "200Mi"},
    }
