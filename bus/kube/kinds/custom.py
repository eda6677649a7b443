"""Objects of custom resources: everything they have comes from their definition."""

from __future__ import annotations

from typing import Any

from bus.kube import cel_rules, errors, invariants, structural, validity
from bus.kube.errors import Cause
from bus.kube.kinds.base import Context, Strategy, keep
from bus.kube.storage import Object

_BLOCKING = frozenset(
    {"FieldValueNotSupported", "FieldValueRequired", "FieldValueTooLong", "FieldValueTooMany", "FieldValueTypeInvalid"}
)
_UNASKED = (
    "some validation rules were not checked because the object was invalid; correct the existing errors to complete "
    "validation"
)
_INT32_MAX = (1 << 31) - 1


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

    def prepare_status(self, obj: Object, old: Object, ctx: Context) -> None:
        structural.default(obj, ctx.version.schema)
        super().prepare_status(obj, old, ctx)

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        schema = ctx.version.schema
        causes = validity.validate(obj, schema, "") + _scale(obj, ctx, "specReplicasPath", "statusReplicasPath")
        causes += invariants.embedded(obj, schema) + invariants.doubles(obj, schema)
        return causes + _rules(causes, obj, schema)

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        schema = ctx.version.schema
        causes = validity.validate(obj, schema, "", old) + _scale(obj, ctx, "specReplicasPath", "statusReplicasPath")
        causes += invariants.embedded(obj, schema)
        if not invariants.doubles(old, schema):
            causes += invariants.doubles(obj, schema)
        return causes + _rules(causes, obj, schema, old)

    def validate_status(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        status = (ctx.version.schema.get("properties") or {}).get("status")
        causes: list[Cause] = []
        if status and "status" in obj:
            causes += validity.validate(obj["status"], status, "status", old.get("status", validity.ABSENT))
        causes += _scale(obj, ctx, "statusReplicasPath")
        schema = ctx.version.schema
        causes += invariants.embedded(obj, schema)
        if not invariants.doubles(old, schema):
            causes += invariants.doubles(obj, schema)
        return causes + _rules(causes, obj, schema, old)

    def same_spec(self, obj: Object, old: Object, ctx: Context) -> bool:
        ignored = {"metadata", "apiVersion", "kind"}
        if "status" in ctx.version.subresources:
            ignored.add("status")
        kept = [{k: v for k, v in one.items() if k not in ignored} for one in (obj, old)]
        return validity.same(*kept)


def _rules(causes: list[Cause], obj: Object, schema: Object, before: Any = validity.ABSENT) -> list[Cause]:
    """The schema's CEL rules, which are asked of an object that is otherwise sound."""
    if not cel_rules.has_rules(schema):
        return []
    if any(c.reason in _BLOCKING for c in causes):
        return [Cause(validity.NOWHERE, "FieldValueInvalid", f"Invalid value: null: {_UNASKED}")]
    return cel_rules.check(obj, schema, old=before)


def _scale(obj: Object, ctx: Context, *which: str) -> list[Cause]:
    out = []
    for field in which if ctx.version.scale else ():
        path = str((ctx.version.scale or {}).get(field) or "")
        value: Any = obj
        for step in path.removeprefix(".").split("."):
            value = value.get(step) if isinstance(value, dict) else None
        if isinstance(value, int) and value < 0:
            out.append(errors.bad_value(path, value, "should be a non-negative integer"))
        elif isinstance(value, int) and value > _INT32_MAX:
            out.append(errors.bad_value(path, value, f"should be less than or equal to {_INT32_MAX}"))
    return out
