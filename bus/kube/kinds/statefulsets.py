"""Stateful sets (pkg/apis/apps): of the specification only what can be rolled out may change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from bus.kube import errors
from bus.kube.errors import Cause
from bus.kube.kinds import pod_rules, workloads
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


class StatefulSets(workloads.ReplicaSets):
    fields: tuple[str, ...] = ()
    special: ClassVar[Mapping[str, FieldGetter]] = {}

    def defaults(self, obj: Object, ctx: Context) -> None:
        super().defaults(obj, ctx)
        spec = obj["spec"]
        spec.setdefault("podManagementPolicy", "OrderedReady")
        strategy = spec.setdefault("updateStrategy", {})
        strategy.setdefault("type", "RollingUpdate")
        if strategy["type"] == "RollingUpdate":
            strategy.setdefault("rollingUpdate", {}).setdefault("partition", 0)
        spec.setdefault("revisionHistoryLimit", 10)
        retention = spec.setdefault("persistentVolumeClaimRetentionPolicy", {})
        retention.setdefault("whenDeleted", "Retain")
        retention.setdefault("whenScaled", "Retain")
        for claim in spec.get("volumeClaimTemplates") or []:
            claim |= {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
            claim.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")
            claim["status"] = {"phase": "Pending"}

    def prepare_create(self, obj: Object, ctx: Context) -> None:
        obj["status"] = {"replicas": 0, "availableReplicas": 0}

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        spec, out = obj["spec"], []
        managements = ("OrderedReady", "Parallel")
        if spec["podManagementPolicy"] not in managements:
            why = f"must be '{managements[0]}' or '{managements[1]}'"
            out.append(errors.bad_value("spec.podManagementPolicy", spec["podManagementPolicy"], why))
        strategy = spec["updateStrategy"]
        if strategy["type"] not in ("RollingUpdate", "OnDelete"):
            why = "must be 'RollingUpdate' or 'OnDelete'"
            out.append(errors.bad_value("spec.updateStrategy", strategy, why))
        elif (at(strategy, "rollingUpdate", "partition") or 0) < 0:
            value, why = strategy["rollingUpdate"]["partition"], "must be greater than or equal to 0"
            out.append(errors.bad_value("spec.updateStrategy.rollingUpdate.partition", value, why))
        out += workloads.not_negative(spec, ("replicas", "minReadySeconds", "revisionHistoryLimit"))
        if (at(spec, "ordinals", "start") or 0) < 0:
            why = "must be greater than or equal to 0"
            out.append(errors.bad_value("spec.ordinals.start", spec["ordinals"]["start"], why))
        labels = at(spec, "template", "metadata", "labels") or {}
        out += workloads.selector_rules(spec.get("selector"), labels, "statefulset")
        pod = spec["template"]["spec"]
        if pod["restartPolicy"] != "Always":
            out.append(errors.not_supported("spec.template.spec.restartPolicy", pod["restartPolicy"], ("Always",)))
        return out + pod_rules.pod_spec(_with_claims(spec), "spec.template.spec")

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        out = self.validate(obj, ctx)
        before, now = ({k: v for k, v in o["spec"].items() if k not in MUTABLE} for o in (old, obj))
        if now != before:
            out.append(errors.not_permitted("spec", FIXED))
        return out


def _with_claims(spec: Object) -> Object:
    """The pods' specification with the volumes that claims will be: containers may mount them."""
    pod: Object = spec["template"]["spec"]
    names = [at(c, "metadata", "name") or "" for c in spec.get("volumeClaimTemplates") or []]
    own = [v for v in pod.get("volumes") or [] if v.get("name") not in names]
    return {**pod, "volumes": own + [{"name": n, "persistentVolumeClaim": {"claimName": n}} for n in names]}
