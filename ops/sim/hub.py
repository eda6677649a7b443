"""A model of the hub: streams with one sequence each, the last message of every subject kept, expectations, deduplication.

What it promises is what tests/contract shows of nats-server; what it forgets (all but the last few versions of a subject) it
forgets like the server.  The journal is not part of it: it is what the checkers know, everything that was ever stored.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field

from bus import log
from ops.sim.world import S, SimulationError, World
from schemas import codec, event, subjects

HISTORY = 3  # versions kept of each subject
DEDUPE_US = 120 * S  # nats-server's default window


@dataclass(slots=True)
class Stream:
    name: str
    seq: int = 0
    kept: dict[int, log.Recorded] = field(default_factory=dict)
    seqs: list[int] = field(default_factory=list)
    of_subject: dict[str, list[int]] = field(default_factory=dict)
    ids: dict[str, tuple[int, int]] = field(default_factory=dict)  # event id -> (sequence, time)
    journal: list[log.Recorded] = field(default_factory=list)


class Hub:
    """``on_stored`` is told of every message of META, as republishing tells the nodes."""

    def __init__(self, world: World, shards: int) -> None:
        self.world, self.shards = world, shards
        self.epoch = "epoch-1"
        names = ["CLUSTER", *(f"{kind}-{n}" for kind in ("META", "REPORT") for n in range(shards))]
        self.streams = {n: Stream(n) for n in names}
        self.on_stored: Callable[[log.Recorded, event.Event], None] = lambda r, e: None

    def append(self, subject: str, ev: event.Event, expect: log.Expect | None = None) -> int:
        """The sequence; raises WrongSequence.  The server looks at the expectation before the id."""
        s = self.streams[subjects.stream_of(subject)]
        log.check_address(subject, ev)
        if expect is not None:
            last = self._last_under(s, expect.filter or subject)
            if last != expect.seq:
                own = s.of_subject.get(subject)
                if own and s.ids.get(ev.id, (0, 0))[0] == own[-1]:
                    return own[-1]
                raise log.WrongSequence(f"{subject}: at {last}, not at {expect.seq}")
        seen = s.ids.get(ev.id)
        if seen is not None and self.world.now_us - seen[1] <= DEDUPE_US:
            return seen[0]
        s.seq += 1
        s.ids[ev.id] = (s.seq, self.world.now_us)
        record = log.Recorded(s.name, s.seq, subject, self.world.now_us, codec.encode_event(ev))
        s.kept[s.seq] = record
        s.seqs.append(s.seq)
        s.journal.append(record)
        versions = s.of_subject.setdefault(subject, [])
        versions.append(s.seq)
        if len(versions) > HISTORY:
            gone = versions.pop(0)
            del s.kept[gone]
            s.seqs.remove(gone)
        self.world.note("hub", f"{s.name} #{s.seq} {subject} {'x' if ev.data is None else ''}")
        self.on_stored(record, ev)
        return s.seq

    def _last_under(self, s: Stream, filter_: str) -> int:
        if not filter_.endswith(">"):
            return s.of_subject.get(filter_, [0])[-1]
        return max((v[-1] for subject, v in s.of_subject.items() if subject.startswith(filter_[:-1])), default=0)

    def last(self, stream: str, prefix: str = "", after: int = 0, limit: int | None = None) -> log.LastState:
        """The last record of every subject with a sequence above ``after``; with a limit perhaps only the first of them."""
        s = self.streams[stream]
        seqs = sorted(v[-1] for subject, v in s.of_subject.items() if subject.startswith(prefix) and v[-1] > after)
        if limit is not None and len(seqs) > limit:
            part = seqs[:limit]
            return log.LastState([s.kept[n] for n in part], part[-1], True)
        return log.LastState([s.kept[n] for n in seqs], max(s.seq, after), False)

    def after(self, stream: str, seq: int) -> list[log.Recorded]:
        """Everything that is still kept above a sequence, in order."""
        s = self.streams[stream]
        return [s.kept[n] for n in s.seqs[bisect_right(s.seqs, seq) :]]

    def info(self, stream: str) -> log.StreamInfo:
        s = self.streams[stream]
        return log.StreamInfo(stream, self.epoch, 0, s.seqs[0] if s.seqs else 0, s.seq, len(s.kept), 0)

    def check(self) -> None:
        """The model keeps its own promise: the last event of every subject is there (DESIGN.md, invariant 1)."""
        for s in self.streams.values():
            last: dict[str, log.Recorded] = {}
            for r in s.journal:
                last[r.subject] = r
            for subject, r in last.items():
                if s.kept.get(s.of_subject[subject][-1]) != r:
                    raise SimulationError(f"{s.name}: the last event of {subject} (#{r.seq}) is not in the stream")
