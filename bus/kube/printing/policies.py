"""Rows of resource quotas, limit ranges and priority classes (kubernetes pkg/printers/internalversion)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bus.kube.kinds.base import at
from bus.kube.printing.cells import AGE, NAME, Cell, Look
from bus.kube.storage import Object


def _quota(limits: bool) -> Any:
    def value(quota: Object, _: Look) -> str:
        hard, used = at(quota, "status", "hard") or {}, at(quota, "status", "used") or {}
        names = [n for n in sorted(hard) if n.startswith("limits.") is limits]
        return ", ".join(f"{n}: {used.get(n, '0')}/{hard[n]}" for n in names)

    return value


COLUMNS: dict[tuple[str, str], Sequence[Cell]] = {
    ("", "resourcequotas"): (NAME, Cell("Request", _quota(False)), Cell("Limit", _quota(True)), AGE),
    ("", "limitranges"): (NAME, Cell("Created At", lambda o, _: o["metadata"].get("creationTimestamp"), "date")),
    ("scheduling.k8s.io", "priorityclasses"): (
        NAME,
        Cell("Value", lambda o, _: o.get("value", 0), "integer"),
        Cell("Global-Default", lambda o, _: bool(o.get("globalDefault")), "boolean"),
        AGE,
        Cell("PreemptionPolicy", lambda o, _: o.get("preemptionPolicy", "")),
    ),
}
