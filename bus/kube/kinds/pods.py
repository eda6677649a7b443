"""Pods: bound once, almost immutable, deleted with grace while a node still runs them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from bus.kube import errors, pod_references
from bus.kube.errors import Cause
from bus.kube.kinds import pod_created, pod_defaults, pod_rules
from bus.kube.kinds.base import Context, Strategy, at
from bus.kube.selectors import FieldGetter
from bus.kube.storage import Object

IMMUTABLE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


GATED = {
    "type": "PodScheduled",
    "status": "False",
    "lastProbeTime": None,
    "lastTransitionTime": None,
    "reason": "SchedulingGated",
    "message": "Scheduling is blocked due to non-empty scheduling gates",
}


class Pods(Strategy):
    generation = True
    returns_deleted = True
    fields = (
        *("spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork"),
        *("status.phase", "status.podIP", "status.nominatedNodeName"),
    )
    special: ClassVar[Mapping[str, FieldGetter]] = {
        "spec.hostNetwork": lambda o: "true" if at(o, "spec", "hostNetwork") else "false"
    }

    def defaults(self, obj: Object, ctx: Context) -> None:
        spec = obj.setdefault("spec", {})
        pod_defaults.pod(spec)

    def prepare_create(self, obj: Object, ctx: Context) -> None:
        spec = obj["spec"]
        account = (
            spec.get("serviceAccountName")
            or spec.get("serviceAccount")
            or ("" if pod_references.mirrors(obj) else "default")
        )
        if account:
            spec["serviceAccountName"] = spec["serviceAccount"] = account
        obj["status"] = {"phase": "Pending", "qosClass": pod_defaults.qos_class(obj["spec"])}
        if spec.get("schedulingGates"):
            obj["status"]["conditions"] = [{**GATED, "lastTransitionTime": ctx.now}]
        pod_created.merge_label_keys(obj)
        pod_created.profiles(obj)

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        return pod_rules.pod(obj, created=True)

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        out = pod_rules.pod(obj, created=False)
        if _but_mutable(obj["spec"], old["spec"]) != old["spec"]:
            out.append(errors.not_permitted("spec", IMMUTABLE))
        had = old["spec"].get("tolerations") or []
        now = obj["spec"].get("tolerations") or []
        if any(_lasting(t) not in map(_lasting, now) for t in had):
            out.append(
                errors.not_permitted(
                    "spec.tolerations", "existing toleration can not be modified except its tolerationSeconds"
                )
            )
        return out

    def grace(self, obj: Object, asked_s: int | None) -> int:
        """A pod that no node runs needs nobody's word (pkg/registry/core/pod, CheckGracefulDelete)."""
        spec = obj.get("spec", {})
        if not spec.get("nodeName") or at(obj, "status", "phase") in ("Succeeded", "Failed"):
            return 0
        grace: int = spec.get("terminationGracePeriodSeconds", 30) if asked_s is None else asked_s
        return max(grace, 1) if grace < 0 else grace


def _lasting(toleration: Object) -> Object:
    """What of a toleration may not change (pkg/apis/core/validation, validateOnlyAddedTolerations)."""
    return {k: v for k, v in toleration.items() if k != "tolerationSeconds"}


def ephemeral(new: Object, old: Object) -> list[Object]:
    """What a write of ``ephemeralcontainers`` makes of the pod's: more, never other or fewer.  Raises StatusError 422."""
    spec = new["spec"]
    pod_defaults.pod(spec)
    wanted: list[Object] = spec.get("ephemeralContainers") or []
    by_name = {c.get("name"): c for c in wanted}
    causes = pod_rules.ephemeral_containers({**old["spec"], "ephemeralContainers": wanted}, "spec.ephemeralContainers")
    for had in old["spec"].get("ephemeralContainers") or []:
        if had["name"] not in by_name:
            why = f'existing ephemeral containers "{had["name"]}" may not be removed\n'
            causes.append(errors.not_permitted("spec.ephemeralContainers", why))
        elif by_name[had["name"]] != had:
            why = f'existing ephemeral containers "{had["name"]}" may not be changed\n'
            causes.append(errors.not_permitted("spec.ephemeralContainers", why))
    if causes:
        raise errors.invalid("", "Pod", old["metadata"]["name"], causes)
    return wanted


RESIZED = ("cpu", "memory")


def resized(new: Object, old: Object) -> Object:
    """The pod after a write of ``resize``: the CPU and memory of its containers, nothing else.  Raises StatusError 422."""
    spec = new["spec"]
    pod_defaults.pod(spec)
    out = {**old, "spec": dict(old["spec"])}
    causes: list[Cause] = []
    for field in ("containers", "initContainers"):
        asked = {c.get("name"): c for c in spec.get(field) or []}
        if asked.keys() != {c["name"] for c in old["spec"].get(field) or []}:
            causes.append(errors.not_permitted("spec", RESIZE_ONLY))
            continue
        if field in old["spec"]:
            out["spec"][field] = [_with_resources(c, asked[c["name"]]) for c in old["spec"][field]]
    if not causes:
        causes = pod_rules.pod_spec(out["spec"], "spec")
    if not causes and {**spec, "containers": 0, "initContainers": 0} != {
        **old["spec"],
        "containers": 0,
        "initContainers": 0,
    }:
        causes.append(errors.not_permitted("spec", RESIZE_ONLY))
    if not causes and pod_defaults.qos_class(out["spec"]) != pod_defaults.qos_class(old["spec"]):
        was = pod_defaults.qos_class(old["spec"])
        causes.append(errors.bad_value("spec", was, "Pod QOS Class may not change as a result of resizing"))
    if causes:
        raise errors.invalid("", "Pod", old["metadata"]["name"], causes)
    return out


RESIZE_ONLY = "only cpu and memory resources are mutable"


def _with_resources(container: Object, asked: Object) -> Object:
    """``container`` with the amounts that were asked for."""
    resources: Object = dict(container.get("resources") or {})
    for field in ("limits", "requests"):
        amounts = {k: v for k, v in ((asked.get("resources") or {}).get(field) or {}).items() if k in RESIZED}
        kept = {k: v for k, v in (resources.get(field) or {}).items() if k not in RESIZED}
        if kept or amounts:
            resources[field] = {**kept, **amounts}
        else:
            resources.pop(field, None)
    return {**container, "resources": resources}


def _but_mutable(new: Object, old: Object) -> Object:
    """``new`` with what may change put back as it was in ``old``."""
    out = dict(new)
    for field in ("activeDeadlineSeconds", "tolerations"):
        if field in old:
            out[field] = old[field]
        else:
            out.pop(field, None)
    if old.get("terminationGracePeriodSeconds", 0) < 0 and new.get("terminationGracePeriodSeconds") == 1:
        out["terminationGracePeriodSeconds"] = old["terminationGracePeriodSeconds"]
    for field in ("containers", "initContainers"):
        mine, theirs = new.get(field) or [], old.get(field) or []
        if len(mine) == len(theirs) and mine:
            out[field] = [{**m, "image": t.get("image")} for m, t in zip(mine, theirs, strict=True)]
    return out
