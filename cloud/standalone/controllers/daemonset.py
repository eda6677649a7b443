"""DaemonSet: one pod on each node that may have one, from the hour the node is registered.

Each pod names its node (required affinity by metadata.name), so the scheduler only checks that it fits.
At the edge a node that is cut off keeps what it runs, and a rollout goes past it: it is neither touched nor counted as
unavailable, or a few sites without a link would stop every rollout.  When it is back, it is its turn, within the limit.
Source: Kubernetes documentation, "DaemonSet", "Perform a Rolling Update on a DaemonSet"; API reference.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cloud.core.writes import Write
from cloud.standalone.controllers import amounts, base, claims, history, selecting, taints
from cloud.standalone.controllers.base import DAEMONSETS, NODES, PODS, REVISIONS, Controller, Object, Plan, Seen, View, at
from schemas import times
from schemas.subjects import ObjectKey

TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"
POD_GENERATION = "pod-template-generation"
BURST_PODS = 500  # made or deleted in one go; the rest follows with the next look
RETRY_US = 10 * times.US_PER_S  # a pod that failed is replaced when it is this old: one that fails at once must not spin

# What every daemon pod tolerates (documentation, "DaemonSet", "Taints and tolerations").
_TOLERATED = (
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
)
_HOST_NETWORK = ("node.kubernetes.io/network-unavailable", "NoSchedule")
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def concerns(view: View, seen: Seen | None, old: Seen | None) -> Iterable[ObjectKey]:
    s = seen or old
    assert s is not None
    kind = (s.key.group, s.key.resource)
    if kind == NODES:
        yield from _of_node(view, seen, old)
        return
    if kind == PODS and claims.unmoved(seen, old):
        return
    for known in (seen, old):
        if known is None:
            continue
        if kind == DAEMONSETS:
            yield known.key
        else:
            yield from claims.concerned(view, known, DAEMONSETS, "DaemonSet", adopts=seen is not None)


def _of_node(view: View, seen: Seen | None, old: Seen | None) -> Iterable[ObjectKey]:
    """Those that want a node, or don't any more; those that can go on there, now that it is back."""
    if seen is not None and old is not None and _face(seen.object) == _face(old.object):
        return
    for ds in view.list(DAEMONSETS):
        pod = _draft(ds.object)
        if any(_wanted(pod, n.object) != (False, False) for n in (seen, old) if n is not None):
            yield ds.key


def _face(node: Object) -> tuple[object, ...]:
    return base.labels(node), at(node, "spec"), taints.ready(node)


@dataclass(frozen=True, slots=True)
class _Place:
    """A node, and what is there for it, oldest first.  ``gone``: marked pods, which the node has yet to confirm."""

    node: Seen
    runs: bool  # it should have a pod
    stays: bool  # what it has may stay
    new: Sequence[Seen]
    old: Sequence[Seen]
    gone: Sequence[Seen]
    failed: Sequence[Seen]

    @property
    def live(self) -> list[Seen]:
        return [*self.new, *self.old]

    @property
    def cut(self) -> bool:
        return not taints.ready(self.node.object)


def reconcile(view: View, key: ObjectKey, now_us: int) -> Plan:
    ds = view.get(key)
    if ds is None:
        return Plan()
    writes: list[Write] = []
    pods = claims.claim(view, ds, PODS, writes)
    past = history.of(view, ds)
    if writes or past.writes:
        return Plan([*writes, *past.writes])  # looked at again with what the API says then
    places, nowhere = _places(view, ds, pods, past.current)
    again: list[int] = []
    if not base.deleting(ds.object):
        writes = _manage(ds, places, past.current, now_us, again)
        writes += [base.delete(p, ds) for p in nowhere]
        writes = writes or _roll(ds, places, past.current, now_us)
        if not writes:
            used = [base.labels(p.object).get(history.HASH, "") for p in pods]
            writes = history.forget(ds, past, used)
    status = _status(ds.object, places, now_us, again)
    if status != (ds.object.get("status") or {}):
        writes.append(base.status(ds, {**ds.object, "status": status}))
    return Plan(writes[: BURST_PODS + 1], min(again, default=None))


CONTROLLER = Controller("daemonset", (DAEMONSETS, REVISIONS, PODS, NODES), concerns, reconcile)


