"""Pods: bound once, almost immutable, deleted with grace while a node still runs them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from bus.kube import errors, names, pod_references
from bus.kube.errors import Cause
from bus.kube.kinds import checks, pod_created, pod_defaults, pod_rules, pod_updates, workloads
from bus.kube.kinds.base import Context, Strategy, at
from bus.kube.selectors import FieldGetter
from bus.kube.storage import Object

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
        return pod_updates.rules(obj, old)

    def prepare_status(self, obj: Object, old: Object, ctx: Context) -> None:
        workloads.status_update(obj, old, (), "ownerReferences")
        status = obj.setdefault("status", {})
        address, listed = status.get("podIP"), status.get("podIPs") or []
        if address and (not listed or listed[0].get("ip") != address):
            status["podIPs"] = [{"ip": address}]
        elif listed and not address:
            status["podIP"] = listed[0].get("ip")
        if not status.get("qosClass") and at(old, "status", "qosClass"):
            status["qosClass"] = old["status"]["qosClass"]

    def validate_status(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        out: list[Cause] = []
        for i, condition in enumerate(at(obj, "status", "conditions") or []):
            out += checks.text(f"status.conditions[{i}].Type", condition.get("type") or "", names.label_key)
        return out

    def grace(self, obj: Object, asked_s: int | None) -> int:
        """A pod that no node runs needs nobody's word (pkg/registry/core/pod, CheckGracefulDelete)."""
        spec = obj.get("spec", {})
        if not spec.get("nodeName") or at(obj, "status", "phase") in ("Succeeded", "Failed"):
            return 0
        grace: int = spec.get("terminationGracePeriodSeconds", 30) if asked_s is None else asked_s
        return max(grace, 1) if grace < 0 else grace


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
        asked, had = spec.get(field) or [], old["spec"].get(field) or []
        if [c.get("name") for c in asked] != [c["name"] for c in had]:
            causes.append(errors.not_permitted("spec", RESIZE_ONLY))
        elif had:
            out["spec"][field] = [_with_resources(c, other) for c, other in zip(had, asked, strict=True)]
    if not causes:
        causes = pod_rules.pod_spec(out["spec"], "spec", pod=out)
    before, after = pod_defaults.qos_class(old["spec"]), pod_defaults.qos_class(out["spec"])
    if not causes and before != after:
        causes.append(errors.bad_value("spec", before, "Pod QOS Class may not change as a result of resizing"))
    if not causes and _others(out["spec"]) != _others(old["spec"]):
        causes.append(errors.not_permitted("spec", RESIZE_ONLY))
    if causes:
        raise errors.invalid("", "Pod", old["metadata"]["name"], causes)
    return out


RESIZE_ONLY = "only cpu and memory resources are mutable"


def _with_resources(container: Object, asked: Object) -> Object:
    """``container`` with what was asked for, and what of it needs a restart."""
    out = {k: v for k, v in container.items() if k not in ("resources", "resizePolicy")}
    return {**out, **{f: asked[f] for f in ("resources", "resizePolicy") if f in asked}}


def _others(spec: Object) -> list[Object]:
    """What the containers have beside CPU and memory."""
    out: list[Object] = []
    for container in [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]:
        resources = container.get("resources") or {}
        amounts = {
            f: {k: v for k, v in (resources.get(f) or {}).items() if k not in RESIZED} for f in ("limits", "requests")
        }
        out.append({**container, "resources": {**resources, **amounts}})
    return out
