"""A runtime that runs nothing: a pod that is applied is Running, a pod that is gone is gone.

What it reports has the shape and about the size of what a node with a real engine reports.
"""

from __future__ import annotations

from typing import Any

from edge.core.times import rfc3339
from edge.state import Report
from schemas import event, reports

IP = "10.0.0.1"


def pod_report(ev: event.Event, now_us: int) -> Report | None:
    """None for what is not a pod."""
    if (ev.group, ev.resource) != ("", "pods"):
        return None
    hops = [reports.Hop(what="edge.applied", time=now_us)]
    status = None if ev.deleted or ev.data is None else _running(ev.data, ev.uid, now_us)
    payload = reports.PodReport(uid=ev.uid, status=status, hops=hops)
    return Report("pod", ev.namespace, ev.name, payload, cause=ev.id, trace=ev.trace)


def _running(pod: dict[str, Any], uid: str, now_us: int) -> dict[str, Any]:
    now = rfc3339(now_us)
    kinds = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    return {
        "phase": "Running",
        "conditions": [{"type": k, "status": "True", "lastProbeTime": None, "lastTransitionTime": now} for k in kinds],
        "hostIP": IP,
        "hostIPs": [{"ip": IP}],
        "podIP": IP,
        "podIPs": [{"ip": IP}],
        "startTime": now,
        "containerStatuses": [_container(c, uid, now) for c in pod["spec"].get("containers", [])],
        "qosClass": "BestEffort",
    }


def _container(container: dict[str, Any], uid: str, now: str) -> dict[str, Any]:
    return {
        "name": container["name"],
        "state": {"running": {"startedAt": now}},
        "lastState": {},
        "ready": True,
        "restartCount": 0,
        "image": container.get("image", ""),
        "imageID": "",
        "containerID": f"docker://hollow-{uid}-{container['name']}",
        "started": True,
    }


def node_report(node: str, boot: str) -> Report:
    sizes = {"cpu": "4", "memory": "4194304Ki", "ephemeral-storage": "33554432Ki", "pods": "110"}
    status = {
        "capacity": sizes,
        "allocatable": dict(sizes),
        "addresses": [{"type": "InternalIP", "address": IP}, {"type": "Hostname", "address": node}],
        "nodeInfo": {
            "machineID": node, "systemUUID": node, "bootID": boot, "kernelVersion": "hollow", "osImage": "hollow",
            "containerRuntimeVersion": "hollow://0", "kubeletVersion": "v1.31.0-skerry-hollow", "kubeProxyVersion": "",
            "operatingSystem": "linux", "architecture": "amd64",
        },
    }  # fmt: skip
    labels = {
        "kubernetes.io/hostname": node, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
        "node-role.kubernetes.io/edge": "", "skerry.io/hollow": "",
    }  # fmt: skip
    return Report("node", "", "", reports.NodeReport(status=status, labels=labels, ready=True, boot=boot))
