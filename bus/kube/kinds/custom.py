"""Objects of custom resources: everything they have comes from their definition."""

from __future__ import annotations

from bus.kube import structural
from bus.kube.errors import Cause
from bus.kube.kinds.base import Context, Strategy, keep
from bus.kube.storage import Object


class Custom(Strategy):
    generation = True
    unconditional_update = True

    def defaults(self, obj: Object, ctx: Context) -> None:
        structural.default(obj, ctx.version.schema)

    def prepare_create(self, obj: Object, ctx: Context) -> None:
        if "status" in ctx.version.subresources:
            obj.pop("status", None)

    def prepare_update(self, obj: Object, old: Object, ctx: Context) -> None:
        if "status" in ctx.version.subresources:
            keep(obj, old, "status")

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        body = {k: v for k, v in obj.items() if k != "metadata"}
        schema = ctx.version.schema
        fields = {k: v for k, v in schema.get("properties", {}).items() if k != "metadata"}
        required = [r for r in schema.get("required", ()) if r != "metadata"]
        return structural.validate(body, {**schema, "properties": fields, "required": required}, "")

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        return self.validate(obj, ctx)

    def validate_status(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        status = ctx.version.schema.get("properties", {}).get("status")
        return structural.validate(obj["status"], status, "status") if status and "status" in obj else []

    def same_spec(self, obj: Object, old: Object, ctx: Context) -> bool:
        ignored = {"metadata", "apiVersion", "kind"}
        if "status" in ctx.version.subresources:
            ignored.add("status")
        return {k: v for k, v in obj.items() if k not in ignored} == {k: v for k, v in old.items() if k not in ignored}
