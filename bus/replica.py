"""The replica's rim: subscription, catch-up requests, transactions.  What to do is decided in replica_core.py.

A change is told to the node (``on_change``) after its transaction is committed, so nobody acts on what a crash would undo.
When the store can't be written (disk full), the replica keeps its cursor, says so, and tries again: what runs on the node
goes on from what was applied last.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog
from nats.aio.msg import Msg

from bus import fold, replica_core, replica_write
from bus.connect import Connection, NotConnected
from bus.log import EPOCH_HEADER
from bus.replica_write import Applied
from bus.stores import base
from schemas import codec, subjects, sync

__all__ = ["Applied", "Held", "Replica", "Stats"]

logger = structlog.get_logger(__name__)

STIMULI_MAX = 8192  # live messages waiting for the store; beyond it they are dropped and a catch-up repairs
TRANSACTION_FACTS_MAX = 500  # LMDB's sweet spot (NATS-FACTS.md), and a bound on how long the loop is held
ANSWER_TIMEOUT_S = 10.0
ASK_RETRY_S = 0.5
ASK_RETRY_S_MAX = 15.0
# The net under the nets: a live event that was lost is found by the next of its scope, a link that was away catches up
# (cloud/hints.py), the cloud looks at the cursors in beats (cloud/behind.py).  An empty catch-up is a kilobyte on the wire.
REFRESH_S = 6 * 3600.0
STORE_RETRY_S = 2.0
REFUSED_REMEMBERED_MAX = 1024  # sequences; more than these and the oldest would be said twice, no harm


@dataclass(frozen=True, slots=True)
class Held:
    objects: int
    bytes: int


@dataclass(slots=True)
class Stats:
    """Since the start of the process."""

    live_events: int = 0
    live_bytes: int = 0
    asks: int = 0
    answers: int = 0
    page_events: int = 0
    page_bytes: int = 0
    resets: int = 0
    refused: int = 0
    last_refused: str = ""
    store_failures: int = 0


class Replica:
    """The slice of the log that a node needs, kept in its store.

    ``on_change`` gets what changed, in order, after each commit; ``on_synced`` is told when a catch-up is complete.
    ``on_trouble`` gets a sentence while the store can't be written, and "" when it can again."""

    def __init__(
        self,
        node: str,
        scopes: Sequence[str],
        store: base.Store,
        *,
        on_change: Callable[[list[Applied]], None],
        on_synced: Callable[[], None] = lambda: None,
        on_trouble: Callable[[str], None] = lambda _: None,
        refresh_s: float = REFRESH_S,
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> None:
        self._node, self._scopes, self._store = node, list(scopes), store
        self._on_change, self._on_synced, self._on_trouble = on_change, on_synced, on_trouble
        self._refresh_s, self._answer_timeout_s = refresh_s, answer_timeout_s
        self._core = replica_core.ReplicaCore(self._cursors())
        self._stimuli: asyncio.Queue[replica_core.Stimulus] = asyncio.Queue(STIMULI_MAX)
        self._answers: dict[str, asyncio.Future[bytes]] = {}
        self._ask_task: asyncio.Task[None] | None = None
        self._connection: Connection | None = None
        self._failures = 0
        self._idle_asks = 0
        self._refused_seqs: dict[tuple[str, int], None] = {}
        self.stats = Stats()

    # --- what others may ask

    @property
    def complete(self) -> bool:
        """Every scope was complete once, now or before a restart: the replica may be trusted on what is *not* there."""
        return all(self._core.cursor(s).epoch for s in self._scopes)

    @property
    def synced(self) -> bool:
        return self._core.synced

    def cursors(self) -> dict[str, fold.Cursor]:
        return {s: self._core.cursor(s) for s in self._scopes}

    def facts(self) -> list[fold.Fact]:
        """Everything held, for a start: facts that can't be read any more are left out and counted."""
        out = []
        for scope in self._scopes:
            for _, value in self._store.items("objects", fold.scope_prefix(scope)):
                seq, payload = fold.split_value(value)
                try:
                    ev = codec.decode_event(payload)
                    out.append(fold.Fact(scope, ev.key, seq, payload, ev))
                except codec.DecodeError as e:
                    self._refused(scope, seq, "stored", str(e))
        return out

    def held(self, scope: str) -> Held:
        """How much of a scope is here: about what listing it whole would cost."""
        sizes = [len(v) for _, v in self._store.items("objects", fold.scope_prefix(scope))]
        return Held(len(sizes), sum(sizes))

    # --- running

    async def attach(self, connection: Connection) -> None:
        """Subscribe; call once, before ``run``.  The connection subscribes again by itself after a reconnect."""
        self._connection = connection
        for scope in self._scopes:
            await connection.subscribe(subjects.live_scope(scope), self._live)
        await connection.subscribe(subjects.sync_answer(self._node, "x").rpartition(".")[0] + ".*", self._answer)

    def link_up(self) -> None:
        """The cloud can be reached: catch up."""
        self._put(replica_core.Connected())

    def link_down(self) -> None:
        self._put(replica_core.Disconnected())

    async def run(self) -> None:
        refresh = asyncio.create_task(self._refreshing(), name="replica.refresh")
        try:
            while True:
                await self._round(await self._stimuli.get())
        finally:
            refresh.cancel()
            if self._ask_task is not None:
                self._ask_task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await refresh
            if self._ask_task is not None:
                with contextlib.suppress(asyncio.CancelledError):
                    await self._ask_task

    async def _round(self, first: replica_core.Stimulus) -> None:
        """A method of its own so that nothing of what was applied is held while the next is waited for: the events
        of a first catch-up, decoded, are most of the memory of a small node."""
        batch = [first]
        del first
        while len(batch) < TRANSACTION_FACTS_MAX and not self._stimuli.empty():
            batch.append(self._stimuli.get_nowait())
        instructions: list[replica_core.Instruction] = []
        for stimulus in batch:
            instructions.extend(self._core.handle(stimulus))
        await self._execute(instructions)

    async def _refreshing(self) -> None:
        while True:
            await asyncio.sleep(self._refresh_s * random.uniform(0.8, 1.2))
            self._put(replica_core.Refresh())

    def _put(self, stimulus: replica_core.Stimulus) -> None:
        try:
            self._stimuli.put_nowait(stimulus)
        except asyncio.QueueFull:
            # Only live events come in such numbers.  Dropping one is a gap that the chain shows at the next event.
            logger.warning("replica.overrun", node=self._node, limit=STIMULI_MAX)

    async def _live(self, msg: Msg) -> None:
        headers = msg.headers or {}
        seq = 0
        try:
            seq = int(headers["Nats-Sequence"])
            scope, key = subjects.parse_live(msg.subject)
        except (subjects.SubjectError, KeyError, ValueError) as e:
            self._refused(_scope_token(msg.subject), seq, msg.subject, f"not a republished event: {e}")
            return
        self.stats.live_events += 1
        self.stats.live_bytes += len(msg.data) + len(msg.subject)
        self._put(replica_core.Live(scope, key, seq, msg.data, headers.get(EPOCH_HEADER, "")))

    # --- instructions

    async def _execute(self, instructions: list[replica_core.Instruction]) -> None:
        group: list[replica_core.Instruction] = []
        for i in instructions:
            if isinstance(i, replica_core.Apply | replica_core.Stage | replica_core.Finish):
                group.append(i)
                continue
            if not await self._commit(group):
                return
            group = []
            match i:
                case replica_core.Ask():
                    self._start_ask(i)
                case replica_core.Refuse(scope, seq, about, reason):
                    self._refused(scope, seq, about, reason)
                case replica_core.Synced():
                    self._idle_asks = 0
                    self._on_synced()
                case _:
                    raise AssertionError(i)
        await self._commit(group)

    async def _commit(self, group: list[replica_core.Instruction]) -> bool:
        """One transaction; False when it failed, after the core was told."""
        if not group:
            return True
        try:
            with self._store.transact() as txn:
                changed = [a for i in group for a in replica_write.write(txn, i)]
        except base.StoreCorrupt:
            raise  # no retry heals it: the daemon ends, and sets the store aside when it starts again
        except base.StoreError as e:
            self.stats.store_failures += 1
            logger.warning("replica.store.failed", node=self._node, error=str(e))
            self._on_trouble(str(e))
            await asyncio.sleep(STORE_RETRY_S)
            lost = replica_core.Lost(self._cursors(fallback=True))
            for instruction in self._core.handle(lost):
                if isinstance(instruction, replica_core.Ask):
                    self._start_ask(instruction)
            return False
        self._on_trouble("")
        self.stats.resets += sum(isinstance(i, replica_core.Finish) for i in group)
        if changed:
            self._on_change(changed)
        return True

    def _cursors(self, *, fallback: bool = False) -> dict[str, fold.Cursor]:
        try:
            return {s: fold.Cursor.from_bytes(self._store.get("cursors", s.encode())) for s in self._scopes}
        except base.StoreError:
            if not fallback:
                raise
            return {s: fold.Cursor() for s in self._scopes}

    def _refused(self, scope: str, seq: int, about: str, reason: str) -> None:
        """Counted and said once, though a catch-up may show again what came live."""
        if (scope, seq) in self._refused_seqs:
            return
        if seq:
            self._refused_seqs[scope, seq] = None
            if len(self._refused_seqs) > REFUSED_REMEMBERED_MAX:
                del self._refused_seqs[next(iter(self._refused_seqs))]
        self.stats.refused += 1
        self.stats.last_refused = f"{scope} #{seq} {about}: {reason}"
        logger.warning("replica.event.refused", node=self._node, scope=scope, seq=seq, about=about, reason=reason)

    # --- catch-up

    def _start_ask(self, ask: replica_core.Ask) -> None:
        if self._ask_task is not None and not self._ask_task.done():
            self._ask_task.cancel()
        self._ask_task = asyncio.create_task(self._ask(ask), name="replica.ask")

    async def _ask(self, ask: replica_core.Ask) -> None:
        if not ask.soon:
            self._failures += 1
            await asyncio.sleep(min(ASK_RETRY_S_MAX, ASK_RETRY_S * 2 ** min(self._failures, 10)) * random.uniform(0.5, 1.0))
        elif self._idle_asks:
            # Asked again and again without progress (a server that lags): not at the speed of the link.
            await asyncio.sleep(min(2.0, 0.01 * 2 ** min(self._idle_asks, 10)))
        self.stats.asks += 1
        nonce = os.urandom(9).hex()
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._answers[nonce] = future
        try:
            assert self._connection is not None
            request = codec.encode(sync.SyncRequest(scopes=ask.cursors))
            await self._connection.publish(subjects.sync_request(self._node, nonce), request)
            async with asyncio.timeout(self._answer_timeout_s):
                data = await future
            answer = codec.decode_as(sync.SyncAnswer, data)
        except (NotConnected, TimeoutError, codec.CodecError) as e:
            logger.debug("replica.ask.failed", node=self._node, error=repr(e))
            self._put(replica_core.Failed())
            return
        finally:
            del self._answers[nonce]
        if answer.status != "ok":
            logger.warning("replica.ask.refused", node=self._node, status=answer.status, message=answer.message)
            self._put(replica_core.Failed())
            return
        self._failures = 0
        self.stats.answers += 1
        self.stats.page_bytes += len(data)
        events = sum(len(p.events) for p in answer.pages)
        self.stats.page_events += events
        self._idle_asks = 0 if events else self._idle_asks + 1
        await self._stimuli.put(replica_core.Answered(answer.pages, ask.cursors))

    async def _answer(self, msg: Msg) -> None:
        future = self._answers.get(msg.subject.rpartition(".")[2])
        if future is not None and not future.done():
            future.set_result(msg.data)


def _scope_token(subject: str) -> str:
    """The scope in a live subject that is otherwise wrong."""
    try:
        return subjects.unescape(subject.split(".")[1])
    except (IndexError, subjects.SubjectError):
        return ""
