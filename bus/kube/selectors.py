"""Label and field selectors: parse once, match often.

Label selectors: Kubernetes "Labels and Selectors", with ``in``, ``notin``, ``exists``, ``!key``, ``=``, ``==``, ``!=``,
``<`` and ``>``.  Field selectors: ``=``, ``==`` and ``!=`` on the few fields that a resource declares.
A text that is no selector raises SelectorError; what it means over HTTP (400) is the caller's business.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from bus.kube import gotext, names

SELECTOR_CHARS_MAX = 8192  # the length of a URL that proxies still carry
VALUES_MAX = 1000


class SelectorError(ValueError):
    """A text that is not a selector."""


class UnknownField(SelectorError):
    """A field that can't be asked for; the message is its name."""


@dataclass(frozen=True, slots=True)
class Requirement:
    key: str
    op: str  # in, notin, exists, missing, gt, lt
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        if self.op == "exists":
            return self.key in labels
        if self.op == "missing":
            return self.key not in labels
        if self.op == "in":
            return labels.get(self.key) in self.values
        if self.op == "notin":
            return labels.get(self.key) not in self.values
        try:
            have, want = int(labels[self.key]), int(next(iter(self.values)))
        except (KeyError, ValueError):
            return False
        return have > want if self.op == "gt" else have < want


@dataclass(frozen=True, slots=True)
class LabelSelector:
    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        return all(r.matches(labels or {}) for r in self.requirements)

    def __bool__(self) -> bool:
        return bool(self.requirements)


_TOKEN = re.compile(r"\s*(?:(==|!=|=|!|<|>|,|\(|\))|([^\s=!<>,()]+))")


class _Tokens:
    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str]] = []
        at = 0
        text = text.rstrip()
        while at < len(text):
            m = _TOKEN.match(text, at)
            if m is None:
                raise SelectorError(f"unable to parse requirement: found {text[at : at + 20]!r}")
            self.tokens.append(("op", m[1]) if m[1] else ("word", m[2]))
            at = m.end()
        self.tokens.append(("end", ""))
        self.at = 0

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.at]

    def next(self) -> tuple[str, str]:
        token = self.tokens[self.at]
        self.at = min(self.at + 1, len(self.tokens) - 1)
        return token


def parse_labels(text: str) -> LabelSelector:
    """A selector from a query string; the empty one matches everything.  Raises SelectorError."""
    if len(text) > SELECTOR_CHARS_MAX:
        raise SelectorError(f"a selector has at most {SELECTOR_CHARS_MAX} characters")
    return _parsed(_Tokens(text))


def _parsed(tokens: _Tokens) -> LabelSelector:
    found: list[Requirement] = []
    while True:
        kind, value = tokens.peek()
        if kind == "end":
            return LabelSelector(tuple(found))
        if kind != "word" and value != "!":
            raise SelectorError(f"found '{value}', expected: !, identifier, or 'end of string'")
        try:
            found.append(_requirement(tokens))
        except SelectorError as e:
            raise SelectorError(f"unable to parse requirement: {e}") from e
        kind, value = tokens.next()
        if kind == "end":
            return LabelSelector(tuple(found))
        if value != ",":
            raise SelectorError(f"found '{value}', expected: ',' or 'end of string'")
        after = tokens.peek()
        if after[0] != "word" and after[1] != "!":
            raise SelectorError(f"found '{after[1]}', expected: identifier after ','")


_NO_INTEGER = "for 'Gt', 'Lt' operators, the value must be an integer"


def _requirement(tokens: _Tokens) -> Requirement:
    """The words of a text that can't be read come before those of a key or a value that may not be."""
    kind, value = tokens.next()
    missing = (kind, value) == ("op", "!")
    if missing:
        kind, value = tokens.next()
    if kind != "word":
        raise SelectorError(f"found '{value}', expected: identifier")
    key = value
    kind, op = tokens.peek()
    if missing or kind == "end" or op == ",":
        return Requirement(_key(key), "missing" if missing else "exists")
    tokens.next()
    if kind == "word" and op in ("in", "notin"):
        words = _set(tokens)
        return Requirement(_key(key), op, frozenset(_value(w, key, at) for at, w in enumerate(words)))
    if op not in ("=", "==", "!=", "<", ">"):
        raise SelectorError(f"found '{op}', expected: in, notin, =, ==, !=, gt, lt")
    word = _exact(tokens)
    _key(key)
    if op not in ("<", ">"):
        return Requirement(key, "notin" if op == "!=" else "in", frozenset([_value(word, key)]))
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", word, re.ASCII):
        raise SelectorError(f"values[0]: Invalid value: {gotext.quoted(word)}: {_NO_INTEGER}")
    return Requirement(key, "lt" if op == "<" else "gt", frozenset([_value(word, key)]))


def _exact(tokens: _Tokens) -> str:
    kind, value = tokens.peek()
    if kind == "end" or value == ",":
        return ""
    tokens.next()
    if kind != "word":
        raise SelectorError(f"found '{value}', expected: identifier")
    return value


