"""What a Deployment says of itself: counts, Available and Progressing; and the numbers of its strategy.

Source: Kubernetes API reference, DeploymentStatus; documentation, "Deployments", "Deployment status".
"""

from __future__ import annotations

from collections.abc import Sequence

from cloud.standalone.controllers import amounts, base
from cloud.standalone.controllers.base import Object, Seen, at
from schemas import times

PROGRESS_DEADLINE_S = 600  # progressDeadlineSeconds' default


def wanted(d: Object) -> int:
    replicas = at(d, "spec", "replicas")
    return 1 if replicas is None else int(replicas)


def surge(d: Object) -> int:
    return _share(d, "maxSurge", up=True)


def max_unavailable(d: Object) -> int:
    if at(d, "spec", "strategy", "type") == "Recreate":
        return 0
    n = min(_share(d, "maxUnavailable", up=False), wanted(d))
    return n or (0 if surge(d) else min(1, wanted(d)))  # both nought would never move


def _share(d: Object, field: str, *, up: bool) -> int:
    """A number, or a percentage of the replicas; 25 % when unsaid."""
    value = at(d, "spec", "strategy", "rollingUpdate", field)
    if value is None:
        value = "25%"
    return amounts.share(value, wanted(d), up=up)


def of(d: Object, new: Seen | None, sets: Sequence[Seen], now_us: int) -> tuple[Object, int | None]:
    """The status, and after how many microseconds the progress deadline would pass."""
    total = _sum(sets, "replicas")
    counts = {
        "observedGeneration": int(base.meta(d).get("generation") or 0),
        "replicas": total,
        "updatedReplicas": _sum([new] if new else [], "replicas"),
        "readyReplicas": _sum(sets, "readyReplicas"),
        "availableReplicas": _sum(sets, "availableReplicas"),
        "collisionCount": int(at(d, "status", "collisionCount") or 0),
    }
    asked = sum(1 if (n := at(s.object, "spec", "replicas")) is None else int(n) for s in sets)
    counts["unavailableReplicas"] = max(0, asked - counts["availableReplicas"])
    conditions = {c.get("type"): c for c in base.maps(at(d, "status", "conditions"))}
    enough = counts["availableReplicas"] >= wanted(d) - max_unavailable(d)
    conditions["Available"] = _condition(conditions.get("Available"), now_us, *(_ENOUGH if enough else _TOO_FEW))
    progress, again_us = _progress(d, counts, new, conditions.get("Progressing"), now_us)
    if progress is not None:
        conditions["Progressing"] = progress
    # Zeros are left out (API reference: omitempty).
    return {k: v for k, v in counts.items() if v} | {"conditions": list(conditions.values())}, again_us


_ENOUGH = ("Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
_TOO_FEW = ("Available", "False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")


def _progress(
    d: Object, counts: dict[str, int], new: Seen | None, before: Object | None, now_us: int
) -> tuple[Object | None, int | None]:
    if new is None or at(d, "spec", "paused"):
        return before, None
    name = f'ReplicaSet "{new.key.name}"'
    n = wanted(d)
    if counts["updatedReplicas"] == counts["replicas"] == counts["availableReplicas"] == n:
        done = ("Progressing", "True", "NewReplicaSetAvailable", f"{name} has successfully progressed.")
        return _condition(before, now_us, *done), None
    if before is None or name not in str(before.get("message")):
        made = ("Progressing", "True", "NewReplicaSetCreated", f"Created new {name}.")
        return _condition(before, now_us, *made, renew=True), _deadline_us(d)
    if before.get("reason") == "NewReplicaSetAvailable":
        return before, None  # it had arrived; that pods fail now is told by Available
    if _further(counts, d.get("status") or {}):
        moved = ("Progressing", "True", "ReplicaSetUpdated", f"{name} is progressing.")
        return _condition(before, now_us, *moved, renew=True), _deadline_us(d)
    rest = (times.micros(before.get("lastUpdateTime")) or now_us) + _deadline_us(d) - now_us
    if rest > 0 or before.get("status") == "False":
        return before, max(rest, 0) or None
    late = ("Progressing", "False", "ProgressDeadlineExceeded", f"{name} has timed out progressing.")
    return _condition(before, now_us, *late), None


def _further(now: dict[str, int], before: Object) -> bool:
    """Whether the counts moved in the right direction."""
    was = {k: int(before.get(k) or 0) for k in now}
    return (
        now["updatedReplicas"] > was["updatedReplicas"]
        or now["replicas"] - now["updatedReplicas"] < was["replicas"] - was["updatedReplicas"]
        or now["readyReplicas"] > was["readyReplicas"]
        or now["availableReplicas"] > was["availableReplicas"]
    )


def _deadline_us(d: Object) -> int:
    seconds = at(d, "spec", "progressDeadlineSeconds")
    return int(PROGRESS_DEADLINE_S if seconds is None else seconds) * times.US_PER_S


def _condition(
    before: Object | None, now_us: int, kind: str, status: str, reason: str, message: str, *, renew: bool = False
) -> Object:
    now = times.rfc3339(now_us)
    new = {"type": kind, "status": status, "reason": reason, "message": message}
    if before is not None and not renew and all(before.get(k) == v for k, v in new.items()):
        return before
    same = before is not None and before.get("status") == status
    since = before.get("lastTransitionTime", now) if before is not None and same else now
    return {**new, "lastUpdateTime": now, "lastTransitionTime": since}


def _sum(sets: Sequence[Seen], field: str) -> int:
    return sum(int(at(s.object, "status", field) or 0) for s in sets)
