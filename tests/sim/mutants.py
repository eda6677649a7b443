"""Broken variants of what is simulated.  Each must be caught by a checker: that is how we know that checkers can fail."""

from __future__ import annotations

import unittest.mock
from collections.abc import Callable
from dataclasses import dataclass, replace

from bus import fold, log, outbox, replica_core, replica_write
from bus.hub import compact as compacting
from bus.identity import accounts
from bus.kube.storage import Unavailable
from bus.stores import base
from cloud.admitting import Admitting, Refused
from cloud.core import leases
from cloud.core.dispatcher import Dispatcher
from cloud.core.report_words import Reported
from cloud.core.reports import Reports
from cloud.core.stimuli import ScopeReloaded
from cloud.standalone.attending import Attending
from cloud.standalone.controllers import autonomy, garbage, node_lifecycle, replicaset
from cloud.standalone.controllers.base import Controller, Plan
from cloud.standalone.turns import Turns
from edge.core.pods import PodsCore
from edge.core.stimuli import EffectDone, ReportAll
from ops.sim import controlling, gate, leading
from ops.sim.api import WorkersStorage
from ops.sim.edge import Parts
from ops.sim.hub import Hub
from schemas import identity, subjects


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


class SendsARunInAnyOrder(outbox.Outbox):
    """The log takes all or none of what goes at once, but in the order in which it is sent."""

    def _run_from(self, n, subject):
        return super()._run_from(n, subject)[::-1]


class SendsAllAtOnce(outbox.Outbox):
    """Doesn't wait for the report before it of the same subject."""

    async def _send(self, appender, n, subject):
        self._busy.discard(subject)
        await super()._send(appender, n, subject)


class ForgetsWhatIsHeld(outbox.Outbox):
    """A full disk is a reason to be silent."""

    def hold(self, subject, ev):
        pass


class SendsPastTheUnremovable(outbox.Outbox):
    """Sends the next report of a subject while the one before is acknowledged but still on the disk; this was so once."""

    def may_send(self, n, subject):
        return n not in self._flying and subject not in self._busy


def tells_pages_at_once(store: base.Store, group: list[replica_core.Instruction]) -> list[replica_write.Applied]:
    """Whoever lives from the replica hears of a page before its catch-up is complete."""
    with store.transact() as txn:
        told = []
        for i in group:
            told += replica_write.write(txn, i)
            if isinstance(i, replica_core.Stage):
                told += [replica_write.Applied(f, True) for f in i.facts]
        return told


class GivesUp(replica_core.ReplicaCore):
    """A question without an answer isn't asked again."""

    def handle(self, stimulus):
        if isinstance(stimulus, replica_core.Failed | replica_core.Refresh):
            return []
        return super().handle(stimulus)


class OverwritesOthers(WorkersStorage):
    """An API server that writes whatever the log has."""

    async def _append(self, subject, payload, msg_id, expect):
        return await self._log.append_bytes(subject, payload, msg_id)


class TakesSilenceForYes(WorkersStorage):
    """An API server that acknowledges what it only sent."""

    async def _append(self, subject, payload, msg_id, expect):
        try:
            return await super()._append(subject, payload, msg_id, expect)
        except Unavailable:
            return self.revision() + 1

    async def _folded(self, seq):
        pass


class SeesNoContainers(PodsCore):
    """A daemon that doesn't look at what runs already."""

    def handle(self, stimulus):
        if isinstance(stimulus, EffectDone) and stimulus.listing:
            stimulus = replace(stimulus, listing=())
        return super().handle(stimulus)


class ForgetsOldTombstones(Hub):
    """Tombstones with a time to live: NATS-style limits on a stream of state."""

    def append(self, subject, payload, msg_id, expect=None, epoch=""):
        seq = super().append(subject, payload, msg_id, expect, epoch)
        stream = self.streams[subjects.stream_of(subject)]
        if stream.name.startswith("META-") and b"object.deleted" in payload:
            self._schedule.after(5_000_000, lambda: self._expire(stream, subject, seq))
        return seq

    def _expire(self, stream, subject, seq):
        if stream.of_subject.get(subject, [0])[-1] == seq:
            stream.records.pop(seq, None)
            stream.of_subject[subject].pop()
            if not stream.of_subject[subject]:
                del stream.of_subject[subject]


class CompactsWithoutAHorizon(Hub):
    """Takes tombstones out, and nobody can tell that he missed them."""

    def _horizons(self, found, more):
        pass


def until_its_own_second(old, now_s, *, forget, add=(), remove=()):
    """A revocation counts for JWTs that were issued before it; this was so once."""
    new = accounts.changed(old, now_s, forget=forget, add=add, remove=remove)
    return {k: min(t, now_s) for k, t in new.items()}


class UsesTokensTwice(Admitting):
    """Looks whether a token was used, and doesn't tell the log what it saw."""

    async def _use(self, token_id, token, state, request):
        used = state.model_copy(update={"used_by": request.node, "used_key": request.public_key})
        ev = self._event(identity.TOKEN_USED, "tokens", token_id, used, f"node:{request.node}", token.event)
        await self._log.append(subjects.identity_token(token_id), ev)


