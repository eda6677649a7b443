"""Rows of pod disruption budgets (kubernetes pkg/printers/internalversion, printPodDisruptionBudget)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bus.kube.kinds.base import at
from bus.kube.printing.cells import AGE, NAME, Cell


def _amount(field: str) -> Any:
    def value(budget: Any, _: Any) -> str:
        found = at(budget, "spec", field)
        return "N/A" if found is None else str(found)

    return value


COLUMNS: dict[tuple[str, str], Sequence[Cell]] = {
    ("policy", "poddisruptionbudgets"): (
        NAME,
        Cell("Min Available", _amount("minAvailable")),
        Cell("Max Unavailable", _amount("maxUnavailable")),
        Cell("Allowed Disruptions", lambda o, _: at(o, "status", "disruptionsAllowed") or 0, "integer"),
        AGE,
    ),
}
