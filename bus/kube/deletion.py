"""What a delete means for one object: gone, or marked and waiting for whoever must confirm.

An object goes at once unless somebody has a say: a finalizer, a namespace's own finalizers, or the node that runs a pod
(its grace).  The node confirms by deleting with grace 0.  Source: apiserver's rest.BeforeDelete and the registry store.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bus.kube import errors, times
from bus.kube.kinds.base import Strategy, at
from bus.kube.objectmeta import FOREGROUND, ORPHAN
from bus.kube.storage import Object

IMMORTAL = ("default", "kube-public", "kube-system")  # namespaces (admission NamespaceLifecycle)
GRACE_S_MAX = 365 * 24 * 3600
POLICIES = ("Foreground", "Background", "Orphan")


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    grace_s: int | None = None
    propagation: str | None = None
    uid: str | None = None
    revision: str | None = None
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Deleted:
    """The object after the request; ``gone`` says that it is no longer stored."""

    object: Object = field(default_factory=dict)
    gone: bool = True


def options(raw: Any) -> DeleteOptions:
    """From a DeleteOptions body; raises StatusError 400, 422."""
    if raw is None:
        return DeleteOptions()
    if not isinstance(raw, dict):
        raise errors.bad_request("the body of a delete is a DeleteOptions object")
    if raw.get("kind", "DeleteOptions") != "DeleteOptions":
        scheme = "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:27"
        kind, version = errors.show(raw["kind"]), errors.show(raw.get("apiVersion", ""))
        raise errors.bad_request(f'no kind {kind} is registered for version {version} in scheme "{scheme}"')
    grace, policy, orphan = raw.get("gracePeriodSeconds"), raw.get("propagationPolicy"), raw.get("orphanDependents")
    pre, dry = raw.get("preconditions") or {}, raw.get("dryRun") or []
    _check_type(grace, int, "gracePeriodSeconds", "int64")
    _check_type(policy, str, "propagationPolicy", "v1.DeletionPropagation")
    _check_type(orphan, bool, "orphanDependents", "bool")
    _check_type(pre, dict, "preconditions", "v1.Preconditions")
    _check_type(dry, list, "dryRun", "[]string")
    for name in ("uid", "resourceVersion"):
        _check_type(pre.get(name), str, f"preconditions.{name}", "string")
    causes = []
    if orphan is not None and policy is not None:
        causes.append(
            errors.bad_value("propagationPolicy", policy, "orphanDependents and deletionPropagation cannot be both set")
        )
    if policy is not None and policy not in POLICIES:
        causes.append(errors.not_supported("propagationPolicy", policy, (*POLICIES, "nil")))
    if any(d != "All" for d in dry):
        causes.append(errors.not_supported("dryRun", dry, ("All",)))
    if causes:
        raise errors.invalid("meta.k8s.io", "DeleteOptions", "", causes)
    if policy is None and orphan is not None:
        policy = "Orphan" if orphan else "Background"
    if grace is not None:
        grace = min(1 if grace < 0 else grace, GRACE_S_MAX)
    return DeleteOptions(grace, policy, pre.get("uid"), pre.get("resourceVersion"), bool(dry))


def _check_type(value: Any, wanted: type, field: str, go: str) -> None:
    if value is None or (isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool))):
        return
    names = {bool: "bool", int: "number", float: "number", str: "string", dict: "object", list: "array"}
    got = names.get(type(value), "null")
    raise errors.bad_request(f"json: cannot unmarshal {got} into Go struct field DeleteOptions.{field} of type {go}")


def mark(obj: Object, strategy: Strategy, opts: DeleteOptions, now_us: int) -> tuple[Object, bool]:
    """``obj`` (a copy) after a delete request, and whether it is to be removed now."""
    meta = obj["metadata"]
    _propagate(meta, opts)
    grace = strategy.grace(obj, opts.grace_s)
    if meta.get("deletionTimestamp"):
        had = meta.get("deletionGracePeriodSeconds", 0)
        if opts.grace_s is None or opts.grace_s > had:
            grace = had
        if grace < had:
            meta["deletionGracePeriodSeconds"] = grace
            end = times.micros(meta["deletionTimestamp"]) - (had - grace) * 1_000_000
            meta["deletionTimestamp"] = times.of_micros(end)
    held = bool(meta.get("finalizers")) or bool(at(obj, "spec", "finalizers") if obj["kind"] == "Namespace" else None)
    if not held and grace == 0:
        if strategy.returns_deleted and obj["kind"] == "Pod" and not meta.get("deletionTimestamp"):
            _going(meta, now_us, 0)
        return obj, True
    if not meta.get("deletionTimestamp"):
        _going(meta, now_us, grace)
    if obj["kind"] == "Namespace":
        obj["status"] = {**obj.get("status", {}), "phase": "Terminating"}
    return obj, False


def _going(meta: Object, now_us: int, grace_s: int) -> None:
    meta["deletionTimestamp"] = times.of_micros(now_us + grace_s * 1_000_000)
    meta["deletionGracePeriodSeconds"] = grace_s
    if meta.get("generation"):
        meta["generation"] += 1


def _propagate(meta: Object, opts: DeleteOptions) -> None:
    if opts.propagation is None:
        return
    finalizers = [f for f in meta.get("finalizers", []) if f not in (FOREGROUND, ORPHAN)]
    if opts.propagation == "Foreground":
        finalizers.append(FOREGROUND)
    if opts.propagation == "Orphan":
        finalizers.append(ORPHAN)
    if finalizers:
        meta["finalizers"] = finalizers
    else:
        meta.pop("finalizers", None)


def finished(obj: Object) -> bool:
    """Whether a marked object waits for nobody any more."""
    meta = obj["metadata"]
    if not meta.get("deletionTimestamp") or meta.get("finalizers") or meta.get("deletionGracePeriodSeconds"):
        return False
    return not (obj["kind"] == "Namespace" and at(obj, "spec", "finalizers"))