def _set(tokens: _Tokens) -> list[str]:
    kind, value = tokens.next()
    if (kind, value) != ("op", "("):
        raise SelectorError(f"found '{value}' expected: '('")
    values: list[str] = []
    word: str | None = None
    wanted = "',', ')' or identifier"
    while True:
        kind, value = tokens.next()
        if kind == "word" and word is None:
            word, wanted = value, "',' or ')'"
        elif kind == "op" and value in (",", ")"):
            values.append(word or "")
            word, wanted = None, "',', or identifier"
            if value == ")":
                return values
            if len(values) > VALUES_MAX:
                raise SelectorError(f"a set has at most {VALUES_MAX} values")
        else:
            raise SelectorError(f"found '{value}', expected: {wanted}")


def _key(key: str) -> str:
    problems = names.problems(names.label_key, key)
    if problems:
        raise SelectorError(f"<nil>: Invalid value: {gotext.quoted(key)}: {_bytes('; '.join(problems))}")
    return key


def _value(word: str, key: str, at: int = 0) -> str:
    problem = "; ".join(names.problems(names.label_value, word))
    if problem:
        raise SelectorError(f"values[{at}][{key}]: Invalid value: {gotext.quoted(word)}: {_bytes(problem)}")
    return word


def _bytes(problem: str) -> str:
    """A selector's limits are told in bytes."""
    return problem.replace("no more than 63 characters", "no more than 63 bytes")


def of_label_selector(selector: Mapping[str, Any] | None) -> LabelSelector:
    """From a ``LabelSelector`` object in a spec (matchLabels, matchExpressions).  None matches nothing in Kubernetes:
    callers decide that; here it is the empty selector.  Raises SelectorError."""
    selector = selector or {}
    out = [Requirement(k, "in", frozenset([v])) for k, v in sorted((selector.get("matchLabels") or {}).items())]
    ops = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "missing"}
    for e in selector.get("matchExpressions") or []:
        op = ops.get(e.get("operator", ""))
        if op is None:
            raise SelectorError(f'"{e.get("operator")}" is not a valid label selector operator')
        values = frozenset(e.get("values") or [])
        if (op in ("in", "notin")) != bool(values):
            raise SelectorError(f"values: for operator {e.get('operator')}, wrong number of values")
        out.append(Requirement(e.get("key", ""), op, values))
    return LabelSelector(tuple(out))


# --- fields --------------------------------------------------------------------------------------------------------

FieldGetter = Callable[[Mapping[str, Any]], str]


@dataclass(frozen=True, slots=True)
class FieldSelector:
    terms: tuple[tuple[str, str, bool], ...] = ()  # field, value, equal

    def matches(self, obj: Mapping[str, Any], special: Mapping[str, FieldGetter] | None = None) -> bool:
        for field, value, equal in self.terms:
            getter = (special or {}).get(field)
            have = getter(obj) if getter else field_of(obj, field)
            if (have == value) != equal:
                return False
        return True

    def exact(self, field: str) -> str | None:
        """The value that ``field`` must have, if the selector says so."""
        return next((v for f, v, equal in self.terms if f == field and equal), None)

    def __bool__(self) -> bool:
        return bool(self.terms)


def field_of(obj: Mapping[str, Any], path: str) -> str:
    """The text of a dotted path, "" when absent, as field selectors compare."""
    value: Any = obj
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


_OPERATORS = ("!=", "==", "=")


def parse_fields(text: str, allowed: Collection[str]) -> FieldSelector:
    """A field selector; only ``allowed`` fields can be asked for.  Raises SelectorError."""
    if len(text) > SELECTOR_CHARS_MAX:
        raise SelectorError(f"a selector has at most {SELECTOR_CHARS_MAX} characters")
    terms = [_term(part, text) for part in _split(text) if part]
    for field, _, _ in terms:
        if field not in allowed:
            raise UnknownField(field[:80])
    return FieldSelector(tuple(terms))


def _split(text: str) -> list[str]:
    """At every comma that no backslash is before."""
    parts, start, escaped = [], 0, False
    for at, letter in enumerate(text):
        if escaped:
            escaped = False
        elif letter == "\\":
            escaped = True
        elif letter == ",":
            parts.append(text[start:at])
            start = at + 1
    return [*parts, text[start:]]


def _term(part: str, text: str) -> tuple[str, str, bool]:
    """(field, value, equal)"""
    for at in range(len(part)):
        for op in _OPERATORS:
            if part.startswith(op, at):
                return part[:at], _unescaped(part[at + len(op) :]), op != "!="
    raise SelectorError(f"invalid selector: '{text}'; can't understand '{part}'")


def _unescaped(value: str) -> str:
    out, escaped = [], False
    for letter in value:
        if escaped and letter not in "\\,=":
            raise SelectorError(f"invalid field selector: invalid escape sequence: \\{letter}")
        if not escaped and letter in ",=":
            raise SelectorError(f"invalid field selector: unescaped character in value: {ord(letter)}")
        escaped = not escaped and letter == "\\"
        if not escaped:
            out.append(letter)
    if escaped:
        raise SelectorError("invalid field selector: invalid escape sequence: \\")
    return "".join(out)
