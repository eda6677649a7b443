"""A column: its words, and how its cell is found in an object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bus.kube.printing import text
from bus.kube.storage import Object, Reader


@dataclass(frozen=True, slots=True)
class Look:
    """What a cell may look at beside its object."""

    now_us: int
    reader: Reader


@dataclass(frozen=True, slots=True)
class Cell:
    """``priority`` 0 is always shown, 1 with ``-o wide``."""

    name: str
    value: Callable[[Object, Look], Any]
    type: str = "string"
    format: str = ""
    priority: int = 0

    def definition(self) -> Object:
        return {"name": self.name, "type": self.type, "format": self.format, "description": "", "priority": self.priority}


NAME = Cell("Name", lambda o, _: o["metadata"]["name"], format="name")
AGE = Cell("Age", lambda o, look: text.age(o["metadata"].get("creationTimestamp"), look.now_us))
