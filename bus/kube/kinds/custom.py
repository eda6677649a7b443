"""Objects of custom resources: everything they have comes from their definition."""

from __future__ import annotations

from bus.kube import cel_rules, ratchet, structural
from bus.kube.errors import Cause
from bus.kube.kinds.base import Context, Strategy, keep
from bus.kube.storage import Object


class Custom(Strategy):
    generation = True
    unconditional_update = False

    def defaults(self, obj: Object, ctx: Context) -> None:
        structural.default(obj, ctx.version.schema)

    def prepare_create(self, obj: Object, ctx: Context) -> None:
        if "status" in ctx.version.subresources:
            obj.pop("status", None)

    def prepare_update(self, obj: Object, old: Object, ctx: Context) -> None:
        if "status" in ctx.version.subresources:
            keep(obj, old, "status")

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        body, schema = _body(obj), _schema(ctx)
        return structural.validate(body, schema, "") or cel_rules.check(body, schema)

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        body, before, schema = _body(obj), _body(old), _schema(ctx)
        causes = ratchet.changed(structural.validate(body, schema, ""), body, before, schema)
        if causes:
            return causes
        return ratchet.changed(cel_rules.check(body, schema, old=before), body, before, schema)

    def validate_status(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        status = ctx.version.schema.get("properties", {}).get("status")
        if not status or "status" not in obj:
            return []
        before = old.get("status", cel_rules.ABSENT)
        causes = structural.validate(obj["status"], status, "status")
        causes = ratchet.changed(causes, obj, old, {"properties": {"status": status}})
        return causes or cel_rules.check(obj["status"], status, "status", before)

    def same_spec(self, obj: Object, old: Object, ctx: Context) -> bool:
        ignored = {"metadata", "apiVersion", "kind"}
        if "status" in ctx.version.subresources:
            ignored.add("status")
        return {k: v for k, v in obj.items() if k not in ignored} == {k: v for k, v in old.items() if k not in ignored}


def _body(obj: Object) -> Object:
    return {k: v for k, v in obj.items() if k != "metadata"}


def _schema(ctx: Context) -> Object:
    """Without what is said of metadata, which has rules of its own."""
    schema = ctx.version.schema
    fields = {k: v for k, v in schema.get("properties", {}).items() if k != "metadata"}
    return {**schema, "properties": fields, "required": [r for r in schema.get("required", ()) if r != "metadata"]}