# --- which nodes -----------------------------------------------------------------------------------------------------


def _draft(ds: Object) -> Object:
    """A pod of the set as it would be, without a node."""
    template = at(ds, "spec", "template") or {}
    spec = dict(template.get("spec") or {})
    had = base.maps(spec.get("tolerations"))
    more = [*_TOLERATED, _HOST_NETWORK] if spec.get("hostNetwork") else _TOLERATED
    added = [{"key": k, "operator": "Exists", "effect": e} for k, e in more]
    spec["tolerations"] = had + [t for t in added if t not in had]
    return {**template, "spec": spec}


def _wanted(pod: Object, node: Object) -> tuple[bool, bool]:
    """(should have a pod, may keep one).  Readiness is no reason: the pod waits for the node, and stays when it is cut."""
    named = at(pod, "spec", "nodeName")
    if (named and named != base.meta(node).get("name")) or not selecting.node_matches(pod, node):
        return False, False
    tolerations = base.maps(at(pod, "spec", "tolerations"))
    own = [t for t in taints.of(node) if t.get("key") not in (taints.NOT_READY, taints.UNREACHABLE)]
    bad = [t.get("effect") for t in own if not taints.tolerated(t, tolerations)]
    return not any(e in ("NoSchedule", "NoExecute") for e in bad), "NoExecute" not in bad


def _places(view: View, ds: Seen, pods: Sequence[Seen], current: str) -> tuple[list[_Place], list[Seen]]:
    """Every node that wants or has a pod of the set; and pods that wait for a node that is no more."""
    by_node: dict[str, list[Seen]] = {}
    for p in sorted(pods, key=_age):
        by_node.setdefault(_node_of(p.object), []).append(p)
    draft, places = _draft(ds.object), []
    for node in view.list(NODES):
        here = by_node.pop(node.key.name, [])
        runs, stays = _wanted(draft, node.object)
        if not here and not runs:
            continue
        gone = [p for p in here if base.deleting(p.object)]
        failed = [p for p in here if base.finished(p.object) and not base.deleting(p.object)]
        live = claims.running(here)
        new = [p for p in live if base.labels(p.object).get(history.HASH) == current]
        old = [p for p in live if base.labels(p.object).get(history.HASH) != current]
        places.append(_Place(node, runs, stays, new, old, gone, failed))
    left = [p for listed in by_node.values() for p in listed]
    return places, [p for p in left if not at(p.object, "spec", "nodeName") and not base.deleting(p.object)]


def _node_of(pod: Object) -> str:
    bound = at(pod, "spec", "nodeName")
    if bound:
        return str(bound)
    for term in base.maps(at(pod, "spec", "affinity", "nodeAffinity", _REQUIRED, "nodeSelectorTerms")):
        for wanted in base.maps(term.get("matchFields")):
            if wanted.get("key") == "metadata.name" and len(wanted.get("values") or []) == 1:
                return str(wanted["values"][0])
    return ""


def _age(pod: Seen) -> tuple[int, str]:
    return times.micros(base.meta(pod.object).get("creationTimestamp")) or 0, pod.key.name


# --- pods ------------------------------------------------------------------------------------------------------------


def _manage(ds: Seen, places: Sequence[_Place], current: str, now_us: int, again: list[int]) -> list[Write]:
    """A pod where one is missing; none where none may be, and no second one."""
    surge = _surge(ds.object, sum(p.runs for p in places))
    writes: list[Write] = []
    for place in places:
        if place.runs and not (place.live or place.gone or place.failed):
            writes.append(_create(ds, place.node, current))
        if not place.stays:
            writes += [base.delete(p, ds) for p in [*place.live, *place.failed]]
            continue
        for p in place.failed:
            rest = _age(p)[0] + RETRY_US - now_us
            if rest > 0:
                again.append(rest)
            else:
                writes.append(base.delete(p, ds))
        extra = [*place.new[1:], *place.old[1:]] if surge else sorted(place.live, key=_age)[1:]
        if surge and place.new and place.old and _available(ds.object, place.new[0], now_us):
            extra.append(place.old[0])
        writes += [base.delete(p, ds) for p in extra]
    return writes


