"""The sync service: answers a replica's catch-up with the state of its scopes since its cursor.

Stateless: several instances share the work (queue group).  Who asks is the subject (a node's permission names it), the
answer goes to the subject derived from it, never to a reply that the asker chose (NATS-FACTS.md, reply injection).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections import Counter
from collections.abc import Callable

import structlog

from bus import log
from bus.connect import Connection, Message, NotConnected, Subscribed
from cloud.shares import Shares
from schemas import codec, subjects, sync

logger = structlog.get_logger(__name__)

CONCURRENT_MAX = 64  # catch-ups read at once by one instance
WAITING_MAX = 4096  # beyond it a node is told "busy" and comes again with jitter
DEPOSED_S_MAX = 20.0  # a leader without a majority steps down after 10 s (nats-server, lostQuorumInterval)
# A replica asks one question at a time, two daemons of a clone two; the pages of a long catch-up come one by one.
NODE_CONCURRENT_MAX = 4
NODE_A_S, NODE_AT_ONCE = 20.0, 300.0  # a page has up to 1,024 keys: the burst alone is 300,000 objects
REQUEST_BYTES_MAX = 64 << 10
INFO_AGE_S_MAX = 0.2  # epoch and horizon of a stream are read at most this often: a storm costs five reads a second

ALL = "all"


def scopes_of(node: str) -> list[str]:
    """The scopes a node may ask for (groups come with node groups)."""
    return [node, ALL]


def starts_anew(asked: sync.ScopeCursor, info: log.StreamInfo) -> bool:
    """A cursor of another epoch, from the future, or from before the horizon is worth nothing.  A reset under way, which
    began with nothing, passes the horizon page by page; one that began under an earlier one may hold what is gone since."""
    below = 0 < asked.cursor < info.horizon and asked.horizon != info.horizon
    return asked.epoch != info.epoch or asked.cursor > info.last_seq or below


def maybe_deposed(asked: sync.ScopeCursor, info: log.StreamInfo) -> bool:
    """A cursor of this epoch that is ahead of a log on three servers: whoever told the log's end may be a leader that was
    cut off and doesn't know it yet.  A reset from it would take a replica back to what it had before."""
    return info.replicas > 1 and asked.epoch == info.epoch and asked.cursor > info.last_seq


def page_of(asked: sync.ScopeCursor, info: log.StreamInfo, last: log.LastState) -> sync.ScopePage:
    """What answers one cursor, from what the log holds of its scope (after it, or all when it starts anew)."""
    return sync.ScopePage(
        scope=asked.scope,
        epoch=info.epoch,
        up_to=last.up_to,
        more=last.more,
        reset=starts_anew(asked, info) and asked.epoch != "",
        horizon=info.horizon,
        events=[sync.SyncEvent(seq=r.seq, subject=r.subject.split(".", 2)[2], event=r.payload) for r in last.records],
    )


