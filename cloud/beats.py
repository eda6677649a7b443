"""Answers the beats of nodes: the cloud's half of a link's proof (bus/link.py has the node's).

Only a worker that is loaded answers: a node whose beat is not answered looks for another instance, or waits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import structlog

from bus.connect import Connection, Message, NotConnected, Subscribed
from schemas import codec, reports, subjects

logger = structlog.get_logger(__name__)


class Beats:
    """``on_beat(node, beat)`` for each; ``ready`` says whether to answer, ``mark(node)`` what (cloud/epochs.py)."""

    def __init__(
        self,
        connection: Connection,
        on_beat: Callable[[str, reports.Beat], None],
        ready: Callable[[], bool],
        mark: Callable[[str], bytes] = lambda _: b"",
    ) -> None:
        self._connection, self._on_beat, self._ready, self._mark = connection, on_beat, ready, mark
        self._sub: Subscribed | None = None
        self.refused = 0

    async def start(self) -> None:
        self._sub = await self._connection.subscribe("beat.*", self._take)

    async def stop(self) -> None:
        if self._sub is not None:
            await self._sub.unsubscribe()

    async def _take(self, msg: Message) -> None:
        try:
            node = subjects.unescape(msg.subject.partition(".")[2])
            beat = codec.decode_as(reports.Beat, msg.data, 16 << 10)
        except (subjects.SubjectError, codec.DecodeError) as e:
            self.refused += 1
            logger.warning("beat.refused", subject=msg.subject[:160], reason=str(e))
            return
        if not self._ready():
            return
        self._on_beat(node, beat)
        if msg.reply:
            with contextlib.suppress(NotConnected):  # the node asks again
                await self._connection.publish(msg.reply, self._mark(node))
