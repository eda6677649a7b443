"""JSON as it is sent: what is wrong with a text, in the words of the real server's parser, and keys that it says twice.

``json.loads`` takes the last of equal keys silently; ``fieldValidation`` wants to know of them (API concepts, "Field
validation").
"""

from __future__ import annotations

import json
import re
from collections import deque
from typing import Any

DUPLICATES_MAX = 20
_OBJECT, _ARRAY = "{", "["


class Doubled(dict[str, Any]):
    """An object of which some keys were said more than once."""

    keys_twice: tuple[str, ...] = ()


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    seen: set[str] = set()
    twice = []
    for name, _ in pairs:
        if name in seen and name not in twice:
            twice.append(name)
        seen.add(name)
    out = Doubled(made)
    out.keys_twice = tuple(twice[:DUPLICATES_MAX])
    return out


def loads(text: str) -> Any:
    """Raises ValueError with Go's words, RecursionError for what nests too deep."""
    try:
        return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_pairs)
    except json.JSONDecodeError as e:
        raise ValueError(_said(e)) from e


def _no_constant(name: str) -> None:
    raise ValueError(
        f"invalid character '{name.lstrip('-')[:1]}' " + ("in numeric literal" if name[0] == "-" else _BEGINNING)
    )


_BEGINNING = "looking for beginning of value"
_CONTROL = "invalid character '{}' in string literal"


def _said(e: json.JSONDecodeError) -> str:
    at = e.pos
    while at < len(e.doc) and e.doc[at] in " \t\r\n":
        at += 1
    if at >= len(e.doc) or e.msg.startswith("Unterminated string"):
        return "unexpected end of JSON input"
    letter = e.doc[at]
    shown = {"'": r"\'", '"': '"', "\\": r"\\"}.get(letter, letter if letter.isprintable() else repr(letter)[1:-1])
    if e.msg.startswith("Expecting property name"):
        return f"invalid character '{shown}' looking for beginning of object key string"
    if e.msg.startswith("Expecting ':'"):
        return f"invalid character '{shown}' after object key"
    if e.msg.startswith("Expecting ','"):
        inside = "array element" if _inside(e.doc[:at]) == _ARRAY else "object key:value pair"
        return f"invalid character '{shown}' after {inside}"
    if e.msg.startswith("Extra data"):
        return f"invalid character '{shown}' after top-level value"
    if e.msg.startswith("Invalid control"):
        return _CONTROL.format(shown)
    if e.msg.startswith("Invalid \\"):
        return f"invalid character '{e.doc[min(at + 1, len(e.doc) - 1)]}' in string escape code"
    return _no_value(e.doc, at, shown)


def _no_value(doc: str, at: int, shown: str) -> str:
    """Go goes on in a word that begins well, and tells where it went wrong."""
    for word in ("true", "false", "null"):
        if doc[at] == word[0]:
            i = next((i for i, c in enumerate(word) if doc[at + i : at + i + 1] != c), len(word))
            if at + i >= len(doc):
                return "unexpected end of JSON input"
            return f"invalid character '{doc[at + i]}' in literal {word} (expecting '{word[i]}')"
    if doc[at] == "-":
        return (
            f"invalid character '{doc[at + 1]}' in numeric literal" if at + 1 < len(doc) else "unexpected end of JSON input"
        )
    return f"invalid character '{shown}' {_BEGINNING}"


def _inside(text: str) -> str:
    """The bracket that is open at the end of ``text``."""
    open_now: list[str] = []
    for token in re.finditer(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', text):
        if token[0] in "{[":
            open_now.append(token[0])
        elif token[0] in "]}" and open_now:
            open_now.pop()
    return open_now[-1] if open_now else _OBJECT


def duplicates(value: Any, path: str = "") -> list[str]:
    """Paths of keys that were said twice, as ``fieldValidation`` names them."""
    out: list[str] = []
    todo: deque[tuple[str, Any]] = deque([(path, value)])
    while todo and len(out) < DUPLICATES_MAX:
        at, v = todo.popleft()
        if isinstance(v, Doubled):
            out += [f"{at}.{name}" if at else name for name in v.keys_twice]
        if isinstance(v, dict):
            todo.extend([(f"{at}.{k}" if at else k, item) for k, item in v.items() if isinstance(item, dict | list)])
        elif isinstance(v, list):
            todo.extend([(f"{at}[{i}]", item) for i, item in enumerate(v) if isinstance(item, dict | list)])
    return out
