"""Eviction: a delete of a pod that asks the pod's disruption budget first (what ``kubectl drain`` does).

The budget's status holds how many may go now (its controller counts); an eviction takes one of them and writes down the pod,
by optimistic concurrency, so two drains at once never take more than there are.
Source: Kubernetes documentation, "API-initiated Eviction", "Specifying a Disruption Budget"; kube-apiserver's
pkg/registry/core/pod/storage/eviction.go for the order of the checks and the words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bus.kube import decoding, deletion, errors, selectors, times
from bus.kube.catalog import Resource, Version
from bus.kube.errors import StatusError
from bus.kube.kinds.base import at
from bus.kube.storage import Object
from bus.kube.targets import Target, Write

if TYPE_CHECKING:
    from bus.kube.registry import Registry

BUDGETS = ("policy", "poddisruptionbudgets")
DISRUPTED_MAX = 2000  # pods in a budget's status that its controller has not seen go yet
RETRY_S = 10
NO = "Cannot evict pod as it would violate the pod's disruption budget."
TWO = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."


async def evict(registry: Registry, target: Target, raw: Any, kind: tuple[Resource, Version], how: Write) -> None:
    """Deletes the pod.  ``kind`` describes an Eviction.  Raises StatusError: 429 when a budget forbids it now."""
    eviction = decoding.read(raw, *kind, validation=how.validation)
    given = eviction["metadata"].get("name")
    if given and given != target.name:
        raise errors.bad_request("name in URL does not match name in Eviction object")
    options = deletion.options(eviction.get("deleteOptions"))
    dry = how.dry_run or options.dry_run
    pod = registry.stored(target).object
    _same_pod(options, target, pod)
    if not _free(pod):
        budgets = [b for b in registry.reader.list(*BUDGETS, target.namespace) if _covers(b.object, pod)]
        if len(budgets) > 1:
            raise StatusError(500, "", TWO)
        for budget in budgets:
            await _take(registry, budget.key.name, target, pod, how, dry=dry)
    if not dry and not pod["metadata"].get("deletionTimestamp"):
        await _tell(registry, target, how)
    await registry.delete("", "pods", target.namespace, target.name, how=how, options=options, reviewed=True)


async def _tell(registry: Registry, target: Target, how: Write) -> None:
    """The pod's status says why it goes (documentation, "Pod disruption conditions")."""
    now = times.of_micros(registry.now_us())
    why = {"reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting", "lastTransitionTime": now}
    condition = {"type": "DisruptionTarget", "status": "True", **why}

    def told(pod: Object) -> Object:
        others = [c for c in at(pod, "status", "conditions") or [] if c.get("type") != "DisruptionTarget"]
        pod["status"] = {**(pod.get("status") or {}), "conditions": [*others, condition]}
        return pod

    await registry.change(
        Target(target.resource, target.version, target.namespace, target.name, "status"), told, how, reviewed=True
    )


def _same_pod(options: deletion.DeleteOptions, target: Target, pod: Object) -> None:
    """Before the budget is asked: a pod that is another one takes nothing from it."""
    if options.uid is not None and options.uid != pod["metadata"].get("uid"):
        have = pod["metadata"].get("uid")
        raise target.conflict(f"Precondition failed: UID in precondition: {options.uid}, UID in object meta: {have}")


def _free(pod: Object) -> bool:
    """Pods that serve nobody (any more) are in no budget."""
    phase = at(pod, "status", "phase")
    return bool(pod["metadata"].get("deletionTimestamp")) or phase in ("Succeeded", "Failed", "Pending")


def _covers(budget: Object, pod: Object) -> bool:
    selector = at(budget, "spec", "selector")
    if selector is None:
        return False
    try:
        return selectors.of_label_selector(selector).matches(pod["metadata"].get("labels") or {})
    except selectors.SelectorError:
        return False


def _ready(pod: Object) -> bool:
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in at(pod, "status", "conditions") or [])


async def _take(registry: Registry, name: str, target: Target, pod: Object, how: Write, *, dry: bool) -> None:
    def taken(budget: Object) -> Object:
        status = dict(budget.get("status") or {})
        healthy, desired = status.get("currentHealthy") or 0, status.get("desiredHealthy") or 0
        if not _ready(pod) and (at(budget, "spec", "unhealthyPodEvictionPolicy") == "AlwaysAllow" or healthy >= desired > 0):
            return budget
        if (status.get("observedGeneration") or 0) < (budget["metadata"].get("generation") or 0):
            raise _refused(f"The disruption budget {name} is still being processed by the server.", RETRY_S)
        allowed = status.get("disruptionsAllowed") or 0
        disrupted = dict(status.get("disruptedPods") or {})
        if len(disrupted) > DISRUPTED_MAX:
            why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller"
            raise errors.forbidden(*BUDGETS, name, why)
        if allowed <= 0:
            raise _refused(_short_of(budget, name, healthy, desired))
        if target.name in disrupted:
            return budget  # asked for again, before the first one was seen: it is counted already
        disrupted[target.name] = times.of_micros(registry.now_us())
        budget["status"] = status | {"disruptionsAllowed": allowed - 1, "disruptedPods": disrupted}
        return budget

    res, ver = registry.resource(*BUDGETS)
    asked = Target(res, ver, target.namespace, name, "status")
    if dry:
        taken(registry.present(res, ver, registry.stored(asked)))
        return
    await registry.change(asked, taken, how, reviewed=True)


def _short_of(budget: Object, name: str, healthy: int, desired: int) -> str:
    failed = next(
        (
            c
            for c in at(budget, "status", "conditions") or []
            if c.get("type") == "DisruptionAllowed" and c.get("status") == "False" and c.get("reason") == "SyncFailed"
        ),
        None,
    )
    if failed is not None:
        why = f"because it failed sync: {failed.get('message', '')}"
        return f"The disruption budget {name} does not allow evicting pods currently {why}"
    return f"The disruption budget {name} needs {desired} healthy pods and has {healthy} currently"


def _refused(why: str, retry_s: int = 0) -> StatusError:
    details: Object = {"causes": [{"reason": "DisruptionBudget", "message": why}]}
    return StatusError(429, "TooManyRequests", NO, details | ({"retryAfterSeconds": retry_s} if retry_s else {}))
