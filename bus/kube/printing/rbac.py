"""Rows of roles and bindings (kubernetes pkg/printers/internalversion)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bus.kube.printing import text
from bus.kube.printing.cells import AGE, NAME, Cell, Look
from bus.kube.storage import Object

GROUP = "rbac.authorization.k8s.io"


def _subjects(kind: str) -> Any:
    def value(binding: Object, _: Look) -> str:
        found = [s for s in binding.get("subjects") or [] if s.get("kind") == kind]
        if kind == "ServiceAccount":
            return ", ".join(f"{s.get('namespace', '')}/{s.get('name', '')}" for s in found)
        return ", ".join(str(s.get("name", "")) for s in found)

    return value


def _ref(binding: Object, _: Look) -> str:
    ref = binding.get("roleRef") or {}
    return f"{ref.get('kind', '')}/{ref.get('name', '')}"


ROLES = (NAME, Cell("Created At", lambda o, _: o["metadata"].get("creationTimestamp") or text.UNKNOWN, "date"))
BINDINGS = (
    NAME,
    Cell("Role", _ref),
    AGE,
    Cell("Users", _subjects("User"), priority=1),
    Cell("Groups", _subjects("Group"), priority=1),
    Cell("ServiceAccounts", _subjects("ServiceAccount"), priority=1),
)
COLUMNS: dict[tuple[str, str], Sequence[Cell]] = {
    (GROUP, "roles"): ROLES,
    (GROUP, "clusterroles"): ROLES,
    (GROUP, "rolebindings"): BINDINGS,
    (GROUP, "clusterrolebindings"): BINDINGS,
}
