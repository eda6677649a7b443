"""The rows that kubectl shows."""

from __future__ import annotations

from typing import Any

import pytest

from bus.kube.catalog import Catalog
from bus.kube.memory import MemoryStorage
from bus.kube.printing import jsonpath, text
from bus.kube.printing.columns import Printer
from bus.kube.storage import Origin
from bus.kube.times import micros
from schemas.subjects import ObjectKey

NOW = micros("2026-01-01T01:00:00Z")
META = {"name": "x", "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z"}


def row(group: str, resource: str, obj: dict[str, Any], storage: MemoryStorage | None = None) -> dict[str, Any]:
    reader = storage or MemoryStorage()
    found = Catalog(reader).find(group, resource)
    assert found is not None
    printer = Printer(found, found.versions[found.storage_version], reader, lambda: NOW)
    table = printer.table([{**obj, "metadata": {**META, **obj.get("metadata", {})}}], "1")
    names = [c["name"] for c in table["columnDefinitions"]]
    return dict(zip(names, table["rows"][0]["cells"], strict=True))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-5, "<invalid>"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (330, "5m30s"),
        (3600, "60m"),
        (3 * 3600 + 60, "3h1m"),
        (9 * 3600, "9h"),
        (50 * 3600, "2d2h"),
        (9 * 86400, "9d"),
        (800 * 86400, "2y70d"),
        (4000 * 86400, "10y"),
    ],
)
def test_ages(seconds: int, said: str) -> None:
    assert text.duration(seconds) == said


def container(ready: bool, restarts: int = 0, **state: Any) -> dict[str, Any]:
    return {"name": "c", "ready": ready, "restartCount": restarts, "state": state}


POD_SPEC = {"containers": [{"name": "c"}], "nodeName": "edge-1"}


