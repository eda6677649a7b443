"""The causal chain of one change over every hop, from events that name their cause.  Pure.

Times are wall times of whoever did the step, so a node with a wrong clock could seem to act before it was told.  The order
never says so: a step is shown after what caused it, whatever its clock said, and the stated time is printed as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from ops.replay.entries import REPORT_RESOURCES, Entry, Target
from schemas.event import REPORT, Event

HOPS = "hops"


@dataclass(frozen=True, slots=True)
class Step:
    """``time_us`` as stated by the doer; ``order_us`` not before its cause's; ``after_us`` is the time since the cause."""

    time_us: int
    order_us: int
    what: str
    about: str
    by: str
    where: str
    after_us: int | None = None
    entry: Entry | None = None


@dataclass(frozen=True, slots=True)
class Story:
    """``missing`` are causes that are named but not in the log any more (or not yet)."""

    trace: str
    steps: list[Step]
    missing: list[str] = field(default_factory=list)

    @property
    def start_us(self) -> int:
        return self.steps[0].time_us if self.steps else 0

    @property
    def duration_us(self) -> int:
        return max((s.time_us for s in self.steps), default=0) - self.start_us


def latest_trace(entries: Sequence[Entry], target: Target) -> str | None:
    """The trace of the last change of an object that somebody wanted; status written for reports is not a change."""
    latest: str | None = None
    fallback: str | None = None
    for e in sorted(entries, key=lambda e: e.stored_us):
        if e.event is None or not e.stream.startswith("CLUSTER") or not target.matches(e.event):
            continue
        fallback = e.event.trace
        if "report" not in f"{e.event.source} {e.event.actor}":
            latest = e.event.trace
    return latest or fallback


def chain_of(entries: Sequence[Entry], trace: str, target: Target | None = None) -> list[Entry]:
    """The entries of a trace; with a target only its own events, what led to them and what followed from them."""
    in_trace = [e for e in entries if e.event is not None and e.event.trace == trace]
    if target is None:
        return in_trace
    by_id = {_ev(e).id: e for e in in_trace}
    effects: dict[str, list[str]] = {}
    for e in in_trace:
        if cause := _ev(e).cause:
            effects.setdefault(cause, []).append(_ev(e).id)
    own = {_ev(e).id for e in in_trace if target.matches(_ev(e))}
    keep = own | _reach(own, lambda i: effects.get(i, []))
    keep |= _reach(own, lambda i: [c] if (c := _ev(by_id[i]).cause) in by_id and c is not None else [])
    return [e for e in in_trace if _ev(e).id in keep]


def _reach(start: Iterable[str], following: Callable[[str], Iterable[str]]) -> set[str]:
    found: set[str] = set()
    todo = list(start)
    while todo:
        for i in following(todo.pop()):
            if i not in found:
                found.add(i)
                todo.append(i)
    return found


def _ev(entry: Entry) -> Event:
    assert entry.event is not None
    return entry.event


def build(trace: str, chain: Sequence[Entry]) -> Story:
    """A story of entries that all have an event; each event once, whatever streams it was read from."""
    unique: dict[tuple[str, str], Entry] = {}
    for e in chain:
        unique.setdefault((_ev(e).id, e.subject), e)
    entries = sorted(unique.values(), key=lambda e: e.stored_us)
    by_id = {_ev(e).id: e for e in entries}
    order: dict[str, int] = {}
    steps: list[Step] = []
    seen_hops: set[tuple[str, str, int, str]] = set()
    seen_objects: set[tuple[str, str]] = set()
    for e in _causes_first(entries, by_id):
        ev = _ev(e)
        cause = by_id.get(ev.cause or "")
        after_cause = order.get(ev.cause or "", 0)
        at = max(ev.time, after_cause)
        for hop in _hops(ev):
            key = (ev.scope, hop[0], hop[1], hop[2])
            if key not in seen_hops:
                seen_hops.add(key)
                steps.append(Step(hop[1], max(hop[1], after_cause), hop[0], hop[2], "", ev.scope, _since(hop[1], cause)))
            at = max(at, hop[1])
        order[ev.id] = at
        what, about = _say(e, cause, (e.subject, ev.uid) in seen_objects)
        seen_objects.add((e.subject, ev.uid))
        steps.append(Step(ev.time, at, what, about, ev.actor or ev.source, _where(e), _since(ev.time, cause), e))
    steps.sort(key=lambda s: s.order_us)  # stable: a cause stays before its effect of the same microsecond
    missing = sorted({c for e in entries if (c := _ev(e).cause) and c not in by_id})
    return Story(trace, steps, missing)


def _since(time_us: int, cause: Entry | None) -> int | None:
    return None if cause is None else time_us - _ev(cause).time


def _causes_first(entries: Sequence[Entry], by_id: dict[str, Entry]) -> list[Entry]:
    """In order of storing, but never before the cause; a loop of causes (nobody writes one) is cut where it is entered."""
    out: list[Entry] = []
    done: set[int] = set()
    for entry in entries:
        line: list[Entry] = []
        current: Entry | None = entry
        while current is not None and id(current) not in done:
            done.add(id(current))
            line.append(current)
            current = by_id.get(_ev(current).cause or "")
        out.extend(reversed(line))
    return out


def _hops(ev: Event) -> list[tuple[str, int, str]]:
    """(what, time, about) of what the node did on the way; whatever is not of that shape is not a hop."""
    found = (ev.data or {}).get(HOPS) if ev.type == REPORT else None
    if not isinstance(found, list):
        return []
    return [
        (h["what"], h["time"], str(h.get("about", "")))
        for h in found
        if isinstance(h, dict) and isinstance(h.get("what"), str) and isinstance(h.get("time"), int)
    ]


def _where(e: Entry) -> str:
    return f"{e.stream} #{e.seq}"


def _say(e: Entry, cause: Entry | None, again: bool) -> tuple[str, str]:
    """(step, about) in the words of the design: api, controller, dispatch, report, status."""
    ev = _ev(e)
    verb = "deleted" if ev.deleted else ("changed" if again else "applied")
    room = e.stream.partition("-")[0]
    if room == "META":
        return "dispatch", f"{ev.key} {'withdrawn from' if ev.deleted else 'to'} {ev.scope}"
    if room == "REPORT":
        phase = (
            ((ev.data or {}).get("status") or {}).get("phase", "")
            if ev.resource == "pod"
            else (ev.data or {}).get("state", "")
        )
        kind = REPORT_RESOURCES.get(ev.resource, ev.resource)
        about = f"{kind} {ev.namespace}/{ev.name}" if ev.name and ev.namespace else kind
        return "report", f"{about}{' ' + str(phase) if phase else ''} from {ev.scope}"
    if room == "CLUSTER":
        if cause is not None and _ev(cause).type == REPORT:
            return "status", f"{ev.key} {verb} in the API"
        if ev.cause is not None:
            return "controller", f"{ev.key} {verb}"
        return "api", f"{ev.key} {verb}"
    return ev.type, str(ev.key)
