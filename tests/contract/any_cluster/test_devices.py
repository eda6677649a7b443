"""Devices, models and twins through a real cluster's API: KubeEdge's manifests, unchanged."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.contract.any_cluster.conftest import Site, meta, sleeper, template, workload

pytestmark = [pytest.mark.contract, pytest.mark.timeout(400)]
API = "devices.kubeedge.io/v1beta1"


def visited(name: str, config: dict[str, Any], **more: Any) -> dict[str, Any]:
    cycles = {"collectCycle": 200, "reportCycle": 500, "reportToCloud": True}
    return {"name": name, **cycles, "visitors": {"protocolName": "virtual", "configData": config}, **more}


def test_a_device_a_twin_and_what_a_node_offers(site: Site) -> None:
    with site.namespace() as n:
        properties = [
            {"name": "temperature", "type": "FLOAT", "accessMode": "ReadOnly"},
            {"name": "setpoint", "type": "FLOAT", "accessMode": "ReadWrite"},
        ]
        model = {"protocol": "virtual", "properties": properties}
        device = {
            "nodeName": site.node,
            "deviceModelRef": {"name": "boiler"},
            "protocol": {"protocolName": "virtual", "configData": {}},
            "properties": [
                visited("temperature", {"ramp": {"from": 20, "to": 30, "step": 1}}),
                visited("setpoint", {"value": 5}, desired={"value": "20"}),
            ],
        }
        site.make(
            {"apiVersion": API, "kind": "DeviceModel", "metadata": meta("boiler", n), "spec": model},
            {"apiVersion": API, "kind": "Device", "metadata": meta("one", n), "spec": device},
        )
        site.world.start("mapper", "mapper", "run", "virtual", "--data", str(site.world.node_dir(site.node)))
        try:
            site.until("the twin is reported", lambda: _reported(site, n, "setpoint") == 20)
            site.until("telemetry", lambda: (_reported(site, n, "temperature") or 0) >= 20)
            device["properties"][1]["desired"] = {"value": "25"}  # type: ignore[index]
            patch = json.dumps({"spec": {"properties": device["properties"]}})
            site.ok("-n", n, "patch", "device", "one", "--type=merge", "-p", patch)
            site.until("the twin follows", lambda: _reported(site, n, "setpoint") == 25)
            offered = "devices.skerry.io/boiler"
            site.until("it is offered", lambda: site.get("node", site.node)["status"]["allocatable"].get(offered) == "1")
            asks = sleeper(resources={"limits": {offered: "1"}})
            site.make(workload("Deployment", n, "user", template("user", asks), replicas=2))
            site.until("one has it", lambda: sorted(_phases(site, n)) == ["Pending", "Running"])
            bad = {"apiVersion": API, "kind": "Device", "metadata": meta("bad", n), "spec": {"properties": "none"}}
            refused = site.run("create", "-f", "-", stdin=json.dumps(bad).encode())
            assert refused.returncode != 0 and b"spec.properties" in refused.stderr
            site.ok("-n", n, "delete", "device", "one")
            site.until("its status goes too", lambda: not site.get("-n", n, "devicestatus", "one"))
        finally:
            site.world.processes.stop("mapper")


def _reported(site: Site, namespace: str, name: str) -> float | None:
    for t in (site.get("-n", namespace, "devicestatus", "one").get("status") or {}).get("twins") or []:
        if t["propertyName"] == name and t.get("reported"):
            return float(t["reported"]["value"])
    return None


def _phases(site: Site, namespace: str) -> list[str]:
    return [p["status"]["phase"] for p in site.pods_of(namespace, "user")]
