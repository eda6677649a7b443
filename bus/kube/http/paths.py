"""Which resource a path means (Kubernetes API concepts, "Resource URIs")."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

PARTS_MAX = 16


@dataclass(frozen=True, slots=True)
class Address:
    """``namespace`` None is the whole cluster (or a resource without namespaces)."""

    group: str
    version: str
    resource: str
    namespace: str | None = None
    name: str = ""
    subresource: str = ""
    rest: tuple[str, ...] = ()
    watch: bool = False  # the old /watch/ prefix


def parse(path: str) -> Address | None:
    """None for a path that is not a resource's."""
    parts = [unquote(p) for p in path.strip("/").split("/")]
    if len(parts) > PARTS_MAX:
        return None
    if parts[0] == "api" and len(parts) > 2:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    watch = rest[0] == "watch"
    if watch:
        rest = rest[1:]
    if len(rest) == 3 and rest[:2] == ["namespaces", ""]:  # an empty namespace is all of them
        rest = rest[2:]
    if not rest or any(not p for p in rest):
        return None
    namespace = None
    # /namespaces/x is the namespace itself, /namespaces/x/status its subresource, /namespaces/x/pods what is in it.
    inside = len(rest) > 2 and not (not group and len(rest) == 3 and rest[2] in ("status", "finalize"))
    if rest[0] == "namespaces" and inside:
        namespace, rest = rest[1], rest[2:]
    return Address(
        group,
        version,
        rest[0],
        namespace,
        rest[1] if len(rest) > 1 else "",
        rest[2] if len(rest) > 2 else "",
        tuple(rest[3:]),
        watch,
    )
