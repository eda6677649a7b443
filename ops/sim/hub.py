"""The hub's log as a model: streams with sequences, expectations, a window of deduplication, an epoch, backups.

Rules measured on nats-server 2.15 (NATS-FACTS and bus/log.py): an expectation is looked at before the id of a repeated
message; ids are remembered for a window only; a stream keeps the last versions of each subject.  A backup takes one stream
after the other (bus/hub/backup.py): between them time passes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from bus import log
from bus.hub import compact as compacting
from bus.hub import streams
from ops.sim.schedule import MS, Clock, S, Schedule
from schemas import event, subjects

DEDUPE_US = 120 * S  # nats-server's default duplicate_window
COMPACT_SETTLE_US = 20 * S  # far below production's, but longer than a page takes
LEASES = "LEASES"
COMPACT_AGE_US = 150 * S  # in true time; longer than a worker is paused or behind
VERSIONS_MAX = streams.VERSIONS_DEFAULT  # of each subject: holes, which readers must bear


class Kept(log.Recorded):
    """Decoded once for all who read it: nobody may change what is shared, so one reader can't tell."""

    def event(self) -> event.Event:
        known: event.Event | None = self.__dict__.get("known")
        if known is None:
            known = self.__dict__["known"] = super().event()
        return known


@dataclass(slots=True)
class Stream:
    name: str
    epoch: str
    last_seq: int = 0
    horizon: int = 0
    records: dict[int, log.Recorded] = field(default_factory=dict)  # what is kept, in stream order
    of_subject: dict[str, list[int]] = field(default_factory=dict)
    of_scope: dict[str, int] = field(default_factory=dict)  # META: last sequence under each scope's filter
    ids: dict[str, tuple[int, int]] = field(default_factory=dict)  # message id -> (time, sequence)
    history: list[log.Recorded] = field(default_factory=list)  # everything of this epoch: for checkers only

    def copy(self, epoch: str) -> Stream:
        """A backup, as it is after being restored: ids are not part of it."""
        return Stream(
            self.name,
            epoch,
            self.last_seq,
            self.horizon,
            dict(self.records),
            {k: list(v) for k, v in self.of_subject.items()},
            dict(self.of_scope),
            {},
            list(self.history),
        )