class RenewsWhoeverWasANode(Admitting):
    """Gives a JWT to every key that a node ever had."""

    async def _renewed(self, node, key):
        last = await self._last("IDENTITY", subjects.identity_node(node))
        if last.event is None:
            raise Refused("not known")
        return identity.NodeState.model_validate(last.event.data).model_copy(update={"public_key": key})


def _controllers(**made: Controller) -> controlling.Made:
    return controlling.Made(controllers=lambda: {**controlling.controllers(), **made}, always=True)


def _patched(controller: Controller, reconcile: Callable[..., Plan]) -> Controller:
    return replace(controller, reconcile=lambda *args: reconcile(controller.reconcile, *args))


def keeps_the_surplus(reconcile, view, key, now_us):
    """A ReplicaSet that has too many pods is content."""
    plan = reconcile(view, key, now_us)
    return replace(plan, writes=[w for w in plan.writes if w.verb != "delete"])


def ends_every_autonomy(reconcile, view, key, now_us):
    """Every node that is cut off counts as one whose autonomy ended at once."""
    with unittest.mock.patch.object(autonomy, "of", return_value=0):
        return reconcile(view, key, now_us)


def forgets_the_orphans(reconcile, view, key, now_us):
    """What belonged to something that is gone stays."""
    return Plan()


class ForgetsWhoAskedMeanwhile(Turns):
    """A key that is asked for while it is being looked at has no other turn."""

    def done(self, key):
        self._wanted.discard(key)
        return super().done(key)


class ListsWithoutLooking(Attending):
    """After a start it waits for changes, and what changed before nobody looks at."""

    def listed(self, kind, listed):
        self._view.replace(kind, listed)


class TakesPodsElsewhere(WorkersStorage):
    """An API that lets a pod that has a node be bound to another."""

    async def replace(self, key, obj, expect, origin):
        node = (obj.get("spec") or {}).get("nodeName", "")
        if key.resource == "pods" and node.startswith("edge-") and "readinessGates" not in obj["spec"]:
            obj = {**obj, "spec": {**obj["spec"], "nodeName": "edge-1" if node != "edge-1" else "edge-2"}}
        return await super().replace(key, obj, expect, origin)


class CompactsTheHeads(Hub):
    """Takes out the last event of a scope, to which the next one would be chained."""

    def compact(self):
        with unittest.mock.patch.object(compacting, "not_heads", list):
            super().compact()


class HearsNoDevices(Reports):
    def handle(self, stimulus):
        if isinstance(stimulus, Reported) and stimulus.event.resource == "twin":
            return []
        return super().handle(stimulus)


class NeverSaysAgain(PodsCore):
    """What was said once counts as said, whatever became of the log."""

    def handle(self, stimulus):
        return [] if isinstance(stimulus, ReportAll) else super().handle(stimulus)


class LeadsUntilRefused(leases.Lease):
    """Its term has no end of its own: only the log's refusal of a renewal ends it, and a cut link brings none."""

    def _expire(self, now_us):
        return []

    def leads(self, now_us):
        return self._until_us is not None


class TakesWhatItSees(leases.Lease):
    """Doesn't wait until another's lease is over."""

    def handle(self, stimulus):
        return super().handle(replace(stimulus, holder="") if isinstance(stimulus, leases.Seen) else stimulus)


def _lease(kind: type[leases.Lease]) -> leading.MakeLease:
    return lambda me: kind(me, ttl_us=leading.TTL_US, renew_us=leading.RENEW_US, look_us=leading.LOOK_US)


@dataclass(frozen=True)
class Mutant:
    parts: Parts
    kinds: frozenset[str]  # of faults that wake it up
    rules: tuple[str, ...]  # one of these must catch it
    seeds: int = 12  # within so many
    first: int = 1  # where to begin: some take a rare meeting of faults, and CI hasn't all night


