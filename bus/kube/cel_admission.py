"""CEL in admission: what an expression of a webhook's match conditions or of an admission policy may say, and its value.

The library checks no types: what is found before an expression is kept is its syntax, a name that nothing has, and a
constant or a bare field where a truth value is needed.  Everything else is found when it is asked, and then the
failure policy decides.  Words as in kube-apiserver's pkg/admission/plugin/cel and in cel-go.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from bus.kube import cel_library, cel_rules

VARIABLES = ("authorizer", "namespaceObject", "object", "oldObject", "request")
BOOL, STRING, STRING_OR_NULL, ANY = ("bool",), ("string",), ("string", "null_type"), ()
# what an identifier may be that is no variable: types, and the first word of a library's functions
_WORDS = frozenset(
    (
        "bool",
        "bytes",
        "double",
        "duration",
        "dyn",
        "google",
        "int",
        "list",
        "map",
        "null_type",
        "optional",
        "string",
        "timestamp",
        "type",
        "uint",
        "true",
        "false",
        "null",
        "in",
        "base64",
        "cel",
        "lists",
        "math",
        "sets",
        "strings",
    )
)
_TOKEN = re.compile(r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|//[^\n]*|[A-Za-z_]\w*|[^\s\w]|\d[\w.]*")
_MACROS = frozenset(("all", "exists", "exists_one", "filter", "map"))
_PATH = re.compile(r"\s*[A-Za-z_]\w*(\.[A-Za-z_]\w*)*\s*\Z")
_TYPES = {bool: "bool", int: "int", float: "double", str: "string", bytes: "bytes", list: "list", dict: "map"}


class EvaluationError(Exception):
    """An expression that has no value here."""


def problem(text: str, known: Collection[str], kinds: Sequence[str]) -> str:
    """What is wrong with an expression that may name ``known`` and must give one of ``kinds`` (any, when there are none);
    empty when nothing is."""
    try:
        program = cel_rules.compiled(text)
    except cel_rules.RuleError as e:
        said = re.sub(r"Failed to parse expression .*?: (?=ERROR)", "", str(e), flags=re.S)
        return said.replace("\n| ", "\n | ")
    named = set(program.variables()) - set(known) - _WORDS
    if named:
        lines = [_undeclared(text, name, at) for name, at in _free(text, named)]
        if lines:
            return "compilation failed: " + "\n".join(lines)
    kind = _kind(text, bool(program.variables()))
    if kinds and kind and kind not in kinds:
        wanted = kinds[0] if len(kinds) == 1 else f"one of [{' '.join(kinds)}]"
        return f"must evaluate to {wanted} but got {kind}"
    return ""


def _undeclared(text: str, name: str, at: int) -> str:
    before = text[:at]
    line, column = before.count("\n") + 1, at - (before.rfind("\n") + 1)
    shown = text.split("\n")[line - 1]
    said = f"ERROR: <input>:{line}:{column + 1}: undeclared reference to '{name}' (in container '')"
    return f"{said}\n | {shown}\n | {'.' * column}^"


def _free(text: str, names: Collection[str]) -> Iterable[tuple[str, int]]:
    """Where ``names`` stand as variables that no macro binds."""
    tokens = [(m[0], m.start()) for m in _TOKEN.finditer(text) if not m[0].startswith("//")]
    bound = {
        tokens[i + 2][0]
        for i in range(len(tokens) - 2)
        if tokens[i][0] in _MACROS and tokens[i + 1][0] == "(" and i and tokens[i - 1][0] == "."
    }
    for i, (word, at) in enumerate(tokens):
        if word in names and word not in bound and not (i and tokens[i - 1][0] == "."):
            yield word, at


def _kind(text: str, variables: bool) -> str:
    """What an expression gives, where that can be said without asking it; empty where not."""
    if variables:
        return "dyn" if _PATH.match(text) and "." in text else ""
    try:
        value = run(text, {})
    except EvaluationError:
        return ""
    return "null_type" if value is None else _TYPES.get(type(value), "")


def run(text: str, variables: Mapping[str, Any]) -> Any:
    """Raises EvaluationError."""
    try:
        program = cel_rules.compiled(text)
    except cel_rules.RuleError as e:
        raise EvaluationError(str(e)) from e
    used = {name: variables[name] for name in program.variables() if name in variables}
    if sum(map(cel_rules.size, used.values())) ** cel_rules.nesting(text) > cel_rules.STEPS_MAX:
        raise EvaluationError(f"expression '{text}' resulted in error: operation cancelled: actual cost limit exceeded")
    try:
        return program.execute(cel_library.context(used))
    except Exception as e:  # whatever an expression may raise on a value is the expression's fault
        raise EvaluationError(f"expression '{text}' resulted in error: {_said(e)}") from e


def _said(e: Exception) -> str:
    if isinstance(e, KeyError):
        return f"no such key: {e.args[0] if e.args else ''}".replace("'", "")
    if isinstance(e, TypeError):
        return "no such overload"
    if isinstance(e, ZeroDivisionError):
        return "division by zero"
    return str(e)[:300]
