"""The part of JSONPath that printer columns use: ``.spec.a``, ``['b.c']``, ``[0]``, ``[*]``, ``[?(@.type=="Ready")]``."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

_STEP = re.compile(
    r"""\.?(?:
        \[\?\(@\.(?P<field>[\w.\-/]+)\s*(?P<op>==|!=)\s*(?:"(?P<dq>[^"]*)"|'(?P<sq>[^']*)'|(?P<bare>[\w.\-]+))\s*\)\]
      | \[(?P<index>-?\d{1,9}|\*)\]
      | \[(?:'(?P<squoted>[^']*)'|"(?P<dquoted>[^"]*)")\]
      | (?P<name>(?:\\.|[^.\[\]\\{}])+)
    )""",
    re.X,
)
STEPS_MAX = 64
Step = Callable[[Any], list[Any]]


@functools.lru_cache(maxsize=1024)
def compile_path(path: str) -> tuple[Step, ...] | None:
    """None for a path that this part doesn't know."""
    path = path.strip().removeprefix("{").removesuffix("}").removeprefix("$")
    steps: list[Step] = []
    at = 0
    while at < len(path):
        m = _STEP.match(path, at)
        if m is None or m.end() == at or len(steps) == STEPS_MAX:
            return None
        steps.append(_step(m))
        at = m.end()
    return tuple(steps)


def _step(m: re.Match[str]) -> Step:
    if m["field"]:
        wanted = next(v for v in (m["dq"], m["sq"], m["bare"], "") if v is not None)
        field, equal = m["field"].split("."), m["op"] == "=="
        return lambda value: [v for v in _items(value) if (_text(_dig(v, field)) == wanted) == equal]
    if m["index"] == "*":
        return _items
    if m["index"]:
        i = int(m["index"])
        return lambda value: [value[i]] if isinstance(value, list) and -len(value) <= i < len(value) else []
    name = next(v for v in (m["squoted"], m["dquoted"], m["name"]) if v is not None)
    name = re.sub(r"\\(.)", r"\1", name)
    return lambda value: [value[name]] if isinstance(value, dict) and name in value else []


def _items(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    return list(value.values()) if isinstance(value, dict) else []


def _dig(value: Any, path: list[str]) -> Any:
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def find(obj: Any, path: str) -> list[Any]:
    """All values at a path; none for a path that this part doesn't know."""
    values = [obj]
    for step in compile_path(path) or (lambda _: [],):
        values = [found for v in values for found in step(v)]
    return values
