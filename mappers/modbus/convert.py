"""Registers to numbers and back.  Pure.

Modbus has no types: a value is one or more 16-bit registers, most significant first unless a vendor thought otherwise, which
``isSwap`` (bytes within a register) and ``isRegisterSwap`` (order of the registers) undo.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast, get_args

from mappers.driver import BadValue, PropertyError, PropertySpec
from mappers.modbus.config import READ_REGISTERS_MAX, DataType, VisitorConfig
from schemas.telemetry import Value

FORMATS = {
    "int16": ">h",
    "uint16": ">H",
    "int32": ">i",
    "uint32": ">I",
    "int64": ">q",
    "uint64": ">Q",
    "float32": ">f",
    "float64": ">d",
}
REGISTERS_OF = {name: struct.calcsize(form) // 2 for name, form in FORMATS.items()}
BY_SIZE = {1: "16", 2: "32", 4: "64"}
BITS = ("CoilRegister", "DiscreteInputRegister")


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a property lies, and how it is read."""

    kind: str
    offset: int
    count: int
    data_type: DataType

    @property
    def bits(self) -> bool:
        return self.kind in BITS

    @property
    def end(self) -> int:
        return self.offset + self.count


def layout(spec: PropertySpec) -> Layout:
    """Raises PropertyError for a combination that can't be."""
    visitor: VisitorConfig = spec.visitor
    if visitor.register_type in BITS:
        if visitor.limit > 1:
            raise PropertyError(spec.name, f"limit {visitor.limit}: a {visitor.register_type} property is one bit")
        return Layout(visitor.register_type, visitor.offset, 1, "bool")
    data_type = _data_type(spec)
    count = visitor.limit or REGISTERS_OF.get(data_type, 1)
    needed = REGISTERS_OF.get(data_type, count)
    if count != needed:
        raise PropertyError(spec.name, f"limit {count}: a {data_type} takes {needed} register(s)")
    if visitor.offset + count > 65536 or count > READ_REGISTERS_MAX:
        raise PropertyError(spec.name, f"registers {visitor.offset} to {visitor.offset + count - 1} are not all there")
    return Layout(visitor.register_type, visitor.offset, count, data_type)


def _data_type(spec: PropertySpec) -> DataType:
    """As written, or from the model's type and the number of registers.

    Without a data type an INT is unsigned, as in KubeEdge's mapper, unless the model allows negative values; a FLOAT or
    DOUBLE in one register is a scaled integer, in two a float32, in four a float64."""
    visitor: VisitorConfig = spec.visitor
    given = visitor.data_type.lower()
    if given in get_args(DataType):
        return cast(DataType, given)
    kind = {"": spec.type.lower(), "integer": "int", "boolean": "bool"}.get(given, given)
    size = visitor.limit or {"float": 2, "double": 4}.get(kind, 1)
    if kind in ("string", "bytes"):
        return "string"
    if kind in ("bool", "boolean"):
        return "uint16"
    if kind not in ("int", "float", "double"):
        raise PropertyError(spec.name, f"dataType {visitor.data_type!r} is not one of {', '.join(get_args(DataType))}")
    if size not in BY_SIZE:
        raise PropertyError(spec.name, f"limit {size}: a number takes 1, 2 or 4 registers")
    if kind in ("float", "double") and size > 1:
        return cast(DataType, f"float{BY_SIZE[size]}")
    signed = spec.minimum is not None and spec.minimum < 0
    return cast(DataType, f"{'int' if signed else 'uint'}{BY_SIZE[size]}")


def decode(registers: Sequence[int], visitor: VisitorConfig, data_type: DataType) -> Value:
    """The scaled value of the registers; ``data_type`` string gives bytes."""
    raw = _swapped(struct.pack(f">{len(registers)}H", *registers), visitor)
    if data_type == "string":
        return raw
    (number,) = struct.unpack(FORMATS[data_type], raw)
    if visitor.scale == 1.0:
        return cast(int | float, number)
    return float(f"{number * visitor.scale:.12g}")  # 217 * 0.1 is 21.7, not 21.700000000000003


def encode(value: Value, visitor: VisitorConfig, data_type: DataType, count: int) -> tuple[list[int], Value]:
    """The registers for a value, and the value that they stand for.  Raises BadValue."""
    if data_type == "string":
        raw = value if isinstance(value, bytes) else str(value).encode()
        if len(raw) > count * 2:
            raise BadValue(f"{len(raw)} bytes do not fit in {count} register(s)")
        raw = raw.ljust(count * 2, b"\0")
    else:
        if not isinstance(value, int | float):
            raise BadValue(f"{value!r} is not a number")
        number: int | float = value if visitor.scale == 1.0 else value / visitor.scale
        try:
            raw = struct.pack(FORMATS[data_type], number if data_type.startswith("float") else round(number))
        except (struct.error, OverflowError, ValueError) as e:
            raise BadValue(f"{value!r} does not fit in a {data_type} with scale {visitor.scale:g}") from e
    registers = list(struct.unpack(f">{count}H", _swapped(raw, visitor)))
    return registers, decode(registers, visitor, data_type)


def _swapped(raw: bytes, visitor: VisitorConfig) -> bytes:
    """Its own inverse: both directions use it."""
    words = [raw[i : i + 2] for i in range(0, len(raw), 2)]
    if visitor.is_register_swap:
        words.reverse()
    if visitor.is_swap:
        words = [word[::-1] for word in words]
    return b"".join(words)
