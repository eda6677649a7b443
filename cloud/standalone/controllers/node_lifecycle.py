"""Node lifecycle: the NoExecute taints of nodes that say they can't run pods, or that are cut off for longer than agreed.

The NoSchedule taints are written at once with the node's status (cloud/core/status.py), because the one who sees a link go
knows first.  Here is what drives pods off, and that is slower on purpose:

* the node is heard, and says that it isn't ready: ``not-ready:NoExecute``, as on any cluster;
* it says that it is: what the API gave it when it was registered (``not-ready:NoSchedule``) goes;
* the node is cut off: nothing, until its autonomy has run out (``autonomy``), then ``unreachable:NoExecute``.

When it is heard again the taints are gone before anybody counts on; what was not evicted by then stays, and what runs is
not touched.  NoExecute taints of people get the time at which they were seen, from which tolerationSeconds count.
Source: Kubernetes documentation, "Nodes", "Taints and Tolerations" (taint based evictions).
"""

from __future__ import annotations

from collections.abc import Iterable

from cloud.core.writes import Write
from cloud.standalone.controllers import autonomy, base, events, taints
from cloud.standalone.controllers.base import NODES, Controller, Object, Plan, Seen, View
from schemas import times
from schemas.subjects import ObjectKey

LINK_LOST = "LinkLost"  # the reason with which cloud/core/status.py says it


def concerns(view: View, seen: Seen | None, old: Seen | None) -> Iterable[ObjectKey]:
    if seen is not None and (old is None or _face(seen.object) != _face(old.object)):
        yield seen.key


def _face(node: Object) -> tuple[object, ...]:
    ready = base.condition(node, "Ready") or {}
    said = [ready.get(f) for f in ("status", "reason", "lastTransitionTime")]
    return said, taints.of(node), base.notes(node).get(autonomy.ANNOTATION)


def reconcile(view: View, key: ObjectKey, now_us: int) -> Plan:
    node = view.get(key)
    if node is None:
        return Plan()
    writes: list[Write] = []
    if said := autonomy.problem(node.object):
        writes += events.tell(view, node, "BadAutonomy", said, now_us, "node-controller")
    ours, again = _owed(node.object, now_us)
    new = [*_kept(node.object, ours, now_us)]
    if ours is not None and not any(t.get("key") == ours for t in new if t.get("effect") == "NoExecute"):
        new.append({"key": ours, "effect": "NoExecute", "timeAdded": times.rfc3339(now_us)})
    if new != taints.of(node.object):
        spec = {**(node.object.get("spec") or {}), "taints": new}
        if not new:
            del spec["taints"]
        writes.insert(0, base.update(node, {**node.object, "spec": spec}))
    return Plan(writes, again)


def _owed(node: Object, now_us: int) -> tuple[str | None, int | None]:
    """Which taint it should have, and when that will be another."""
    ready = base.condition(node, "Ready") or {}
    if ready.get("status") == "False":
        return taints.NOT_READY, None
    if ready.get("status") == "Unknown" and ready.get("reason") == LINK_LOST:
        stays = autonomy.of(node)
        if stays is None:
            return None, None
        since = times.micros(ready.get("lastTransitionTime"))
        rest = (now_us if since is None else since) + stays - now_us
        return (taints.UNREACHABLE, None) if rest <= 0 else (None, rest)
    return None, None


def _kept(node: Object, ours: str | None, now_us: int) -> Iterable[Object]:
    ready = taints.ready(node)
    for t in taints.of(node):
        if t.get("effect") != "NoExecute":
            if not (ready and t.get("key") == taints.NOT_READY and t.get("effect") == "NoSchedule"):
                yield t
        elif t.get("key") not in (taints.NOT_READY, taints.UNREACHABLE) or t.get("key") == ours:
            yield t if t.get("timeAdded") else {**t, "timeAdded": times.rfc3339(now_us)}


def out_of_service(view: View, name: str) -> bool:
    """Whether somebody said that a node is dead: it is tainted so, and it isn't ready."""
    node = view.get(ObjectKey(*NODES, "", name))
    if node is None or (base.condition(node.object, "Ready") or {}).get("status") == "True":
        return False
    return any(t.get("key") == taints.OUT_OF_SERVICE for t in taints.of(node.object))


CONTROLLER = Controller("nodelifecycle", (NODES,), concerns, reconcile)
