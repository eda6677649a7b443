"""Stateful sets (pkg/apis/apps): of the specification only what can be rolled out may change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from bus.kube import errors, names
from bus.kube.errors import Cause
from bus.kube.kinds import checks, claim_spec, pod_rules, workloads
from bus.kube.kinds.base import Context, at
from bus.kube.selectors import FieldGetter
from bus.kube.storage import Object

MUTABLE = (
    *("replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit"),
    *("persistentVolumeClaimRetentionPolicy", "minReadySeconds"),
)
FIXED = (
    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
    "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
)
_COUNTS = ("replicas", "readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas")


class StatefulSets(workloads.ReplicaSets):
    fields: tuple[str, ...] = ()
    special: ClassVar[Mapping[str, FieldGetter]] = {}

    def name_problem(self, name: str) -> str:
        return names.dns_label(name)

    def defaults(self, obj: Object, ctx: Context) -> None:
        super().defaults(obj, ctx)
        spec = obj["spec"]
        spec.setdefault("serviceName", "")
        spec.setdefault("podManagementPolicy", "OrderedReady")
        strategy = spec.setdefault("updateStrategy", {})
        strategy.setdefault("type", "RollingUpdate")
        if strategy["type"] == "RollingUpdate":
            strategy.setdefault("rollingUpdate", {}).setdefault("partition", 0)
        spec.setdefault("revisionHistoryLimit", 10)
        retention = spec.setdefault("persistentVolumeClaimRetentionPolicy", {})
        for field in ("whenDeleted", "whenScaled"):
            if not retention.get(field):
                retention[field] = "Retain"
        for claim in spec.get("volumeClaimTemplates") or []:
            claim |= {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
            claim.setdefault("metadata", {})
            claim_spec.defaults(claim.setdefault("spec", {}))
            claim["status"] = {"phase": "Pending"}

    def prepare_create(self, obj: Object, ctx: Context) -> None:
        obj["status"] = {"replicas": 0, "availableReplicas": 0}
        _drop(obj)

    def prepare_update(self, obj: Object, old: Object, ctx: Context) -> None:
        super().prepare_update(obj, old, ctx)
        _drop(obj)

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        return _rules(obj["spec"], new=True)

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        out = _rules(obj["spec"], new=False)
        before, now = ({k: v for k, v in o["spec"].items() if k not in MUTABLE} for o in (old, obj))
        if now != before:
            out.append(errors.not_permitted("spec", FIXED))
        return out

    def validate_status(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        status = obj.get("status") or {}
        out = workloads.counts(status, (*_COUNTS, "observedGeneration", "collisionCount"))
        out += workloads.replicas(status, _COUNTS[1:], "cannot be greater than status.readyReplicas")
        return out + workloads.collisions(status, old)


def _drop(obj: Object) -> None:
    """What is behind a gate that is off in the version that we follow (MaxUnavailableStatefulSet)."""
    rolling = obj["spec"]["updateStrategy"].get("rollingUpdate")
    if rolling is not None:
        rolling.pop("maxUnavailable", None)


def _rules(spec: Object, *, new: bool) -> list[Cause]:
    """``new``: not yet there, so that also what can't change must be good."""
    out: list[Cause] = []
    if spec["podManagementPolicy"] not in ("OrderedReady", "Parallel"):
        why = "must be 'OrderedReady' or 'Parallel'"
        out.append(errors.bad_value("spec.podManagementPolicy", spec["podManagementPolicy"], why))
    out += _strategy(spec["updateStrategy"], "spec.updateStrategy")
    for field in ("whenDeleted", "whenScaled"):
        path, value = f"spec.persistentVolumeClaimRetentionPolicy.{field}", spec["persistentVolumeClaimRetentionPolicy"]
        out += checks.listed(path, value.get(field), ("Retain", "Delete"))
    for i, claim in enumerate(spec.get("volumeClaimTemplates") or [] if new else []):
        out += claim_spec.rules(claim.get("spec") or {}, f"spec.volumeClaimTemplates[{i}].spec")
    out += workloads.not_negative(spec, ("replicas", "minReadySeconds"))
    out += checks.not_negative("spec.ordinals.start", at(spec, "ordinals", "start"))
    if new and spec.get("serviceName"):
        out += checks.text("spec.serviceName", spec["serviceName"], names.dns_label)
    out += workloads.selected(spec, "statefulset")
    selector, template, path = spec.get("selector"), spec["template"], "spec.template"
    labels = at(template, "metadata", "labels") or {}
    matched = workloads.match(selector, labels)
    if matched is None:
        out.append(errors.bad_value("spec.selector", workloads.shown_selector(selector), ""))
    else:
        out += [] if matched or workloads.empty_selector(selector) else workloads.unmatched(spec, path)
        given = _with_claims(spec)
        out += pod_rules.template(given, path) + checks.labels(f"{path}.labels", labels)
        annotations = at(template, "metadata", "annotations") or {}
        out += checks.annotation_keys(f"{path}.annotations", annotations)
        out += pod_rules.pod_annotations(annotations, given["spec"], f"{path}.annotations")
    return out + workloads.lasting(template["spec"], f"{path}.spec", "StatefulSet")


def _strategy(strategy: Object, path: str) -> list[Cause]:
    kind, rolling = strategy["type"], strategy.get("rollingUpdate")
    if kind == "OnDelete":
        if rolling is None:
            return []
        shown = errors.Shown(Partition=rolling.get("partition", 0), MaxUnavailable=None)
        why = "only allowed for updateStrategy 'RollingUpdate'"
        return [errors.bad_value(f"{path}.rollingUpdate", shown, why)]
    if kind != "RollingUpdate":
        shown = errors.Shown(Type=kind, RollingUpdate=None)
        return [errors.bad_value(path, shown, "must be 'RollingUpdate' or 'OnDelete'")]
    rolling, path = rolling or {}, f"{path}.rollingUpdate"
    return checks.not_negative(f"{path}.partition", rolling.get("partition"))


def _with_claims(spec: Object) -> Object:
    """The template with the volumes that claims will be, which containers may mount, without what each pod gets."""
    template: Object = spec["template"]
    pod = {k: v for k, v in template["spec"].items() if k not in ("hostname", "subdomain")}
    made = list(dict.fromkeys(at(c, "metadata", "name") or "" for c in spec.get("volumeClaimTemplates") or []))
    own = [v for v in pod.get("volumes") or [] if v.get("name") not in made]
    volumes = [*({"name": n, "persistentVolumeClaim": {"claimName": n}} for n in made), *own]
    return {**template, "spec": {**pod, "volumes": volumes}}
