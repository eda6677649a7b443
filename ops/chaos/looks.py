"""What is looked at on a field after a fault: whether each node is what the API says, and what was lost, doubled or differs.

Everything is asked from outside and compared with the log itself.  What a look has counted once it does not count again, so
each row answers for itself.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Mapping

from bus import log
from bus.hub import streams
from ops.chaos.field import PROBE, Field
from ops.demo import telemetry
from ops.lab.nodes import QUIET_S, Containers
from ops.lab.show import StepFailed
from ops.lab.world import pod_ready
from schemas import codec, subjects
from schemas.telemetry import Sample

TELEMETRY_S_MAX = 90.0  # the hub's source may wait 40 s before it comes back to a leaf (NATS-FACTS.md)
HISTORY_S_MAX = 60.0  # a mirror that lost its origin's leader looks for it with a back-off of its own
IN_SYNC_S_MAX = 90.0
POLL_S = 0.02
NOT_WANTED, STALE = "the API has", "sees setting"


class Looks:
    def __init__(self, f: Field) -> None:
        self._f, self.lab = f, f.lab
        self._samples: dict[str, tuple[int, int]] = {}  # lost and doubled so far
        self._forget()

    def _forget(self) -> None:
        """Nothing is known of the log: at the start, and after it was made anew from a backup."""
        self._restored = self._f.restored
        self._after: dict[str, int] = {}
        self._report_ids: Counter[str] = Counter()
        self._heads: dict[str, int] = {}
        self._missing: dict[str, int] = {}

    # --- converged

    def apart(self, node: str) -> str:
        """Why a node is not what the API says, "" when it is."""
        status = self.lab.node_status(node)
        if status.get("link") != "up":
            return f"the link is {status.get('link') or 'not told'}"
        replica = status["replica"]
        if not replica["synced"] or replica["scopes"][node]["cursor"] < self.lab.last_of_scope(node):
            return "the replica is behind"
        if status["outbox_pending"]:
            return f"{status['outbox_pending']} reports wait"
        pods = {p["metadata"]["name"]: p for p in self.lab.pods(node)}
        wanted = self._f.wanted(node)
        running = {c.partition("/")[0] for c in self.lab.containers(node)}
        if pods.keys() != wanted:
            return f"{NOT_WANTED} {sorted(pods.keys() ^ wanted)} too many or too few"
        if not all(pod_ready(p) for p in pods.values()):
            return "not every pod is Ready in the API"
        if running != wanted:
            return f"the engine runs {sorted(running ^ wanted)} too many or too few"
        return self._stale_setting(node)

    def _stale_setting(self, node: str) -> str:
        want = str(self._f.facts[node].setting)
        for name, (container, _) in self._f.steady(node).items():
            if name.endswith("/sleep"):
                found = self.lab.docker("exec", container, "cat", "/v/n", check=False).strip()
                if found != want:
                    return f"{name} {STALE} {found}, users want {want}"
        return ""

    def converged(self, node: str, seconds: float) -> None:
        why = "not looked at"

        def look() -> bool:
            nonlocal why
            try:
                why = self.apart(node)
                if why.startswith(NOT_WANTED) or STALE in why:
                    self._f.make_up(node)  # a write that was given up, and came after the next: users look again
            except StepFailed as e:  # the API or the hub is not back yet
                why = str(e)[:200]
            return not why

        try:
            self.lab.until(f"{node} is what the API says", look, seconds=seconds)
        except StepFailed as e:
            raise StepFailed(f"{node} after {seconds:.0f} s: {why}\n{e}") from e

    def until_cursor(self, node: str, seq: int) -> float:
        """Seconds until the replica holds everything up to a sequence of its scope."""
        began = time.monotonic()
        while True:
            with contextlib.suppress(StepFailed):
                status = self.lab.node_status(node)
                if status.get("replica") and status["replica"]["scopes"].get(node, {}).get("cursor", 0) >= seq:
                    return time.monotonic() - began
            if time.monotonic() - began > IN_SYNC_S_MAX:
                raise StepFailed(f"{node} has not what was written meanwhile after {IN_SYNC_S_MAX:.0f} s")
            time.sleep(POLL_S)

    def until_link(self, node: str, want: str) -> float:
        """Seconds until the node says that its link is up or down."""
        began = time.monotonic()
        self.lab.until(f"{node} says that its link is {want}", lambda: self.lab.node_status(node).get("link") == want)
        return time.monotonic() - began

    def untouched(self, before: Mapping[str, Containers]) -> Counter[str]:
        """How many of these containers, by node, run now and go on running for a while, the same as before."""
        out: Counter[str] = Counter()
        first = {n: self._f.steady(n) for n in before}
        time.sleep(QUIET_S)
        for n, were in before.items():
            now = self._f.steady(n)
            out[n] = sum(first[n].get(k) == v == now.get(k) for k, v in were.items())
        return out

    # --- the log

    def divergence(self, node: str) -> int:
        """Objects in which the replica differs from the fold of the log, byte for byte."""
        out = self.lab.skerry("replay", "verify", node, "--hub", str(self.lab.hub), "--data", str(self.lab.node_dir(node)),
                              "--json", "--all", check=False)  # fmt: skip
        return sum(len(s["differences"]) + (not s["equal"]) for s in json.loads(out)["scopes"])

    def samples(self, node: str) -> tuple[int, int]:
        """(lost, doubled) since the last look, of the samples that the node's bus accepted."""
        facts = self._f.facts[node]
        self._f.accepted(node)

        def missing() -> tuple[int, int]:
            found = Counter((s.boot, s.seq) for s in self._at_hub(node))
            lost = sum((m.boot, seq) not in found for m in (*facts.past, facts.mapper) for seq in range(1, m.accepted + 1))
            return lost, sum(n - 1 for n in found.values())

        known = self._samples.get(node, (0, 0))
        with contextlib.suppress(StepFailed):
            self.lab.until("all samples are at the hub", lambda: missing()[0] <= known[0], seconds=TELEMETRY_S_MAX)
        now = self._samples[node] = missing()
        return now[0] - known[0], now[1] - known[1]

    def _at_hub(self, node: str) -> list[Sample]:
        try:
            return telemetry.at_hub(self.lab.hub, node, f"probe-{node}", PROBE)
        except log.LogError as e:
            raise StepFailed(f"the hub can't be read: {e}") from e

    def log_checks(self) -> tuple[int, int, int, list[str]]:
        """(events that the histories lack, reports stored twice or older than the one before, holes in the chains of
        scopes, notes) since the last look.  A hole is what a writer that was deposed would leave."""
        if self._restored != self._f.restored:
            self._forget()
        notes: list[str] = []
        lacking = self._histories(notes)
        doubled = self._reports(notes)
        holes = self._chains(notes)
        return lacking, doubled, holes, notes

    def _histories(self, notes: list[str]) -> int:
        """A mirror keeps its origin's sequence numbers and forgets nothing for a month: it has as many as it counts."""

        async def read(store: log.Log, shards: int) -> dict[str, tuple[int, bool]]:
            out = {}
            for name in (c["name"] for c in streams.wanted(shards)):
                if name.startswith("HISTORY-"):
                    origin, mirror = await store.info(name.removeprefix("HISTORY-")), await store.info(name)
                    out[name] = (mirror.last_seq - mirror.messages, mirror.last_seq >= origin.last_seq)
            return out

        def level() -> dict[str, tuple[int, bool]] | None:
            with contextlib.suppress(log.LogError):
                found = self.lab.ask(read)
                return found if all(there for _, there in found.values()) else None
            return None

        found = self.lab.until("the histories are where their origins are", level, seconds=HISTORY_S_MAX)
        lacking = 0
        for name, (missing, _) in found.items():
            new = missing - self._missing.get(name, 0)
            self._missing[name] = missing
            if new:
                notes.append(f"{name} lacks {new} events of its origin")
            lacking += new
        return lacking

    def _reports(self, notes: list[str]) -> int:
        doubled = stale = 0
        last: dict[str, tuple[str, int]] = {}
        for record in self._new("REPORT"):
            ev = codec.decode_event(record.payload)
            self._report_ids[ev.id] += 1
            doubled += self._report_ids[ev.id] > 1
            boot, mono = last.get(record.subject, ("", 0))
            stale += ev.boot == boot and (ev.mono or 0) < mono
            last[record.subject] = (ev.boot or "", ev.mono or 0)
        if stale:
            notes.append(f"{stale} reports are older than the one before them")
        return doubled + stale

    def _chains(self, notes: list[str]) -> int:
        holes = 0
        for record in self._new("META"):
            _, scope, _ = subjects.parse_meta(record.subject)
            ev = codec.decode_event(record.payload)
            head = self._heads.get(scope)
            if head is not None and ev.prev != head:
                holes += 1
                notes.append(f"{record.stream} #{record.seq}: it follows {ev.prev}, the one before it is {head}")
            self._heads[scope] = record.seq
        return holes

    def _new(self, kind: str) -> list[log.Recorded]:
        """What the histories of a kind of stream have since the last look."""

        async def read(store: log.Log, shards: int) -> list[log.Recorded]:
            out: list[log.Recorded] = []
            for shard in range(shards):
                stream = f"HISTORY-{kind}-{shard}"
                async with contextlib.aclosing(store.follow(stream, after=self._after.get(stream, 0))) as batches:
                    async for batch in batches:
                        out += batch.records
                        if batch.records:
                            self._after[stream] = batch.records[-1].seq
                        if batch.pending == 0:
                            break
            return out

        try:
            return self.lab.ask(read)
        except log.LogError as e:
            raise StepFailed(f"the hub can't be read: {e}") from e
