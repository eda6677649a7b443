"""The contract of a kind's particulars, and what most kinds do.

Everything here works on plain objects in place and knows no storage.  ``Context`` carries what a rule may look at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bus.kube import names, selectors
from bus.kube.catalog import Resource, Version
from bus.kube.errors import Cause
from bus.kube.storage import Object, Reader


@dataclass(frozen=True, slots=True)
class Context:
    resource: Resource
    version: Version  # of the request
    reader: Reader
    now: str  # RFC 3339
    warnings: list[str]


class Strategy:
    """Overridden per kind; every default here is what the real server does for a kind without particulars."""

    generation = False  # whether metadata.generation counts changes of the specification
    returns_deleted = False  # a delete that took effect answers with the object instead of a Status
    unconditional_update = True  # an update without resourceVersion is allowed
    create_on_update = False  # a PUT of what isn't there makes it
    fields: tuple[str, ...] = ()  # field selectors beside metadata.name and metadata.namespace
    special: ClassVar[Mapping[str, selectors.FieldGetter]] = {}  # those whose value is not simply what the path holds

    def name_problem(self, name: str) -> str:
        return names.dns_subdomain(name)

    def defaults(self, obj: Object, ctx: Context) -> None:
        """Fill in what is absent, on create and update."""

    def prepare_create(self, obj: Object, ctx: Context) -> None:
        """Throw away what a create may not set."""
        if ctx.resource.has("status"):
            obj.pop("status", None)

    def prepare_update(self, obj: Object, old: Object, ctx: Context) -> None:
        """Keep what an update may not change."""
        if ctx.resource.has("status"):
            keep(obj, old, "status")

    def prepare_status(self, obj: Object, old: Object, ctx: Context) -> None:
        """An update of the status subresource changes nothing else."""
        for field in [f for f in {*obj, *old} if f not in ("status", "metadata")]:
            keep(obj, old, field)
        obj["metadata"] = {**old["metadata"], **_taken(obj["metadata"], ("managedFields", "resourceVersion"))}

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        return []

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        return []

    def validate_status(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        return []

    def same_spec(self, obj: Object, old: Object, ctx: Context) -> bool:
        """Whether ``generation`` stays."""
        return obj.get("spec") == old.get("spec")

    def grace(self, obj: Object, asked_s: int | None) -> int:
        """Seconds that a deletion waits for somebody's confirmation; 0 deletes at once."""
        return 0


def keep(obj: Object, old: Object, field: str) -> None:
    if field in old:
        obj[field] = old[field]
    else:
        obj.pop(field, None)


def _taken(source: Object, fields: tuple[str, ...]) -> Object:
    return {f: source[f] for f in fields if f in source}


def at(obj: Any, *path: str) -> Any:
    """The value at a path of map keys, None when any step is absent."""
    for step in path:
        obj = obj.get(step) if isinstance(obj, dict) else None
    return obj
