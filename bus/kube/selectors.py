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

from bus.kube import names

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

    def last(self) -> str:
        """The text of the token that ``next`` gave."""
        return self.tokens[max(self.at - 1, 0)][1]

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


def _requirement(tokens: _Tokens) -> Requirement:
    kind, value = tokens.next()
    if (kind, value) == ("op", "!"):
        kind, value = tokens.next()
        return Requirement(_key(kind, value), "missing")
    key = _key(kind, value)
    kind, op = tokens.peek()
    if kind == "end" or op == ",":
        return Requirement(key, "exists")
    tokens.next()
    if kind == "word" and op in ("in", "notin"):
        return Requirement(key, op, frozenset(_set(tokens, key)))
    if op in ("=", "==", "!=", "<", ">"):
        word = tokens.next()[1] if tokens.peek()[0] == "word" else ""
        if op in "<>":
            if not re.fullmatch(r"-?[0-9]{1,18}", word):
                raise SelectorError(f"for 'Gt', 'Lt' operators, the value must be an integer, found '{word}'")
            return Requirement(key, "lt" if op == "<" else "gt", frozenset([word]))
        return Requirement(key, "notin" if op == "!=" else "in", frozenset([_value(word, key)]))
    raise SelectorError(f"found '{op}', expected: in, notin, =, ==, !=, gt, lt")


def _set(tokens: _Tokens, key: str) -> list[str]:
    if tokens.next() != ("op", "("):
        raise SelectorError(f"found '{tokens.last()}' expected: '('")
    values: list[str] = []
    word = ""
    while True:
        kind, value = tokens.next()
        if kind == "word" and not word:
            word = value
        elif value in (",", ")") and kind == "op":
            values.append(_value(word, key, len(values)))
            word = ""
            if value == ")":
                return values
            if len(values) > VALUES_MAX:
                raise SelectorError(f"a set has at most {VALUES_MAX} values")
        else:
            raise SelectorError(f"found '{value}', expected: ',' or ')'")


def _key(kind: str, value: str) -> str:
    if kind != "word":
        raise SelectorError(f"found '{value}', expected: identifier")
    problem = names.label_key(value)
    if problem:
        raise SelectorError(f'<nil>: Invalid value: "{value[:80]}": {problem}')
    return value


def _value(word: str, key: str, at: int = 0) -> str:
    problem = names.label_value(word)
    if problem:
        raise SelectorError(f'values[{at}][{key}]: Invalid value: "{word[:80]}": {problem}')
    return word


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


_TERM = re.compile(r"\s*((?:[^\\=!,]|\\.)*?)\s*(==|!=|=)((?:[^\\,=]|\\.)*)\Z", re.S)


def parse_fields(text: str, allowed: Collection[str]) -> FieldSelector:
    """A field selector; only ``allowed`` fields can be asked for.  Raises SelectorError."""
    if len(text) > SELECTOR_CHARS_MAX:
        raise SelectorError(f"a selector has at most {SELECTOR_CHARS_MAX} characters")
    terms = []
    for part in re.split(r"(?<!\\),", text):
        if not part.strip():
            continue
        m = _TERM.match(part)
        if m is None:
            raise SelectorError(f"invalid selector: '{part[:80]}'; can't understand '{part[:80]}'")
        field, op, value = m[1], m[2], re.sub(r"\\([\\,=])", r"\1", m[3])
        if field not in allowed:
            raise UnknownField(field[:80])
        terms.append((field, value, op != "!="))
    return FieldSelector(tuple(terms))
