"""Which properties are read in one request.  Pure.

Only registers that touch are joined: reading over a hole would save requests, but many devices refuse a request that touches
an address they don't have, and some count reading as an action.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mappers.modbus.config import READ_BITS_MAX, READ_REGISTERS_MAX
from mappers.modbus.convert import Layout


@dataclass(frozen=True, slots=True)
class Batch:
    """``names`` are read from ``kind`` at ``offset``, ``count`` registers or bits."""

    kind: str
    offset: int
    count: int
    names: tuple[str, ...]


def batches(layouts: Iterable[tuple[str, Layout]]) -> list[Batch]:
    """In order of kind and offset; every name in exactly one batch."""
    found: list[Batch] = []
    for name, layout in sorted(layouts, key=lambda item: (item[1].kind, item[1].offset, item[1].count, item[0])):
        last = found[-1] if found else None
        limit = READ_BITS_MAX if layout.bits else READ_REGISTERS_MAX
        if last and last.kind == layout.kind and layout.offset <= last.offset + last.count:
            count = max(last.offset + last.count, layout.end) - last.offset
            if count <= limit:
                found[-1] = Batch(last.kind, last.offset, count, (*last.names, name))
                continue
        found.append(Batch(layout.kind, layout.offset, layout.count, (name,)))
    return found