@pytest.mark.parametrize(
    ("status", "meta", "ready", "said"),
    [
        ({"phase": "Pending"}, {}, "0/1", "Pending"),
        ({"phase": "Running", "containerStatuses": [container(True, running={})]}, {}, "1/1", "Running"),
        (
            {"phase": "Running", "containerStatuses": [container(False, 3, waiting={"reason": "CrashLoopBackOff"})]},
            {},
            "0/1",
            "CrashLoopBackOff",
        ),
        (
            {"phase": "Pending", "containerStatuses": [container(False, waiting={"reason": "ImagePullBackOff"})]},
            {},
            "0/1",
            "ImagePullBackOff",
        ),
        ({"phase": "Failed", "containerStatuses": [container(False, terminated={"exitCode": 3})]}, {}, "0/1", "ExitCode:3"),
        (
            {"phase": "Failed", "containerStatuses": [container(False, terminated={"exitCode": 1, "reason": "Error"})]},
            {},
            "0/1",
            "Error",
        ),
        ({"phase": "Failed", "reason": "Evicted"}, {}, "0/1", "Evicted"),
        (
            {"phase": "Running", "containerStatuses": [container(True, running={})]},
            {"deletionTimestamp": "2026-01-01T00:00:00Z"},
            "1/1",
            "Terminating",
        ),
        ({"phase": "Running", "reason": "NodeLost"}, {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "0/1", "Unknown"),
    ],
)
def test_pods(status: dict[str, Any], meta: dict[str, Any], ready: str, said: str) -> None:
    got = row("", "pods", {"metadata": meta, "spec": POD_SPEC, "status": status})
    assert (got["Ready"], got["Status"], got["Node"], got["Age"]) == (ready, said, "edge-1", "60m")


def test_init_containers_and_restarts() -> None:
    spec = {"containers": [{"name": "c"}], "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]}
    waiting = {"initContainerStatuses": [{"name": "i", "state": {"running": {}}}], "phase": "Pending"}
    assert row("", "pods", {"spec": spec, "status": waiting})["Status"] == "Init:0/2"
    died = {"terminated": {"finishedAt": "2026-01-01T00:55:00Z"}}
    inits = [
        {"name": "i", "state": {"terminated": {"exitCode": 0}}},
        {"name": "s", "started": True, "ready": True, "state": {"running": {}}},
    ]
    up = {
        "phase": "Running",
        "initContainerStatuses": inits,
        "containerStatuses": [{**container(True, 2, running={}), "lastState": died}],
    }
    got = row("", "pods", {"spec": spec, "status": up})
    assert (got["Ready"], got["Restarts"], got["Status"]) == ("2/2", "2 (5m ago)", "Running")


def test_nodes() -> None:
    node = {
        "metadata": {"labels": {"node-role.kubernetes.io/edge": ""}},
        "spec": {"unschedulable": True},
        "status": {
            "conditions": [{"type": "Ready", "status": "Unknown"}],
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
            "nodeInfo": {
                "kubeletVersion": "v1",
                "osImage": "Debian 12",
                "kernelVersion": "6.1",
                "containerRuntimeVersion": "docker://27",
            },
        },
    }
    got = row("", "nodes", node)
    assert got["Status"] == "NotReady,SchedulingDisabled" and got["Roles"] == "edge" and got["Internal-IP"] == "10.0.0.1"
    assert got["OS-Image"] == "Debian 12" and got["Container-Runtime"] == "docker://27" and got["External-IP"] == "<none>"
    assert row("", "nodes", {})["Status"] == "Unknown"


def test_workloads_services_and_data() -> None:
    spec = {
        "replicas": 3,
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}},
    }
    got = row("apps", "deployments", {"spec": spec, "status": {"readyReplicas": 1, "updatedReplicas": 2}})
    assert (got["Ready"], got["Up-to-date"], got["Available"], got["Images"], got["Selector"]) == ("1/3", 2, 0, "i", "a=b")
    got = row("", "services", {"spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}]}})
    assert (got["Port(s)"], got["Cluster-IP"], got["External-IP"]) == ("80:30080/TCP", "<none>", "<none>")
    assert row("", "configmaps", {"data": {"a": ""}, "binaryData": {"b": ""}})["Data"] == 2
    event = {"involvedObject": {"kind": "Pod", "name": "p"}, "lastTimestamp": "2026-01-01T00:59:00Z", "message": " m\n"}
    got = row("", "events", event)
    assert (got["Last Seen"], got["Object"], got["Message"], got["Count"]) == ("60s", "pod/p", "m", 1)


async def test_devices_show_their_twins() -> None:
    storage = MemoryStorage()
    spec = {"deviceModelRef": {"name": "thermo"}, "nodeName": "edge-1", "protocol": {"protocolName": "modbus"}}
    assert row("devices.kubeedge.io", "devices", {"spec": spec}, storage)["Twins"] == "<none>"
    twins = [
        {"propertyName": "temperature", "reported": {"value": "21.5"}},
        {"propertyName": "setpoint", "reported": {"value": "25"}},
    ]
    status = {"metadata": META, "status": {"state": "online", "twins": twins}}
    await storage.create(ObjectKey("devices.kubeedge.io", "devicestatuses", "default", "x"), status, Origin("t"))
    got = row("devices.kubeedge.io", "devices", {"spec": spec}, storage)
    assert (got["Model"], got["Node"], got["Protocol"], got["State"]) == ("thermo", "edge-1", "modbus", "online")
    assert got["Twins"] == "temperature=21.5 setpoint=25"


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".spec.a", [1]),
        ("{.spec.a}", [1]),
        (".spec.list[0].n", ["x"]),
        (".spec.list[*].n", ["x", "y"]),
        ('.spec.list[?(@.n=="y")].v', [2]),
        (".metadata.labels.a\\.b/c", ["l"]),
        (".metadata.labels['a.b/c']", ["l"]),
        (".spec.nope.deeper", []),
        (".spec.list[9]", []),
        (".spec[", []),
    ],
)
def test_jsonpath(path: str, found: list[Any]) -> None:
    obj = {"spec": {"a": 1, "list": [{"n": "x", "v": 1}, {"n": "y", "v": 2}]}, "metadata": {"labels": {"a.b/c": "l"}}}
    assert jsonpath.find(obj, path) == found
