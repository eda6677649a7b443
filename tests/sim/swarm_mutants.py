"""Broken variants of what is simulated.  Each must be caught by a checker: that is how we know that checkers can fail."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bus import fold, log, outbox, replica_core, replica_write
from bus.stores import base
from cloud.core.dispatcher import Dispatcher
from cloud.core.stimuli import ScopeReloaded
from ops.sim.swarm.edge import Parts


class IgnoresTheChain(replica_core.ReplicaCore):
    """Applies whatever comes live, as if nothing could be missing before it."""

    def _take(self, s, lives):
        out = []
        for live in lives:
            if live.seq > s.cursor.seq:
                fact = fold.fact_of(live.scope, live.key, live.seq, live.payload)
                s.cursor = fold.Cursor(s.cursor.epoch, live.seq)
                out.append(replica_core.Apply(s.name, [fact], s.cursor))
        return out


class TakesTheFirstPageForAll(replica_core.ReplicaCore):
    """Doesn't ask for the rest of a reset that has more pages."""

    def _page(self, s, page):
        return super()._page(s, page.model_copy(update={"more": False}))


class KeepsItsCursorAcrossEpochs(replica_core.ReplicaCore):
    """Applies a page that says "reset" as if it went on from the cursor."""

    def _page(self, s, page):
        s.cursor = fold.Cursor(page.epoch, s.cursor.seq)
        return super()._page(s, page.model_copy(update={"reset": False}))


def cursor_first(store: base.Store, group: list[replica_core.Instruction]) -> list[replica_write.Applied]:
    """Moves the cursor in a transaction of its own, and applies afterwards."""
    with store.transact() as txn:
        for i in group:
            if isinstance(i, replica_core.Apply):
                txn.put("cursors", i.scope.encode(), i.cursor.to_bytes())
    with store.transact() as txn:
        return [a for i in group for a in replica_write.write(txn, i)]


def forgets_tombstones(store: base.Store, group: list[replica_core.Instruction]) -> list[replica_write.Applied]:
    with store.transact() as txn:
        kept = [
            replica_core.Apply(i.scope, [f for f in i.facts if not f.deleted], i.cursor)
            if isinstance(i, replica_core.Apply)
            else i
            for i in group
        ]
        return [a for i in kept for a in replica_write.write(txn, i)]


class NeverWithdraws(Dispatcher):
    """Once needed, for ever needed."""

    def _need_no_more(self, scope, key, cause):
        pass


class DecidesOnAnOldView(Dispatcher):
    """After a conflict it writes at once, without reading CLUSTER as far as it had grown."""

    def handle(self, stimulus):
        return super().handle(replace(stimulus, cluster_seq=0) if isinstance(stimulus, ScopeReloaded) else stimulus)


class LooksAwayAfterLoading(Dispatcher):
    """Doesn't notice what another wrote; this was so once, and the simulation found it."""

    def _notice(self, scope):
        pass


class TellsSyncedOnce(replica_core.ReplicaCore):
    """Doesn't say again that it is synced when the store failed meanwhile; this was so once, and the simulation found it."""

    def handle(self, stimulus):
        told = self._told_synced
        out = super().handle(stimulus)
        if isinstance(stimulus, replica_core.Lost):
            self._told_synced = told
        return out


class RemovesBeforeTheAck(outbox.Outbox):
    """Sends and forgets."""

    async def _send(self, appender, n, subject):
        value = self._store.get("outbox", outbox._key(n))
        with self._store.transact() as txn:
            txn.delete("outbox", outbox._key(n))
        self._subjects.pop(n, None)
        try:
            _, msg_id, payload = outbox.msgpack.unpackb(value)
            await appender.append_bytes(subject, payload, msg_id)
        except log.LogError:
            pass
        finally:
            self._flying.pop(n, None)
            self._busy.discard(subject)


class SendsAllAtOnce(outbox.Outbox):
    """Doesn't wait for the report before it of the same subject."""

    async def _send(self, appender, n, subject):
        self._busy.discard(subject)
        await super()._send(appender, n, subject)


@dataclass(frozen=True)
class Mutant:
    parts: Parts
    kinds: frozenset[str]  # of faults that wake it up
    rules: tuple[str, ...]  # one of these must catch it
    seeds: int = 12  # within so many


MUTANTS = {
    "ignores the chain": Mutant(Parts(replica=IgnoresTheChain), frozenset({"loss", "delay"}), ("replica",)),
    "takes the first page for all": Mutant(
        Parts(replica=TakesTheFirstPageForAll), frozenset({"disk-lost"}), ("replica", "comes right")
    ),
    "keeps its cursor across epochs": Mutant(
        Parts(replica=KeepsItsCursorAcrossEpochs), frozenset({"restore"}), ("replica",)
    ),
    "moves the cursor first": Mutant(Parts(write=cursor_first), frozenset({"edge-crash"}), ("replica",)),
    "forgets tombstones": Mutant(Parts(write=forgets_tombstones), frozenset(), ("replica",)),
    "tells synced once": Mutant(
        Parts(replica=TellsSyncedOnce), frozenset({"disk-full", "disk-lost"}), ("comes right",), seeds=60
    ),
    "never withdraws": Mutant(Parts(dispatcher=NeverWithdraws), frozenset(), ("comes right",)),
    "writes without a fence": Mutant(Parts(fenced=False), frozenset({"race", "delay"}), ("chain", "fencing")),
    "decides on an old view": Mutant(Parts(dispatcher=DecidesOnAnOldView), frozenset({"race", "lag"}), ("fencing",)),
    "looks away after loading": Mutant(
        Parts(dispatcher=LooksAwayAfterLoading), frozenset({"failover"}), ("comes right",), seeds=60
    ),
    "removes before the ack": Mutant(Parts(outbox=RemovesBeforeTheAck), frozenset({"cut"}), ("report",)),
    "sends all at once": Mutant(Parts(outbox=SendsAllAtOnce), frozenset({"delay"}), ("report order",)),
}
