"""Pod templates and replication controllers: the first generation of kinds with a template (pkg/apis/core)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from bus.kube import errors
from bus.kube.errors import Cause
from bus.kube.kinds import pod_defaults, pod_rules, workloads
from bus.kube.kinds.base import Context, Strategy, at
from bus.kube.selectors import FieldGetter, field_of
from bus.kube.storage import Object


class PodTemplates(Strategy):
    returns_deleted = True
    generation = True

    def defaults(self, obj: Object, ctx: Context) -> None:
        template = obj.setdefault("template", {})
        template.setdefault("metadata", {})
        pod_defaults.pod_spec(template.setdefault("spec", {}))

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        return pod_rules.template(obj["template"], "template")

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        return self.validate(obj, ctx)

    def same_spec(self, obj: Object, old: Object, ctx: Context) -> bool:
        return bool(obj.get("template") == old.get("template"))


class ReplicationControllers(Strategy):
    generation = True
    fields = ("status.replicas",)
    special: ClassVar[Mapping[str, FieldGetter]] = {"status.replicas": lambda o: field_of(o, "status.replicas") or "0"}

    def defaults(self, obj: Object, ctx: Context) -> None:
        spec = obj.setdefault("spec", {})
        spec.setdefault("replicas", 1)
        if spec.get("template") is None:
            return
        workloads.template_defaults(obj)
        labels = at(spec, "template", "metadata", "labels") or {}
        if labels:
            if not spec.get("selector"):
                spec["selector"] = dict(labels)
            if not obj["metadata"].get("labels"):
                obj["metadata"]["labels"] = dict(labels)

    def prepare_create(self, obj: Object, ctx: Context) -> None:
        obj["status"] = {"replicas": 0}

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        spec, path = obj["spec"], "spec.template"
        selector, template = spec.get("selector") or {}, spec.get("template")
        out = workloads.not_negative(spec, ("minReadySeconds",))
        if not selector:
            out.append(errors.required("spec.selector"))
        out += workloads.not_negative(spec, ("replicas",))
        if template is None:
            return [*out, errors.required(path)]
        labels = at(template, "metadata", "labels") or {}
        if selector and any(labels.get(k) != v for k, v in selector.items()):
            out += workloads.unmatched(spec, path)
        out += pod_rules.template(template, path)
        return out + workloads.lasting(template["spec"], f"{path}.spec", "ReplicationController")

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        return self.validate(obj, ctx)

    def prepare_status(self, obj: Object, old: Object, ctx: Context) -> None:
        workloads.status_update(obj, old, ("lastTransitionTime",))

    def validate_status(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        status = obj.get("status") or {}
        out = workloads.counts(status, workloads.COUNTS)
        return out + workloads.replicas(status, ("fullyLabeledReplicas", "readyReplicas", "availableReplicas"))
