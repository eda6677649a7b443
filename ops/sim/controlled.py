"""What must hold of controllers and scheduler, worked out from CLUSTER alone; see checkers.py.

Always: a pod is bound once; no controller drives a pod from a node that is only cut off and that nobody gave an end to its
autonomy.  In the end: each Deployment and ReplicaSet has its count, in one revision; nothing is owned by what is gone; every
pod has a node.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bus import log
from ops.sim.checkers import Violation, read
from ops.sim.deploying import AUTONOMY
from ops.sim.hub import Hub
from ops.sim.schedule import S
from schemas import event

Object = dict[str, Any]
EVICTOR = "system:controller:tainteviction"
NOT_READY_US = 900 * S  # a node that said it can't run pods is left for so long after, whatever the evictor saw when


@dataclass
class ControlChecker:
    hub: Hub
    nodes_of: dict[str, str] = field(default_factory=dict)  # uid of a pod -> node that it was bound to
    deleting: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)  # nodes whose autonomy had an end at some time
    unready_us: dict[str, int] = field(default_factory=dict)  # node -> when it last said that it is not ready
    bound: int = 0
    evicted: int = 0

    def appended(self, record: log.Recorded) -> None:
        if record.stream != "CLUSTER":
            return
        raw = read(record.payload)
        if raw["type"] == event.OBJECT_DELETED or not isinstance(raw.get("data"), dict):
            return
        if raw["resource"] == "nodes":
            self._node(raw["name"], raw["data"])
        elif raw["resource"] == "pods":
            self._pod(record, raw)

    def _node(self, name: str, node: Object) -> None:
        if node["metadata"].get("annotations", {}).get(AUTONOMY):
            self.ended.add(name)
        ready = [c["status"] for c in node.get("status", {}).get("conditions", []) if c["type"] == "Ready"]
        if "False" in ready:
            self.unready_us[name] = self.hub.true_us

    def _pod(self, record: log.Recorded, raw: dict[str, Any]) -> None:
        uid, node = raw["uid"], raw["data"]["spec"].get("nodeName", "")
        before = self.nodes_of.get(uid, "")
        if before and node != before:
            raise Violation("bound once", f"{record.subject} #{record.seq}: {uid} was on {before}, is on {node or 'none'}")
        if node and not before:
            self.bound += 1
            self.nodes_of[uid] = node
        if "deletionTimestamp" in raw["data"]["metadata"] and uid not in self.deleting:
            self.deleting.add(uid)
            if raw.get("actor") == EVICTOR:
                self._evicted(record, node)

    def _evicted(self, record: log.Recorded, node: str) -> None:
        self.evicted += 1
        unready = self.unready_us.get(node)
        if node not in self.ended and (unready is None or self.hub.true_us - unready > NOT_READY_US):
            raise Violation("autonomy", f"{record.subject} #{record.seq} is driven from {node}, which is only cut off")

    def restored(self) -> None:
        """The new epoch begins with what the backup has."""
        self.nodes_of, self.deleting = {}, set()
        for record in self.hub.streams["CLUSTER"].history:
            raw = read(record.payload)
            if raw["resource"] == "pods" and isinstance(raw.get("data"), dict):
                if node := raw["data"]["spec"].get("nodeName", ""):
                    self.nodes_of[raw["uid"]] = node
                if "deletionTimestamp" in raw["data"]["metadata"]:
                    self.deleting.add(raw["uid"])


def differences(objects: dict[tuple[str, str, str], Object]) -> list[str]:
    """In the end; ``objects`` as ``outcome.cluster`` gives them.  Empty when all is as it must be."""
    out: list[str] = []
    uids = {o["metadata"]["uid"] for o in objects.values()}
    owned: dict[str, list[Object]] = {}
    for (resource, namespace, name), obj in objects.items():
        for ref in obj["metadata"].get("ownerReferences", []):
            if ref["uid"] not in uids:
                out.append(f"{resource} {namespace}/{name} is owned by {ref['kind']} {ref['name']}, which is gone")
            if ref.get("controller"):
                owned.setdefault(ref["uid"], []).append(obj)
        if resource == "pods" and not obj["spec"].get("nodeName"):
            out.append(f"pod {namespace}/{name} is on no node")
    for (resource, namespace, name), obj in objects.items():
        if resource in ("deployments", "replicasets"):
            out += [f"{resource} {namespace}/{name} {why}" for why in _counts(resource, obj, owned)]
    return out


def _counts(resource: str, obj: Object, owned: dict[str, list[Object]]) -> list[str]:
    meta, wanted = obj["metadata"], obj["spec"].get("replicas", 1)
    if "deletionTimestamp" in meta:
        return ["is still being deleted"]
    mine = owned.get(meta["uid"], [])
    if resource == "replicasets":
        there = len(_alive(mine))
        return [] if there == wanted else [f"has {there} pods, not {wanted}"]
    per = [(rs, len(_alive(owned.get(rs["metadata"]["uid"], [])))) for rs in mine]
    images = {rs["spec"]["template"]["spec"]["containers"][0]["image"] for rs, pods in per if pods}
    out = []
    if sum(pods for _, pods in per) != wanted:
        out.append(f"has {sum(pods for _, pods in per)} pods, not {wanted}")
    if images - {obj["spec"]["template"]["spec"]["containers"][0]["image"]}:
        out.append(f"runs {sorted(images)}")
    status = obj.get("status", {})
    if status.get("observedGeneration") != meta.get("generation") or status.get("readyReplicas", 0) != wanted:
        out.append(f"says {status.get('readyReplicas', 0)} are ready of {wanted}")
    return out


def _alive(pods: list[Object]) -> list[Object]:
    return [
        p
        for p in pods
        if "deletionTimestamp" not in p["metadata"] and p.get("status", {}).get("phase") not in ("Succeeded", "Failed")
    ]
