"""Leases: who holds what, and until when."""

from __future__ import annotations

from bus.kube import errors
from bus.kube.errors import Cause
from bus.kube.kinds.base import Context, Strategy
from bus.kube.storage import Object


class Leases(Strategy):
    """Of coordination.k8s.io, with the rules that its users rely on (pkg/apis/coordination/validation)."""

    unconditional_update = False
    create_on_update = True

    def defaults(self, obj: Object, ctx: Context) -> None:
        spec = obj.setdefault("spec", {})
        for field in ("preferredHolder", "strategy"):
            spec.pop(field, None)  # of coordinated leader election, which is not offered

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        spec, out = obj.get("spec") or {}, []
        for field, least in (("leaseDurationSeconds", 1), ("leaseTransitions", 0)):
            value = spec.get(field)
            if value is not None and value < least:
                why = "must be greater than 0" if least else "must be greater than or equal to 0"
                out.append(errors.bad_value(f"spec.{field}", value, why))
        return out

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        return self.validate(obj, ctx)