class SyncService:
    def __init__(
        self,
        connection: Connection,
        store: log.Log,
        *,
        shards: int,
        scopes_of: Callable[[str], list[str]] = scopes_of,
        on_flood: Callable[[str, int], None] = lambda *_: None,
        on_spent: Callable[[str, int], None] = lambda *_: None,
    ) -> None:
        self._connection, self._log, self._shards, self._scopes_of = connection, store, shards, scopes_of
        self._shares = Shares("sync", NODE_A_S, NODE_AT_ONCE, on_flood=on_flood)
        self._on_spent = on_spent
        self._busy: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(CONCURRENT_MAX)
        self._infos: dict[str, tuple[float, log.StreamInfo]] = {}
        self._deposed: dict[str, float] = {}
        self._newest: dict[str, str] = {}  # node -> where the answer to its last question goes, while it waits
        self._sub: Subscribed | None = None
        self.answered = 0
        self.refused = 0
        self.overtaken = 0

    async def start(self) -> None:
        self._sub = await self._connection.subscribe("sync.*.*", self._take, queue="sync")

    async def stop(self) -> None:
        if self._sub is not None:
            await self._sub.unsubscribe()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _take(self, msg: Message) -> None:
        _, node_token, nonce = msg.subject.split(".")
        try:
            node = subjects.unescape(node_token)
            subjects.unescape(nonce)
        except subjects.SubjectError:
            self.refused += 1
            return
        self._on_spent(node, len(msg.data))
        if not self._shares.allows(node) or self._busy[node] >= NODE_CONCURRENT_MAX:
            return  # it asks again after its timeout
        to = f"answer.{node_token}.{nonce}"
        if len(self._tasks) >= WAITING_MAX:
            await self._answer(to, sync.SyncAnswer(status="busy", message="too many catch-ups at once"))
            return
        self._newest[node] = to
        self._busy[node] += 1
        task = asyncio.create_task(self._serve(node, to, msg.data))
        self._tasks.add(task)
        task.add_done_callback(functools.partial(self._done, node))

    def _done(self, node: str, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._busy[node] -= 1
        if not self._busy[node]:
            del self._busy[node]

    async def _serve(self, node: str, to: str, data: bytes) -> None:
        try:
            request = codec.decode_as(sync.SyncRequest, data, REQUEST_BYTES_MAX)
            allowed = self._scopes_of(node)
            for c in request.scopes:
                if c.scope not in allowed:
                    raise codec.DecodeError(f"{node} may not read scope {c.scope!r}")
            async with self._slots:
                # A node asks one question at a time: who asks again has given this one up.  In a storm that waits for longer
                # than a node does, reading the log for such questions would be most of the work, and none of the answers.
                if self._newest.get(node) != to:
                    self.overtaken += 1
                    return
                answer = await self._read(request)
        except codec.DecodeError as e:
            self.refused += 1
            logger.warning("sync.refused", node=node, reason=str(e))
            answer = sync.SyncAnswer(status="refused", message=str(e)[:500])
        except log.LogError as e:
            logger.warning("sync.failed", node=node, error=str(e))
            answer = sync.SyncAnswer(status="busy", message=str(e)[:500])
        finally:
            if self._newest.get(node) == to:
                del self._newest[node]
        await self._answer(to, answer)

    async def _answer(self, to: str, answer: sync.SyncAnswer) -> None:
        with contextlib.suppress(NotConnected):  # the node asks again
            await self._connection.publish(to, codec.encode(answer))
            self.answered += 1

    async def _read(self, request: sync.SyncRequest) -> sync.SyncAnswer:
        room = sync.PAGE_BYTES_MAX
        pages = []
        for asked in request.scopes:
            page, size = await self._scope(asked, room)
            pages.append(page)
            room = max(1, room - size)  # at least one event a scope, so that every answer makes progress
        return sync.SyncAnswer(pages=pages)

    async def _scope(self, asked: sync.ScopeCursor, room: int) -> tuple[sync.ScopePage, int]:
        stream = f"META-{subjects.shard_of(asked.scope, self._shards)}"
        info = await self._info(stream, at_least=asked.cursor)
        if maybe_deposed(asked, info):
            since = self._deposed.setdefault(stream, time.monotonic())
            if time.monotonic() - since < DEPOSED_S_MAX:
                raise log.LogUnavailable(f"{stream} ends at {info.last_seq}, {asked.scope} has seen {asked.cursor}: later")
        else:
            self._deposed.pop(stream, None)
        after = 0 if starts_anew(asked, info) else asked.cursor
        filter_ = subjects.meta_scope(asked.scope, self._shards)
        # ``up_to`` is the answering server's own: one that lags must not move a cursor past what it lacks.
        last = await self._log.last(stream, [filter_], after=after, bytes_max=room)
        page = page_of(asked, info, last)
        return page, sum(len(e.event) + len(e.subject) for e in page.events)

    async def _info(self, stream: str, *, at_least: int) -> log.StreamInfo:
        now = time.monotonic()
        held = self._infos.get(stream)
        if held is None or now - held[0] > INFO_AGE_S_MAX or held[1].last_seq < at_least:
            held = (now, await self._log.info(stream))
            self._infos[stream] = held
        return held[1]
