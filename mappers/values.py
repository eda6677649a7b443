"""Raw values to the model's types, ranges to quality, texts to values that can be written.  Pure.

Quality follows OPC UA Part 8, 7.2: *good* is usable, *uncertain* is a value that one shouldn't trust (here: outside the
model's range), *bad* is no value at all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mappers.driver import BadValue, Reading
from schemas.devices import Property
from schemas.telemetry import Quality, Value

INT_MIN, INT_MAX = -(1 << 63), (1 << 63) - 1  # what msgpack, and every reader's int64, can hold
TEXT_MAX = 4096  # characters (or bytes) of one value; a device that sends more is broken
REL_TOLERANCE = 1e-6  # a float32 register keeps 7 digits
TRUE, FALSE = ("true", "1", "on", "yes"), ("false", "0", "off", "no")


@dataclass(frozen=True, slots=True)
class Measured:
    """A reading in the model's terms."""

    value: Value | None
    quality: Quality = "good"
    reason: str = ""


def measure(reading: Reading, prop: Property) -> Measured:
    """Never raises: what can't be converted is a bad value with the reason in words."""
    if reading.quality == "bad":
        return Measured(None, "bad", reading.reason or "the driver says that the value is bad")
    try:
        value = convert(reading.value, prop)
    except BadValue as e:
        return Measured(None, "bad", str(e))
    if reading.quality != "good":
        return Measured(value, reading.quality, reading.reason)
    outside = out_of_range(value, prop)
    return Measured(value, "uncertain", outside) if outside else Measured(value)


def convert(raw: object, prop: Property) -> Value:
    """``raw`` as the model's type.  Raises BadValue."""
    match prop.type:
        case "BOOLEAN":
            return _boolean(raw)
        case "INT":
            return _integer(raw)
        case "FLOAT" | "DOUBLE":
            return _number(raw)
        case "STRING":
            return _text(raw)
        case "BYTES":
            return _bytes(raw)
        case "STREAM":
            raise BadValue("STREAM properties are not values and can't be read by a mapper")


def _boolean(raw: object) -> bool:
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, int | float) and raw in (0, 1):
        return raw == 1
    if isinstance(raw, str) and raw.strip().lower() in TRUE + FALSE:
        return raw.strip().lower() in TRUE
    raise BadValue(f"{_shown(raw)} is not a BOOLEAN")


def _integer(raw: object) -> int:
    if isinstance(raw, bool):
        return int(raw)
    if isinstance(raw, int):
        number = raw
    elif isinstance(raw, str):
        number = _integer_text(raw)
    else:
        exact = _number(raw)
        number = round(exact)  # a scaled register of an INT property: the model asked for whole numbers
    if not INT_MIN <= number <= INT_MAX:
        raise BadValue(f"{_shown(raw)} does not fit in 64 bits")
    return number


def _integer_text(raw: str) -> int:
    text = raw.strip()
    if len(text) > 32:  # int() of a very long text is slow
        raise BadValue(f"{_shown(raw)} is not an INT")
    try:
        return int(text)
    except ValueError:
        number = _number(text)
        if number != int(number):
            raise BadValue(f"{_shown(raw)} is not an INT") from None
        return int(number)


def _number(raw: object) -> float:
    if isinstance(raw, str) and len(raw) > 64:
        raise BadValue(f"{_shown(raw)} is not a number")
    if not isinstance(raw, int | float | str):
        raise BadValue(f"{_shown(raw)} is not a number")
    try:
        number = float(raw)
    except (ValueError, OverflowError) as e:
        raise BadValue(f"{_shown(raw)} is not a number") from e
    if not math.isfinite(number):
        raise BadValue(f"{_shown(raw)} is not a finite number")
    return number


def _text(raw: object) -> str:
    if isinstance(raw, bytes):
        try:
            raw = raw.rstrip(b"\0").decode()
        except UnicodeDecodeError as e:
            raise BadValue(f"{_shown(raw)} is not UTF-8 text") from e
    if not isinstance(raw, str | int | float):
        raise BadValue(f"{_shown(raw)} is not a STRING")
    text = ("true" if raw else "false") if isinstance(raw, bool) else str(raw)
    if len(text) > TEXT_MAX:
        raise BadValue(f"a text of {len(text)} characters, the limit is {TEXT_MAX}")
    return text


def _bytes(raw: object) -> bytes:
    if isinstance(raw, list):
        try:
            raw = bytes(raw)
        except (ValueError, TypeError) as e:
            raise BadValue(f"{_shown(raw)} is not a list of bytes") from e
    if isinstance(raw, str):
        raw = raw.encode()
    if not isinstance(raw, bytes):
        raise BadValue(f"{_shown(raw)} is not BYTES")
    if len(raw) > TEXT_MAX:
        raise BadValue(f"{len(raw)} bytes, the limit is {TEXT_MAX}")
    return raw


def _shown(raw: object) -> str:
    text = repr(raw)
    return text if len(text) <= 60 else text[:57] + "..."


def bound(text: str | None) -> float | None:
    """The model's minimum or maximum as a number; None when there is none, or it isn't one."""
    if text is None or text.strip() == "":
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return None if math.isnan(number) else number


def out_of_range(value: Value, prop: Property) -> str:
    """Why the value is outside the model's range; "" when it isn't."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    unit = f" {prop.unit}" if prop.unit else ""
    low, high = bound(prop.minimum), bound(prop.maximum)
    if low is not None and value < low:
        return f"{value:g}{unit} is below the minimum of {low:g}{unit}"
    if high is not None and value > high:
        return f"{value:g}{unit} is above the maximum of {high:g}{unit}"
    return ""


def parse_desired(text: str, prop: Property) -> Value:
    """The value that a manifest's ``desired.value`` means.  Raises BadValue, also for one outside the model's range."""
    value = convert(text, prop)
    outside = out_of_range(value, prop)
    if outside:
        raise BadValue(outside)
    return value


def same(a: Value | None, b: Value | None) -> bool:
    """Equal, as far as a float32 can tell."""
    if isinstance(a, float) or isinstance(b, float):
        return isinstance(a, int | float) and isinstance(b, int | float) and math.isclose(a, b, rel_tol=REL_TOLERANCE)
    return type(a) is type(b) and a == b


def moved(before: Measured | None, now: Measured, deadband: float) -> bool:
    """Whether ``now`` is worth telling after ``before``: another quality, or a change of more than the deadband."""
    if before is None or before.quality != now.quality:
        return True
    if now.quality == "bad" and before.reason != now.reason:
        return True
    a, b = before.value, now.value
    if deadband > 0 and isinstance(a, int | float) and isinstance(b, int | float):
        return abs(b - a) > deadband
    return type(a) is not type(b) or a != b
