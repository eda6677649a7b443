"""Preemption: which pods of lower priority have to go so that one of higher priority finds a place.

On each node that could help: all of lower priority away; if the pod then fits, as many as possible back, the most important
first.  Of the nodes the one that hurts least: fewest disruption budgets broken, the least important victims, the fewest.
Source: Kubernetes documentation, "Pod Priority and Preemption"; kube-scheduler's DefaultPreemption for the order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cloud.standalone.controllers import base, fit, place, selecting
from cloud.standalone.controllers.base import BUDGETS, Object, Seen, View, at
from cloud.standalone.controllers.census import Without
from cloud.standalone.controllers.company import Company
from cloud.standalone.controllers.demand import Demand
from cloud.standalone.controllers.fit import Refusal
from cloud.standalone.controllers.place import Place
from cloud.standalone.controllers.spread import Spreading
from schemas import times
from schemas.subjects import ObjectKey

NODES_MAX = 100  # tried for one pod (kube-scheduler's minCandidateNodesAbsolute)
NOT_HELPFUL = "Preemption is not helpful for scheduling"
NO_VICTIMS = "No preemption victims found for incoming pod"
NEVER = "not eligible due to preemptionPolicy=Never."
WAITS = "not eligible due to a terminating pod on the nominated node."


@dataclass(frozen=True, slots=True)
class Choice:
    """``node`` and who leaves it; without a node ``why`` says why none would do."""

    node: str = ""
    victims: tuple[Demand, ...] = ()
    why: str = ""


def choose(view: View, want: Demand, places: Sequence[Place], refusals: Mapping[str, Refusal]) -> Choice:
    """``refusals``: why each node refused the pod."""
    if at(want.pod, "spec", "preemptionPolicy") == "Never":
        return Choice(why=NEVER)
    if _under_way(view, want, refusals):
        return Choice(why=WAITS)
    why: Counter[str] = Counter()
    budgets = _budgets(view)
    found: list[tuple[tuple[object, ...], str, tuple[Demand, ...]]] = []
    for p in places:
        if refusals[p.name].final:
            why[NOT_HELPFUL] += 1
            continue
        victims = _victims(view, want, p, places, budgets) if len(found) < NODES_MAX else None
        if victims is None:
            why[NO_VICTIMS] += 1
        else:
            found.append((_harm(*victims), p.name, (*victims[0], *victims[1])))
    if found:
        _, node, chosen = min(found, key=lambda f: (f[0], f[1]))
        return Choice(node, chosen)
    said = ", ".join(f"{n} {reason}" for reason, n in sorted(why.items()))
    return Choice(why=f"0/{len(places)} nodes are available: {said}.")


def _under_way(view: View, want: Demand, refusals: Mapping[str, Refusal]) -> bool:
    """Room is being made for it already: its victims have their grace."""
    node = str(at(want.pod, "status", "nominatedNodeName") or "")
    if not node or node not in refusals or refusals[node].final:
        return False
    return any(p.priority < want.priority and base.deleting(p.pod) for p in view.place(node).pods)


Victims = tuple[list[Demand], list[Demand]]  # those that break a budget, and the others


def _victims(
    view: View, want: Demand, p: Place, places: Sequence[Place], budgets: Sequence[tuple[str, Object]]
) -> Victims | None:
    """Who has to leave a node; None: it would not help."""
    lower = [q for q in p.pods if q.priority < want.priority]
    if not lower:
        return None
    gone = {q.key: q for q in lower}
    if not _fits(view, want, p, places, gone):
        return None
    broken, others = _sorted(lower, budgets)
    out: Victims = ([], [])
    for group, taken in ((broken, out[0]), (others, out[1])):
        for q in group:
            del gone[q.key]
            if not _fits(view, want, p, places, gone):
                gone[q.key] = q
                taken.append(q)
    return out if gone else None


def _fits(view: View, want: Demand, p: Place, places: Sequence[Place], gone: Mapping[tuple[str, str], Demand]) -> bool:
    left = place.of(p.node, [q for q in p.pods if q.key not in gone], p.nominated)
    if fit.refused(want, left) is not None:
        return False
    census = Without(view.census, p.name, gone.values())
    company, spreading = Company(census, want, places), Spreading(census, want, places)
    return company.refused(left) is None and spreading.refused(left) is None


def _budgets(view: View) -> list[tuple[str, Object]]:
    return [(b.key.namespace, b.object) for b in view.list(BUDGETS)]


def _sorted(pods: Sequence[Demand], budgets: Sequence[tuple[str, Object]]) -> tuple[list[Demand], list[Demand]]:
    """(whose budget would be broken, the others), the most important first: they are put back first."""
    left = [int(at(b, "status", "disruptionsAllowed") or 0) for _, b in budgets]
    broken: list[Demand] = []
    others: list[Demand] = []
    for q in sorted(pods, key=_importance):
        over = False
        for i, (space, b) in enumerate(budgets):
            if space == q.namespace and selecting.selects(at(b, "spec", "selector"), q.labels):
                left[i] -= 1
                over |= left[i] < 0
        (broken if over else others).append(q)
    return broken, others


def _importance(q: Demand) -> tuple[int, int]:
    return -q.priority, _started(q)


def _started(q: Demand) -> int:
    since = times.micros(at(q.pod, "status", "startTime")) or times.micros(base.meta(q.pod).get("creationTimestamp"))
    return since or 0


def _harm(broken: list[Demand], others: list[Demand]) -> tuple[object, ...]:
    """The least is chosen; of equal ones the node whose most important victims began last."""
    pods = [*broken, *others]
    top = max(q.priority for q in pods)
    youngest = min(_started(q) for q in pods if q.priority == top)
    return len(broken), top, sum(q.priority + 2**31 for q in pods), len(pods), -youngest


def seen(view: View, victim: Demand) -> Seen | None:
    found = view.get(ObjectKey(*base.PODS, victim.namespace, victim.name))
    return found if found is not None and base.uid(found.object) == base.uid(victim.pod) else None
