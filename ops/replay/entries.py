"""One line of the log as the debugger looks at it, and which lines a question is about.  Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from schemas import kinds
from schemas.event import REPORT, Event
from schemas.subjects import ObjectKey
from schemas.times import micros

REPORT_RESOURCES = {"pod": "pods", "node": "nodes", "twin": "devices", "event": "events"}  # kind of report -> resource


class BadQuestion(ValueError):
    """What was asked for can't be understood; the message says what can."""


@dataclass(frozen=True, slots=True)
class Entry:
    """``stream`` without HISTORY-; ``stored_us`` is the server's time of storing; ``error`` says why there is no event."""

    stream: str
    seq: int
    subject: str
    stored_us: int
    event: Event | None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """An object as a person names it; ``group`` None and ``namespace`` None match any."""

    resource: str
    name: str | None
    group: str | None = None
    namespace: str | None = None

    def matches(self, ev: Event) -> bool:
        """Also what a node reports of the object."""
        resource, group = ev.resource, ev.group
        if ev.type == REPORT:
            resource, group = REPORT_RESOURCES.get(ev.resource, ev.resource), self.group or ""
            if resource == "nodes":
                return self.resource == "nodes" and self.name in (None, ev.scope)
        return (
            resource == self.resource
            and self.group in (None, group)
            and self.name in (None, ev.name)
            and self.namespace in (None, ev.namespace)
        )

    def __str__(self) -> str:
        group = f".{self.group}" if self.group else ""
        namespace = f"{self.namespace}/" if self.namespace else ""
        return f"{self.resource}{group} {namespace}{self.name or '*'}"


def parse_target(text: str, namespace: str | None = None) -> Target:
    """``pods``, ``pod/web``, ``deploy/web``, ``deployments.apps/web``, ``widgets.example.com/x``; raises BadQuestion."""
    kind, _, name = text.partition("/")
    if not re.fullmatch(r"[a-z][a-z0-9-]*(\.[a-z0-9.-]+)?", kind) or "/" in name:
        raise BadQuestion(f"{text!r} does not name an object: write it as pods/NAME or deployments.apps/NAME")
    word, dot, group = kind.partition(".")
    for k in kinds.BUILTIN:
        if word in (k.resource, k.singular, *k.short) and (not dot or group == k.group):
            return Target(k.resource, name or None, k.group, namespace if k.namespaced else None)
    if not dot:
        raise BadQuestion(f"{word!r} is not a kind known here; name a custom resource with its group: {word}.GROUP/NAME")
    return Target(word, name or None, group, namespace)


def target_of(key: ObjectKey) -> Target:
    return Target(key.resource, key.name, key.group, key.namespace)


@dataclass(frozen=True, slots=True)
class Filter:
    """Every part that is set must hold."""

    target: Target | None = None
    node: str | None = None
    actor: str | None = None
    trace: str | None = None
    type: str | None = None
    since_us: int = 0

    def matches(self, entry: Entry) -> bool:
        ev = entry.event
        if entry.stored_us < self.since_us:
            return False
        if ev is None:  # what can't be read is shown unless something is asked that only a readable event can answer
            return not (self.target or self.node or self.actor or self.trace or self.type)
        return (
            (self.target is None or self.target.matches(ev))
            and (self.node is None or node_of(ev) == self.node)
            and (self.actor is None or self.actor in ev.actor)
            and (self.trace is None or ev.trace == self.trace)
            and (self.type is None or ev.type == self.type or ev.type.startswith(f"{self.type}."))
        )


def node_of(ev: Event) -> str:
    """The node that an event is for, from or about; "" when it is about none."""
    if ev.scope:
        return ev.scope
    if ev.resource == "nodes" and ev.group == "":
        return ev.name
    spec = (ev.data or {}).get("spec")
    node = spec.get("nodeName") if isinstance(spec, dict) else None
    return node if isinstance(node, str) else ""


_AGE = re.compile(r"(\d+)\s*(s|m|h|d)")
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def parse_time(text: str, now_us: int) -> int:
    """Microseconds since 1970 of ``10m`` (ago), ``2026-11-23T13:00:00Z`` or ``2026-11-23 13:00`` (UTC).

    Raises BadQuestion."""
    if age := _AGE.fullmatch(text.strip()):
        return now_us - int(age[1]) * _UNITS_S[age[2]] * 1_000_000
    try:
        at = datetime.fromisoformat(text.strip())
        us = micros((at if at.tzinfo else at.replace(tzinfo=UTC)).isoformat())
    except ValueError:
        us = None
    if us is None:
        raise BadQuestion(f"{text!r} is not a time: write 30s, 10m, 2h, 7d (ago) or 2026-11-23T13:00:00Z")
    return us


def format_time(us: int) -> str:
    """``2026-11-23 13:00:00.123`` UTC, milliseconds: what one compares across a story."""
    return datetime.fromtimestamp(us / 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def id_time_us(event_id: str) -> int:
    """The wall time in a UUIDv7 (RFC 9562, 5.7), to the millisecond."""
    return int(event_id.replace("-", "")[:12], 16) * 1000
