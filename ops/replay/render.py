"""Text and JSON of what the debugger found.  Pure: lists of lines, no terminal."""

from __future__ import annotations

import base64
import json
from typing import Any

from ops.replay.entries import Entry, format_time
from ops.replay.slices import Held, Verdict
from ops.replay.story import Step, Story


def columns(rows: list[list[str]]) -> list[str]:
    """Left-aligned columns, two spaces between; the last one as long as it is."""
    if not rows:
        return []
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]) - 1)]
    return ["  ".join([*(c.ljust(w) for c, w in zip(r, widths, strict=False)), r[-1]]).rstrip() for r in rows]


def duration(us: int) -> str:
    """``1.234 s``, ``56 ms``, ``0.7 ms``: the unit that one can read."""
    ms = us / 1000
    if abs(ms) >= 10_000:
        return f"{ms / 1000:.1f} s"
    if abs(ms) >= 1000:
        return f"{ms / 1000:.2f} s"
    return f"{ms:.0f} ms" if abs(ms) >= 10 else f"{ms:.1f} ms"


def log_lines(entries: list[Entry]) -> list[str]:
    rows = [["TIME (UTC)", "WHERE", "TYPE", "OBJECT", "BY", "ID"]]
    for e in entries:
        where = f"{e.stream} #{e.seq}"
        if e.event is None:
            rows.append([format_time(e.stored_us), where, "unreadable", e.subject[:80], "", e.error])
            continue
        ev = e.event
        scope = f"{ev.scope}: " if ev.scope else ""
        rows.append([format_time(e.stored_us), where, ev.type, f"{scope}{ev.key}", ev.actor or ev.source, ev.id])
    return columns(rows)


def entry_json(e: Entry) -> dict[str, Any]:
    out: dict[str, Any] = {"stream": e.stream, "seq": e.seq, "subject": e.subject, "stored_us": e.stored_us}
    return out | ({"error": e.error} if e.event is None else {"event": e.event.model_dump(exclude_defaults=True)})


def story_lines(story: Story, title: str) -> list[str]:
    if not story.steps:
        return [f"nothing of trace {story.trace} is in the log"]
    head = f"{title}: {len(story.steps)} steps in {duration(story.duration_us)}, trace {story.trace}"
    rows = [["TIME (UTC)", "START", "CAUSE", "STEP", "WHAT", "WHERE", "BY"]]
    for s in story.steps:
        since_cause = "" if s.after_us is None else f"+{duration(s.after_us)}"
        rows.append(
            [format_time(s.time_us), f"+{duration(s.time_us - story.start_us)}", since_cause, s.what, s.about, s.where, s.by]
        )
    tail = [f"not in the log (any more): cause {c}" for c in story.missing]
    return [head, "", *columns(rows), *tail]


def step_json(s: Step) -> dict[str, Any]:
    ev = s.entry.event if s.entry is not None else None
    return {
        "time_us": s.time_us,
        "step": s.what,
        "about": s.about,
        "by": s.by,
        "where": s.where,
        "after_cause_us": s.after_us,
        "id": ev.id if ev else None,
        "cause": ev.cause if ev else None,
    }


def story_json(story: Story) -> dict[str, Any]:
    return {"trace": story.trace, "missing": story.missing, "steps": [step_json(s) for s in story.steps]}


def slice_lines(held: list[Held]) -> list[str]:
    rows = [["OBJECT", "SEQ", "REV", "SINCE (UTC)", "BECAUSE OF"]]
    for h in held:
        if h.event is None:
            rows.append([h.key, str(h.seq), "?", "?", "a version from the future: kept, not applied"])
        else:
            rows.append([h.key, str(h.seq), str(h.event.rev), format_time(h.event.time), h.event.cause or ""])
    return columns(rows)


def held_json(h: Held) -> dict[str, Any]:
    return {"object": h.key, "seq": h.seq, "event": h.event.model_dump(exclude_defaults=True) if h.event else None}


def verdict_lines(node: str, verdicts: list[Verdict], differences_max: int) -> list[str]:
    out = []
    for v in verdicts:
        out.append(f"scope {v.scope} at #{v.cursor}: {v.objects} objects, log {v.expected[:16]}, replica {v.found[:16]}")
        out += [f"  refused by every replica: {r}" for r in v.refused[:differences_max]]
        out += [f"  {d.key}: {d.why}" for d in v.differences[:differences_max]]
        if len(v.differences) > differences_max:
            out.append(f"  ... and {len(v.differences) - differences_max} more (--all)")
    total = sum(v.objects for v in verdicts)
    if all(v.equal for v in verdicts):
        out.append(f"equal: the replica of {node} is the fold of the log, {total} objects, byte for byte")
    else:
        out.append(f"DIFFERENT: the replica of {node} is not the fold of the log")
    return out


def verdict_json(v: Verdict) -> dict[str, Any]:
    return {
        "scope": v.scope,
        "cursor": v.cursor,
        "objects": v.objects,
        "equal": v.equal,
        "log_hash": v.expected,
        "replica_hash": v.found,
        "differences": [{"object": d.key, "why": d.why} for d in v.differences],
        "refused": v.refused,
    }


def dumps(value: Any) -> str:
    """JSON on one line; bytes as base64, since JSON has none."""
    return json.dumps(value, ensure_ascii=False, default=lambda b: base64.b64encode(b).decode())
