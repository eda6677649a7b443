"""How Go writes values in messages, where that isn't JSON's way."""

from __future__ import annotations

from typing import Any

_SHORT = {7: "\\a", 8: "\\b", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", 34: '\\"', 92: "\\\\"}


def quoted(text: str) -> str:
    """As ``%q``."""
    out = []
    for letter in text:
        code = ord(letter)
        if code in _SHORT:
            out.append(_SHORT[code])
        elif letter.isprintable():
            out.append(letter)
        elif code < 0x80:
            out.append(f"\\x{code:02x}")
        else:
            out.append(f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    return '"' + "".join(out) + '"'


def go_kind(value: Any) -> str:
    """What Go's JSON decoder calls it."""
    names = {bool: "bool", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")