MUTANTS = {
    "ignores the chain": Mutant(Parts(replica=IgnoresTheChain), frozenset({"loss", "delay"}), ("replica",)),
    "takes the first page for all": Mutant(
        Parts(replica=TakesTheFirstPageForAll), frozenset({"disk-lost"}), ("replica", "observer", "comes right")
    ),
    "keeps its cursor across epochs": Mutant(
        Parts(replica=KeepsItsCursorAcrossEpochs), frozenset({"restore"}), ("replica",)
    ),
    "moves the cursor first": Mutant(Parts(write=cursor_first), frozenset({"edge-crash"}), ("replica",)),
    "forgets tombstones": Mutant(Parts(write=forgets_tombstones), frozenset(), ("replica",)),
    "tells synced once": Mutant(
        Parts(replica=TellsSyncedOnce), frozenset({"disk-full", "disk-lost"}), ("comes right",), seeds=12, first=335
    ),
    "never withdraws": Mutant(Parts(dispatcher=NeverWithdraws), frozenset(), ("comes right",)),
    "writes without a fence": Mutant(Parts(fenced=False), frozenset({"race", "delay"}), ("chain", "fencing")),
    "decides on an old view": Mutant(
        Parts(dispatcher=DecidesOnAnOldView), frozenset({"race", "lag"}), ("fencing", "observer")
    ),
    "looks away after loading": Mutant(
        Parts(dispatcher=LooksAwayAfterLoading), frozenset({"failover"}), ("comes right", "stays right"), seeds=60
    ),
    "removes before the ack": Mutant(Parts(outbox=RemovesBeforeTheAck), frozenset({"cut"}), ("report",)),
    "sends a run in any order": Mutant(Parts(outbox=SendsARunInAnyOrder), frozenset({"cut"}), ("report order",)),
    "sends all at once": Mutant(Parts(outbox=SendsAllAtOnce), frozenset({"delay"}), ("report order",)),
    "forgets what is held": Mutant(Parts(outbox=ForgetsWhatIsHeld), frozenset({"disk-full"}), ("comes right",)),
    "sends past the unremovable": Mutant(
        Parts(outbox=SendsPastTheUnremovable),
        frozenset({"disk-full", "edge-crash", "cut", "engine"}),
        ("report order",),
        seeds=12,
        first=50,
    ),
    "tells pages at once": Mutant(
        Parts(write=tells_pages_at_once), frozenset({"edge-crash", "cut", "loss"}), ("observer",), seeds=60
    ),
    "gives up": Mutant(Parts(replica=GivesUp), frozenset({"sync-busy", "loss"}), ("comes right",)),
    "overwrites others": Mutant(Parts(storage=OverwritesOthers), frozenset({"lag"}), ("api",)),
    "takes silence for yes": Mutant(Parts(storage=TakesSilenceForYes), frozenset({"cut", "hub-down"}), ("api",), seeds=40),
    "sees no containers": Mutant(
        Parts(pods=SeesNoContainers), frozenset({"edge-crash", "containers"}), ("never two",), seeds=60
    ),
    "forgets old tombstones": Mutant(Parts(hub=ForgetsOldTombstones), frozenset({"cut"}), ("last event stays",)),
    "compacts without a horizon": Mutant(
        Parts(hub=CompactsWithoutAHorizon), frozenset({"compact"}), ("last event stays", "replica", "comes right"), seeds=40
    ),
    "compacts the heads": Mutant(
        Parts(hub=CompactsTheHeads), frozenset({"compact"}), ("last event stays", "chain", "comes right"), seeds=40
    ),
    "revokes until its own second": Mutant(
        Parts(gated=gate.Gated(changed=until_its_own_second, always=True)), frozenset({"pause"}), ("revoked",), seeds=60
    ),
    "uses tokens twice": Mutant(
        Parts(gated=gate.Gated(admitting=UsesTokensTwice, always=True)), frozenset(), ("token once",), seeds=60, first=4
    ),
    "renews whoever was a node": Mutant(
        Parts(gated=gate.Gated(admitting=RenewsWhoeverWasANode, changed=until_its_own_second, always=True)),
        frozenset(),
        ("revoked", "comes right", "stays right"),
        seeds=60,
    ),
    "keeps the surplus": Mutant(
        Parts(controllers=_controllers(replicaset=_patched(replicaset.CONTROLLER, keeps_the_surplus))),
        frozenset(),
        ("comes right",),
        seeds=30,
        first=2,
    ),
    "ends every autonomy": Mutant(
        Parts(controllers=_controllers(nodelifecycle=_patched(node_lifecycle.CONTROLLER, ends_every_autonomy))),
        frozenset({"cut"}),
        ("autonomy",),
        seeds=60,
        first=2,
    ),
    "forgets the orphans": Mutant(
        Parts(controllers=_controllers(garbage=_patched(garbage.CONTROLLER, forgets_the_orphans))),
        frozenset(),
        ("comes right",),
        seeds=60,
        first=3,
    ),
    "forgets who asked meanwhile": Mutant(
        Parts(controllers=controlling.Made(turns=ForgetsWhoAskedMeanwhile, always=True)),
        frozenset(),
        ("comes right",),
        seeds=60,
        first=4,
    ),
    "lists without looking": Mutant(
        Parts(controllers=controlling.Made(attending=ListsWithoutLooking, always=True)),
        frozenset({"cloud-crash"}),
        ("comes right",),
        seeds=60,
    ),
    "takes pods elsewhere": Mutant(
        Parts(storage=TakesPodsElsewhere, controllers=controlling.Made(always=True)), frozenset(), ("bound once",)
    ),
    "leads until refused": Mutant(Parts(lease=_lease(LeadsUntilRefused)), frozenset({"race", "cut"}), ("one leader",)),
    "takes what it sees": Mutant(Parts(lease=_lease(TakesWhatItSees)), frozenset(), ("one leader",)),
    "hears no devices": Mutant(Parts(reports=HearsNoDevices), frozenset(), ("comes right",)),
    "never says again": Mutant(Parts(pods=NeverSaysAgain), frozenset({"restore"}), ("comes right",), seeds=60),
}
# What is broken elsewhere is found sooner where nothing else happens.
MUTANTS = {
    name: m if m.parts.controllers.always or m.parts.gated.always else replace(m, parts=replace(m.parts, plain=True))
    for name, m in MUTANTS.items()
}