def _create(ds: Seen, node: Seen, current: str) -> Write:
    generation = base.notes(ds.object).get(TEMPLATE_GENERATION, "1")
    labels = {history.HASH: current, POD_GENERATION: generation}
    pod = claims.new_pod(ds.object, _draft(ds.object), **labels)
    field = {"key": "metadata.name", "operator": "In", "values": [node.key.name]}
    affinity = at(pod, "spec", "affinity") or {}
    here = {**(affinity.get("nodeAffinity") or {}), _REQUIRED: {"nodeSelectorTerms": [{"matchFields": [field]}]}}
    pod["spec"] = {**pod["spec"], "affinity": {**affinity, "nodeAffinity": here}}
    return base.create(PODS, ds.key.namespace, pod, ds)


# --- rolling ---------------------------------------------------------------------------------------------------------


def _roll(ds: Seen, places: Sequence[_Place], current: str, now_us: int) -> list[Write]:
    if (at(ds.object, "spec", "updateStrategy", "type") or "RollingUpdate") != "RollingUpdate":
        return []
    within = [p for p in places if p.runs and not p.cut]
    wanted = sum(p.runs for p in places)
    surge = _surge(ds.object, wanted)
    if surge:
        return _surging(ds, within, current, surge, now_us)
    value = at(ds.object, "spec", "updateStrategy", "rollingUpdate", "maxUnavailable")
    allowed = max(1, amounts.share(1 if value is None else value, wanted, up=True))
    missing = 0
    at_once: list[Seen] = []
    in_turn: list[Seen] = []
    for place in within:
        one = place.live[0] if len(place.live) == 1 and not place.gone else None
        if one is None or (place.new and not _available(ds.object, one, now_us)):
            missing += 1
        elif place.old:
            (in_turn if _available(ds.object, one, now_us) else at_once).append(one)
    return [base.delete(p, ds) for p in [*at_once, *in_turn[: max(0, allowed - missing - len(at_once))]]]


def _surging(ds: Seen, within: Sequence[_Place], current: str, surge: int, now_us: int) -> list[Write]:
    """The new one beside the old one, which goes when the new one is available (``_manage``)."""
    under_way = 0
    at_once: list[Seen] = []
    in_turn: list[Seen] = []
    for place in within:
        if place.old and place.new:
            under_way += 1
        elif place.old:
            (in_turn if _available(ds.object, place.old[0], now_us) else at_once).append(place.node)
    chosen = [*at_once, *in_turn[: max(0, surge - under_way)]]
    return [_create(ds, node, current) for node in chosen]


def _surge(ds: Object, wanted: int) -> int:
    if at(ds, "spec", "updateStrategy", "type") == "OnDelete":
        return 0
    return amounts.share(at(ds, "spec", "updateStrategy", "rollingUpdate", "maxSurge") or 0, wanted, up=True)


def _min_ready_s(ds: Object) -> int:
    return int(at(ds, "spec", "minReadySeconds") or 0)


def _available(ds: Object, pod: Seen, now_us: int) -> bool:
    return amounts.available_in_us(pod.object, _min_ready_s(ds), now_us) == 0


# --- status ----------------------------------------------------------------------------------------------------------


def _status(ds: Object, places: Sequence[_Place], now_us: int, again: list[int]) -> Object:
    needed = dict.fromkeys(("currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady"), 0)
    more = dict.fromkeys(("updatedNumberScheduled", "numberAvailable"), 0)
    for place in places:
        there = sorted([*place.live, *place.gone], key=_age)
        if not place.runs:
            needed["numberMisscheduled"] += bool(there)
            continue
        needed["desiredNumberScheduled"] += 1
        needed["currentNumberScheduled"] += bool(there)
        more["updatedNumberScheduled"] += bool(place.new)
        waits = [amounts.available_in_us(p.object, _min_ready_s(ds), now_us) for p in there]
        needed["numberReady"] += any(w is not None for w in waits)
        more["numberAvailable"] += 0 in waits
        again += [w for w in waits if w]
    more["numberUnavailable"] = needed["desiredNumberScheduled"] - more["numberAvailable"]
    more["observedGeneration"] = int(base.meta(ds).get("generation") or 0)
    more["collisionCount"] = int(at(ds, "status", "collisionCount") or 0)
    conditions = at(ds, "status", "conditions")
    # Zeros of the counts that the API reference marks optional are left out.
    return needed | {k: v for k, v in more.items() if v} | ({"conditions": conditions} if conditions else {})
