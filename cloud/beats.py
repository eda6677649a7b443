"""Answers the beats of nodes: the cloud's half of a link's proof (bus/link.py has the node's).

Only a worker that is loaded answers: a node whose beat is not answered looks for another instance, or waits.  All of them
listen.
A node that is silent towards the end of its grace is asked for a beat: one that was lost on the way is no lost link.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

import structlog

from bus.connect import Connection, Message, NotConnected, Subscribed
from cloud.clones import Clones
from cloud.shares import Shares
from schemas import codec, reports, subjects

logger = structlog.get_logger(__name__)

BEAT_BYTES_MAX = 16 << 10
LOOK_S = 1.0
ASK_S = 30.0  # before the grace is over; at most half of it
ASKS = 3
CLONES_LOOK_S = 60.0
# A node beats once in minutes, once a second while it looks for the cloud, and when it is asked.
BEATS_A_S, BEATS_AT_ONCE = 5.0, 30.0
SPOKEN_S = 30.0  # a machine that was started anew says within seconds what is: until then its last words are older


class Beats:
    """``on_beat(node, beat)`` for each; ``ready`` says whether to answer, ``mark(node)`` what (cloud/epochs.py).

    ``on_clone(node, message)``: two daemons live on one identity (cloud/clones.py); "" when that is over.
    ``spoken_for(node, boot)``: whether what is known of the node comes from another machine than the one that beats.  Then a
    clone spoke for the node, and the true one is asked to say everything again.
    ``on_flood(node, dropped)``: who beats too often; ``on_spent(node, bytes)``: each beat, read or not."""

    def __init__(
        self,
        connection: Connection,
        on_beat: Callable[[str, reports.Beat], None],
        ready: Callable[[], bool],
        mark: Callable[[str], bytes] = lambda _: b"",
        *,
        on_clone: Callable[[str, str], None] = lambda *_: None,
        on_flood: Callable[[str, int], None] = lambda *_: None,
        spoken_for: Callable[[str, str], bool] = lambda *_: False,
        on_spent: Callable[[str, int], None] = lambda *_: None,
        grace_s: float = 60.0,
    ) -> None:
        self._connection, self._on_beat, self._ready, self._mark = connection, on_beat, ready, mark
        self._on_clone, self._clones = on_clone, Clones()
        self._shares = Shares("beat", BEATS_A_S, BEATS_AT_ONCE, on_flood=on_flood)
        self._on_spent = on_spent
        self._spoken_for, self._grace_s = spoken_for, grace_s
        self._seen: dict[str, float] = {}  # in the order of the last beat
        self._asked: dict[str, float] = {}
        self._sub: Subscribed | None = None
        self.refused = 0

    async def start(self) -> None:
        self._sub = await self._connection.subscribe("beat.*", self._take)

    async def stop(self) -> None:
        if self._sub is not None:
            await self._sub.unsubscribe()

    def seen(self, node: str) -> float:
        """``time.monotonic()`` of its last beat; minus infinity when it was never heard."""
        return self._seen.get(node, float("-inf"))

    async def ask(self, node: str, *, renewed: bool = False) -> None:
        """Asks a node to beat now; ``renewed``: it may have missed something and should catch up."""
        with contextlib.suppress(NotConnected):
            await self._connection.publish(subjects.command(node, "beat"), reports.RENEWED if renewed else b"")

    async def run(self) -> None:
        """For ever: asks who is silent."""
        lead, cleared = min(ASK_S, self._grace_s / 2), 0.0
        while True:
            await asyncio.sleep(min(LOOK_S, lead / ASKS))
            now = time.monotonic()
            for node, at in list(self._seen.items()):
                if now - at < self._grace_s - lead:
                    break
                if now - at > self._grace_s + lead:
                    del self._seen[node]  # lost; it beats by itself when it is back
                    self._asked.pop(node, None)
                elif now - self._asked.get(node, 0.0) >= lead / ASKS:
                    self._asked[node] = now
                    await self.ask(node)
            if now - cleared >= CLONES_LOOK_S:
                cleared = now
                for node in self._clones.over(now):
                    self._on_clone(node, "")

    async def _take(self, msg: Message) -> None:
        try:
            node = subjects.unescape(msg.subject.partition(".")[2])
            self._on_spent(node, len(msg.data))
            if not self._shares.allows(node):
                return
            beat = codec.decode_as(reports.Beat, msg.data, BEAT_BYTES_MAX)
        except (subjects.SubjectError, codec.DecodeError) as e:
            self.refused += 1
            logger.warning("beat.refused", subject=msg.subject[:160], reason=str(e))
            return
        now = time.monotonic()
        # Also heard while another instance answers: whoever takes over must know which daemon was there first.
        verdict = self._clones.beat(node, beat.run, now)
        if not self._ready():
            return
        if verdict.news:
            self._on_clone(node, verdict.news)
        if verdict.news or verdict.new:
            await self.ask(node)  # whoever else there is speaks up, and hears its verdict
        if verdict.fenced:
            await self._answer(msg, reports.FENCED)
            return
        self._seen.pop(node, None)
        self._seen[node] = now
        self._asked.pop(node, None)
        self._on_beat(node, beat)
        again = verdict.known_s >= SPOKEN_S and self._spoken_for(node, beat.boot)
        await self._answer(msg, (reports.AGAIN if again else b"") + self._mark(node))

    async def _answer(self, msg: Message, data: bytes) -> None:
        if msg.reply:
            with contextlib.suppress(NotConnected):  # the node asks again
                await self._connection.publish(msg.reply, data)
