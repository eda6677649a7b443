"""What an update may change of a pod (pkg/apis/core/validation, ValidatePodUpdate): images, a deadline that comes nearer,
more tolerations, fewer scheduling gates, and, while there are gates, where it may go."""

from __future__ import annotations

from typing import Any

from bus.kube import errors, pod_references
from bus.kube.errors import Cause
from bus.kube.kinds import checks, pod_containers, pod_placing, pod_rules
from bus.kube.storage import Object

IMMUTABLE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)
_APP_ARMOR = "container.apparmor.security.beta.kubernetes.io/"
_LISTS = ("containers", "initContainers")


def rules(obj: Object, old: Object) -> list[Cause]:
    new, had = obj["spec"], old["spec"]
    out = pod_rules.pod(obj, created=False) + _annotations(obj, old)
    for field in _LISTS:
        containers, path = new.get(field) or [], f"spec.{field}"
        if len(containers) != len(had.get(field) or []):
            return [*out, errors.not_permitted(path, "pod updates may not add or remove containers")]
        for i, container in enumerate(containers):
            if not container.get("image"):
                out.append(errors.required(f"{path}[{i}].image"))
            out += pod_containers.untrimmed(container, f"{path}[{i}]")
    deadline, stop = _deadline(new, had)
    out += deadline
    if stop:
        return out
    out += _tolerations(new.get("tolerations") or [], had.get("tolerations") or [])
    out += _gates(new.get("schedulingGates") or [], had.get("schedulingGates") or [])
    if new == had:
        return out
    rest = _put_back(new, had)
    if had.get("schedulingGates"):
        out += _places(rest, had)
    return out if rest == had else [*out, errors.not_permitted("spec", IMMUTABLE)]


def _annotations(obj: Object, old: Object) -> list[Cause]:
    now, before = (o["metadata"].get("annotations") or {} for o in (obj, old))
    out: list[Cause] = []
    for key in [k for k in before if now.get(k) != before[k]]:
        at = f"metadata.annotations[{key}]"
        if key.startswith(_APP_ARMOR):
            out.append(errors.not_permitted(at, "may not remove or update AppArmor annotations"))
        if key == pod_references.MIRROR:
            out.append(errors.not_permitted(at, "may not remove or update mirror pod annotation"))
    for key in [k for k in now if k not in before]:
        at = f"metadata.annotations[{key}]"
        if key.startswith(_APP_ARMOR):
            out.append(errors.not_permitted(at, "may not add AppArmor annotations"))
        if key == pod_references.MIRROR:
            out.append(errors.not_permitted(at, "may not add mirror pod annotation"))
    return out + pod_rules.pod_annotations(now, obj["spec"], "metadata.annotations")


def _deadline(new: Object, had: Object) -> tuple[list[Cause], bool]:
    """What is wrong, and whether nothing else is looked at then."""
    path, now, before = "spec.activeDeadlineSeconds", new.get("activeDeadlineSeconds"), had.get("activeDeadlineSeconds")
    if now is None:
        why = "must not update from a positive integer to nil value"
        return ([] if before is None else [errors.bad_value(path, None, why)]), False
    bad = checks.between(path, now, 0, pod_rules.SECONDS_MAX)
    if not bad and before is not None and before < now:
        bad = [errors.bad_value(path, now, "must be less than or equal to previous value")]
    return bad, bool(bad)


def _lasting(toleration: Object) -> Object:
    """What of a toleration may not change."""
    return {k: v for k, v in toleration.items() if k != "tolerationSeconds"}


def _tolerations(now: list[Object], before: list[Object]) -> list[Cause]:
    lasting = [_lasting(t) for t in now]
    if any(_lasting(t) not in lasting for t in before):
        why = "existing toleration can not be modified except its tolerationSeconds"
        return [errors.not_permitted("spec.tolerations", why)]
    return pod_placing.tolerations(now, "spec.tolerations")


def _gates(now: list[Object], before: list[Object]) -> list[Cause]:
    known, out = {g.get("name") for g in before}, []
    for i, gate in enumerate(now):
        if gate.get("name") not in known:
            why = f"only deletion is allowed, but found new scheduling gate '{gate.get('name') or ''}'"
            out.append(errors.not_permitted(f"spec.schedulingGates[{i}].name", why))
    return out


def _as(obj: Object, other: Object, *fields: str) -> Object:
    """``obj`` with those fields as they are in ``other``."""
    out = {k: v for k, v in obj.items() if k not in fields}
    return {**out, **{f: other[f] for f in fields if f in other}}


def _put_back(new: Object, had: Object) -> Object:
    """``new`` with what may change as it was."""
    out = _as(new, had, "activeDeadlineSeconds", "schedulingGates", "tolerations")
    for field in _LISTS:
        if new.get(field):
            out[field] = [_as(c, o, "image") for c, o in zip(new[field], had[field], strict=True)]
    if had.get("terminationGracePeriodSeconds", 0) < 0 and new.get("terminationGracePeriodSeconds") == 1:
        out["terminationGracePeriodSeconds"] = had["terminationGracePeriodSeconds"]
    return out


def _places(rest: Object, had: Object) -> list[Cause]:
    """Where a gated pod may go only gets narrower; puts ``rest`` back to what it was."""
    out: list[Cause] = []
    now, before = rest.get("nodeSelector") or {}, had.get("nodeSelector") or {}
    if any(now.get(k) != v for k, v in before.items()):
        why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)"
        out.append(errors.bad_value("spec.nodeSelector", rest.get("nodeSelector"), why))
    rest.update(_as({}, had, "nodeSelector"))
    if not before:
        rest.pop("nodeSelector", None)
    new, old = rest.get("affinity") or {}, had.get("affinity") or {}
    if new.get("nodeAffinity") == old.get("nodeAffinity"):
        return out
    out += _narrower(new.get("nodeAffinity") or {}, old.get("nodeAffinity") or {})
    merged = _as(new, old, "nodeAffinity")
    if merged or "affinity" in had:
        rest["affinity"] = merged
    else:
        rest.pop("affinity", None)
    return out


def _narrower(new: Object, old: Object) -> list[Cause]:
    field = pod_placing.REQUIRED
    path = f"spec.affinity.nodeAffinity.{field}.nodeSelectorTerms"
    before: list[Any] = (old.get(field) or {}).get("nodeSelectorTerms") or []
    now: list[Any] = (new.get(field) or {}).get("nodeSelectorTerms") or []
    if before and len(now) != len(before):
        shown = [_shown(t) for t in now] or None
        why = "no additions/deletions to non-empty NodeSelectorTerms list are allowed"
        return [errors.bad_value(path, shown, why)]
    why, pairs = "only additions are allowed (no mutations or deletions)", enumerate(zip(now, before, strict=False))
    return [errors.bad_value(f"{path}[{i}]", _shown(n), why) for i, (n, o) in pairs if _other(n, o)]


def _other(now: Object, before: Object) -> bool:
    lists = ("matchExpressions", "matchFields")
    if not any(before.get(f) for f in lists):
        return any(now.get(f) for f in lists)
    return any((now.get(f) or [])[: len(before.get(f) or [])] != (before.get(f) or []) for f in lists)


def _shown(term: Object) -> errors.Shown:
    """With the real server's own names."""

    def items(field: str) -> list[Object] | None:
        given = term.get(field)
        return (
            [{"Key": e.get("key"), "Operator": e.get("operator"), "Values": e.get("values")} for e in given]
            if given
            else None
        )

    return errors.Shown(MatchExpressions=items("matchExpressions"), MatchFields=items("matchFields"))