class Hub:
    """``on_append(record)`` is told of every stored message, for republishing, followers and checkers."""

    def __init__(self, schedule: Schedule, shards: int) -> None:
        self._schedule = schedule
        self.shards = shards
        self.clock = Clock(schedule)
        self.up = True
        self.epoch = "e1"
        names = ["CLUSTER", *(f"META-{n}" for n in range(shards)), *(f"REPORT-{n}" for n in range(shards)), LEASES]
        names += ["IDENTITY", "AUDIT"]
        self.streams = {n: Stream(n, self.epoch) for n in names}
        self.past: list[dict[str, Stream]] = []  # streams of ended epochs, for checkers
        self.on_append: list[Callable[[log.Recorded], None]] = []
        self.on_restore: list[Callable[[], None]] = []
        self.waiting: dict[str, list[Callable[[], object]]] = {n: [] for n in names}  # told once of the next message
        self._making: dict[str, Stream] = {}
        self._backup: dict[str, Stream] | None = None
        self.restored_us = 0

    @property
    def true_us(self) -> int:
        """The time that no machine is told; for checkers."""
        return self._schedule.now_us

    # --- writing

    def append(self, subject: str, payload: bytes, msg_id: str, expect: log.Expect | None = None, epoch: str = "") -> int:
        """As ``Log.append_bytes``; raises WrongSequence."""
        stream = self.streams[subjects.stream_of(subject)]
        if expect is not None and expect.seq != self._last_under(stream, expect.filter or subject):
            last = self.last_of(subject)
            if last is not None and (last.headers or {})["Nats-Msg-Id"] == msg_id:
                return last.seq  # what Log.append_bytes finds out when its own write was not acknowledged
            raise log.WrongSequence(f"{subject}: last is not {expect.seq}")
        known = stream.ids.get(msg_id)
        if known is not None and self._schedule.now_us - known[0] <= DEDUPE_US:
            return known[1]
        stream.last_seq += 1
        seq = stream.last_seq
        headers = {"Nats-Msg-Id": msg_id} | ({log.EPOCH_HEADER: epoch} if epoch else {})
        record = Kept(stream.name, seq, subject, self.clock.now_us, payload, headers)
        stream.records[seq] = record
        stream.history.append(record)
        stream.ids[msg_id] = (self._schedule.now_us, seq)
        versions = stream.of_subject.setdefault(subject, [])
        versions.append(seq)
        if len(versions) > (1 if stream.name == LEASES else VERSIONS_MAX):
            del stream.records[versions.pop(0)]
        if subject.startswith("meta."):
            stream.of_scope[_scope_filter(subject)] = seq
        self._schedule.note(f"log {stream.name} #{seq} {subject} {msg_id[-12:]} {len(payload)}")
        for tell in self.on_append:
            tell(record)
        waiting, self.waiting[stream.name] = self.waiting[stream.name], []
        for poke in waiting:
            poke()
        return seq

    def append_run(self, subject: str, run: Sequence[tuple[bytes, str]]) -> None:
        """As ``Log.append_run``: all of them, or none when an id is known; raises RunRefused."""
        stream = self.streams[subjects.stream_of(subject)]
        for _, msg_id in run:
            known = stream.ids.get(msg_id)
            if known is not None and self._schedule.now_us - known[0] <= DEDUPE_US:
                raise log.RunRefused(f"{subject}: {msg_id} is there already")
        for payload, msg_id in run:
            self.append(subject, payload, msg_id)

    @staticmethod
    def _last_under(stream: Stream, filter_: str) -> int:
        if filter_.endswith(".>"):
            return stream.of_scope.get(filter_, 0)
        versions = stream.of_subject.get(filter_)
        return versions[-1] if versions else 0

    # --- reading

    def last_of(self, subject: str) -> log.Recorded | None:
        stream = self.streams[subjects.stream_of(subject)]
        versions = stream.of_subject.get(subject)
        return stream.records[versions[-1]] if versions else None

    def lasts(self, name: str, filter_: str = ">", after: int = 0) -> list[log.Recorded]:
        """The last record of every subject under a filter that ends in ``>``, in stream order."""
        stream, prefix = self.streams[name], filter_[:-1]
        seqs = sorted(v[-1] for s, v in stream.of_subject.items() if v[-1] > after and s.startswith(prefix))
        return [stream.records[seq] for seq in seqs]

    def last(self, name: str, filter_: str, *, after: int, bytes_max: int, history: bool = False) -> log.LastState:
        """As ``Log.last``: state, or above its limits a page of history (``history``)."""
        stream, prefix = self.streams[name], filter_[:-1]
        if history:
            found = [r for r in stream.records.values() if r.seq > after and r.subject.startswith(prefix)]
        else:
            found = self.lasts(name, filter_, after)
        size = 0
        for keep, r in enumerate(found):
            size += len(r.payload)
            if keep and size > bytes_max:
                return log.LastState(found[:keep], found[keep - 1].seq, True)
        return log.LastState(found, max(stream.last_seq, after))

    def read(self, name: str, after: int, count: int) -> tuple[list[log.Recorded], int]:
        """As a consumer reads: what is kept above ``after``, and how far that goes."""
        stream = self.streams[name]
        found = [r for seq, r in stream.records.items() if seq > after][:count]
        return found, found[-1].seq if len(found) == count else stream.last_seq

    def info(self, name: str) -> log.StreamInfo:
        s = self.streams[name]
        return log.StreamInfo(name, s.epoch, s.horizon, 1, s.last_seq, len(s.records), 0)

    # --- compaction

    def compact(self) -> None:
        """As bus/hub/compact.py: what is over for some minutes leaves the log, in its two steps."""
        before_us = self._schedule.now_us - COMPACT_AGE_US
        pods = compacting.pods_of(r.event() for r in self.lasts("CLUSTER"))
        found: list[log.Recorded] = []
        for name, stream in self.streams.items():
            if name in (LEASES, "IDENTITY", "AUDIT"):
                continue
            lasts = [(r, r.event()) for r in self.lasts(name)]
            if name.startswith("META-"):
                lasts = compacting.not_heads(lasts)
            for r, ev in lasts:
                if compacting.over(ev, pods) and stream.ids.get((r.headers or {})["Nats-Msg-Id"], (0, 0))[0] <= before_us:
                    found.append(r)
        self._horizons(found, 0)
        for r in found:
            self._purge(r, r.seq)
        self._schedule.note("hub compacting")
        epoch = self.epoch
        self._schedule.after(COMPACT_SETTLE_US, lambda: self._compacted(found, epoch))

    def _compacted(self, found: list[log.Recorded], epoch: str) -> None:
        if epoch != self.epoch:
            return  # the hub was restored meanwhile: the operator's command failed
        self._horizons(found, 1)
        for r in found:
            self._purge(r, r.seq + 1)
        self._schedule.note("hub compacted")

    def _horizons(self, found: list[log.Recorded], more: int) -> None:
        for r in found:
            if r.stream.startswith("META-"):
                self.streams[r.stream].horizon = max(self.streams[r.stream].horizon, r.seq + more)

    def _purge(self, record: log.Recorded, below: int) -> None:
        stream = self.streams[record.stream]
        versions = stream.of_subject.get(record.subject, [])
        for seq in [v for v in versions if v < below]:
            versions.remove(seq)
            del stream.records[seq]
        if not versions:
            stream.of_subject.pop(record.subject, None)

    # --- backups

    def backup(self, pauses_us: list[int]) -> None:
        """One stream after the other, a pause before each; ``pauses_us`` may be shorter than the list of streams.  Leases
        are no part of it."""
        making: dict[str, Stream] = {}
        self._making = making
        at_us = 0
        for n, name in enumerate(n for n in self.streams if n != LEASES):
            at_us += pauses_us[n] if n < len(pauses_us) else MS
            self._schedule.after(at_us, partial(self._take, making, name))

    def _take(self, making: dict[str, Stream], name: str) -> None:
        if making is not self._making:
            return  # the hub was restored meanwhile, or another backup begun
        making[name] = self.streams[name].copy(self.epoch)
        if len(making) == len(self.streams) - 1:
            self._backup = making
            self._schedule.note("hub backup")

    @property
    def has_backup(self) -> bool:
        return self._backup is not None

    def restore(self) -> None:
        """All streams as they were at the backup, in a new epoch."""
        assert self._backup is not None
        self._making = {}
        self.past.append(self.streams)
        self.epoch = f"e{len(self.past) + 1}"
        self.streams = {n: s.copy(self.epoch) for n, s in self._backup.items()} | {LEASES: Stream(LEASES, self.epoch)}
        self.restored_us = self._schedule.now_us
        self._schedule.note(f"hub restored as {self.epoch}")
        for tell in self.on_restore:
            tell()


def _scope_filter(subject: str) -> str:
    return ".".join(subject.split(".")[:3]) + ".>"
