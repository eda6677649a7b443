"""Disruption budgets: how many pods of each may be evicted now (bus/kube/eviction.py takes from it).

Pods on a node that is cut off are not healthy here: they very likely run, but nobody can say so, and a drain somewhere else
must not rely on it.
Source: Kubernetes documentation, "Specifying a Disruption Budget for your Application"; API reference, PodDisruptionBudget.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cloud.standalone.controllers import amounts, base, selecting
from cloud.standalone.controllers.base import BUDGETS, PODS, Controller, Object, Plan, Seen, View, at
from schemas import times
from schemas.subjects import ObjectKey

# An eviction that was allowed and never became a deletion (the server died between the two) is given back after this time.
DELETION_US = 120 * times.US_PER_S


class Unscalable(Exception):
    """A percentage of what?  The message says what stands in the way."""


def concerns(view: View, seen: Seen | None, old: Seen | None) -> Iterable[ObjectKey]:
    s = seen or old
    assert s is not None
    kind = (s.key.group, s.key.resource)
    if kind == BUDGETS:
        if seen is not None:
            yield s.key
    elif kind == PODS:
        if seen is not None and old is not None and _face(seen.object) == _face(old.object):
            return
        for budget in view.list(BUDGETS, s.key.namespace):
            if any(_covers(budget.object, p.object) for p in (seen, old) if p is not None):
                yield budget.key
    elif seen is not None and old is not None and _scale(seen.object) != _scale(old.object):
        yield from (b.key for b in view.list(BUDGETS, s.key.namespace))


def _face(pod: Object) -> tuple[object, ...]:
    return base.uid(pod), base.labels(pod), amounts.ready(pod), base.deleting(pod), base.finished(pod), base.owners(pod)


def _scale(owner: Object) -> Any:
    return at(owner, "spec", "replicas")


def _covers(budget: Object, pod: Object) -> bool:
    return selecting.selects(at(budget, "spec", "selector"), base.labels(pod))


def reconcile(view: View, key: ObjectKey, now_us: int) -> Plan:
    budget = view.get(key)
    if budget is None or base.deleting(budget.object):
        return Plan()
    pods = [p for p in _candidates(view, budget) if _covers(budget.object, p.object) and not base.finished(p.object)]
    disrupted, again = _disrupted(budget.object, pods, now_us)
    healthy = sum(amounts.ready(p.object) and not base.deleting(p.object) and p.key.name not in disrupted for p in pods)
    old = budget.object.get("status") or {}
    counts: Object = {"currentHealthy": healthy, "observedGeneration": base.meta(budget.object).get("generation") or 0}
    try:
        expected, desired = _wanted(view, budget.object, pods)
        allowed = max(0, healthy - desired) if expected > 0 else 0
        reason = "SufficientPods" if allowed else "InsufficientPods"
        counts |= {"expectedPods": expected, "desiredHealthy": desired, "disruptionsAllowed": allowed}
        said = {"status": "True" if allowed else "False", "reason": reason, "message": ""}
    except Unscalable as e:
        counts |= {"expectedPods": len(pods), "desiredHealthy": old.get("desiredHealthy") or 0, "disruptionsAllowed": 0}
        said = {"status": "False", "reason": "SyncFailed", "message": str(e)}
    status = counts | {"conditions": _conditions(old, said, counts["observedGeneration"], now_us)}
    if disrupted:
        status["disruptedPods"] = disrupted
    if status == old:
        return Plan([], again)
    return Plan([base.status(budget, {**budget.object, "status": status})], again)


def _candidates(view: View, budget: Seen) -> Sequence[Seen]:
    """Found by their labels where the selector names some, or all of the namespace."""
    wanted = at(budget.object, "spec", "selector", "matchLabels") or {}
    space = budget.key.namespace
    return view.labelled(PODS, space, wanted) if wanted else view.list(PODS, space)


def _disrupted(budget: Object, pods: Sequence[Seen], now_us: int) -> tuple[dict[str, str], int | None]:
    """Evictions that were allowed and are not seen yet, and when the first of them is given up."""
    there = {p.key.name: p.object for p in pods}
    kept: dict[str, str] = {}
    rests: list[int] = []
    for name, since in (at(budget, "status", "disruptedPods") or {}).items():
        rest = (times.micros(since) or 0) + DELETION_US - now_us
        if name in there and not base.deleting(there[name]) and rest > 0:
            kept[name] = since
            rests.append(rest)
    return kept, min(rests, default=None)


def _wanted(view: View, budget: Object, pods: Sequence[Seen]) -> tuple[int, int]:
    """(how many pods there should be, how many of them must stay).  Raises Unscalable."""
    least, most_gone = at(budget, "spec", "minAvailable"), at(budget, "spec", "maxUnavailable")
    if most_gone is not None:
        expected = _expected(view, pods)
        return expected, max(0, expected - amounts.share(most_gone, expected, up=True))
    if isinstance(least, str):
        expected = _expected(view, pods)
        return expected, amounts.share(least, expected, up=True)
    return len(pods), int(least or 0)


def _expected(view: View, pods: Sequence[Seen]) -> int:
    """The replicas that the pods' controllers want, together."""
    scales: dict[object, int] = {}
    for pod in pods:
        owner = _scaled(view, pod)
        if owner is not None:
            scales[base.uid(owner.object)] = int(_scale(owner.object) or 0)
    return sum(scales.values())


def _scaled(view: View, pod: Seen) -> Seen | None:
    """Who decides how many there are: the pod's controller, or the controller of that one (a Deployment)."""
    found, below = None, pod
    while (ref := base.controller_of(below.object)) is not None:
        served = view.kind_of(str(ref.get("apiVersion")), str(ref.get("kind")))
        owner = view.get(ObjectKey(*served[0], pod.key.namespace, str(ref.get("name")))) if served is not None else None
        if owner is None or base.uid(owner.object) != ref.get("uid"):
            break
        if _scale(owner.object) is None:
            raise Unscalable(f"{served[0][1] if served else ref.get('kind')} does not implement the scale subresource")
        found = below = owner
    return found


def _conditions(old: Object, said: Object, generation: int, now_us: int) -> list[Object]:
    before = next((c for c in base.maps(old.get("conditions")) if c.get("type") == "DisruptionAllowed"), {})
    since = before.get("lastTransitionTime") if before.get("status") == said["status"] else None
    now = {"type": "DisruptionAllowed", "observedGeneration": generation, **said}
    others = [c for c in base.maps(old.get("conditions")) if c.get("type") != "DisruptionAllowed"]
    return [*others, {**now, "lastTransitionTime": since or times.rfc3339(now_us)}]


CONTROLLER = Controller(
    "disruption",
    (BUDGETS, PODS, base.DEPLOYMENTS, base.REPLICASETS, base.STATEFULSETS, base.REPLICATION_CONTROLLERS),
    concerns,
    reconcile,
)
