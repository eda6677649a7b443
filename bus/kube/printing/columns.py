"""Columns, and the table made of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bus.kube import catalog
from bus.kube.catalog import Resource, Version
from bus.kube.printing import core, devices, jsonpath, pods, text
from bus.kube.printing.cells import AGE, NAME, Cell, Look
from bus.kube.storage import Object, Reader

_BY_RESOURCE: dict[tuple[str, str], Sequence[Cell]] = {("", "pods"): pods.COLUMNS, **core.COLUMNS, **devices.COLUMNS}


def _of_definition(column: catalog.Column) -> Cell:
    def value(obj: Object, look: Look) -> Any:
        found = jsonpath.find(obj, column.path)
        if not found:
            return None
        if column.type == "date":
            return text.age(found[0], look.now_us)
        if column.type in ("integer", "number", "boolean"):
            return found[0]
        return text.joined(v if isinstance(v, str) else json.dumps(v) for v in found)

    kind = "string" if column.type == "date" else column.type
    return Cell(column.name, value, kind, column.format, column.priority)


def cells_of(resource: Resource, version: Version) -> Sequence[Cell]:
    """A definition's own columns win over ours."""
    if version.columns:
        own = [_of_definition(c) for c in version.columns]
        return [NAME, *own]
    return _BY_RESOURCE.get((resource.group, resource.resource), (NAME, AGE))


@dataclass(slots=True)
class Printer:
    """Rows of one resource.  ``include`` is None, Metadata or Object: what goes with each row."""

    resource: Resource
    version: Version
    reader: Reader
    clock: Callable[[], int]
    include: str = "Metadata"

    @property
    def width(self) -> int:
        return len(cells_of(self.resource, self.version))

    def table(self, objects: list[Object], rev: str, *, columns: bool = True, version: str = "v1") -> Object:
        cells = cells_of(self.resource, self.version)
        look = Look(self.clock(), self.reader)
        rows = []
        for obj in objects:
            row: Object = {"cells": [c.value(obj, look) for c in cells]}
            if self.include == "Object":
                row["object"] = obj
            elif self.include == "Metadata":
                head = {"kind": "PartialObjectMetadata", "apiVersion": f"meta.k8s.io/{version}"}
                row["object"] = {**head, "metadata": obj["metadata"]}
            else:
                row["object"] = None
            rows.append(row)
        return {
            "kind": "Table",
            "apiVersion": f"meta.k8s.io/{version}",
            "metadata": {"resourceVersion": rev},
            "columnDefinitions": [c.definition() for c in cells] if columns else None,
            "rows": rows,
        }
