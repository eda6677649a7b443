"""Whether the cloud can be reached, proven by round trips.

A node's own bus is up while its leaf has lost the hub, and a dead TCP connection looks alive for minutes: only an answer
proves the link.  The beat is that question.  It carries the replica's cursors, so the cloud sees how far a node is behind,
and the answer is the cloud's sign of life.  Beats are rare while all is well (they are most of an idle node's traffic) and
quick while the link is down (they end at the node's own leaf then, and cost the link nothing).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from typing import Any, Literal

import nats.errors
import structlog

from bus import tasks
from bus.connect import Connection, NotConnected
from schemas import codec, reports, subjects

logger = structlog.get_logger(__name__)

# 288 beats a day of some 400 bytes on the wire, both ways, TLS and TCP included.  Enough, because the cloud asks for a beat
# when the hub tells of a link that ended or came back, and before it calls a node lost (cloud/hints.py, cloud/beats.py).
BEAT_S = 300.0
ANSWER_TIMEOUT_S = 5.0
RETRY_S = 0.5  # doubles, up to the next, while questions are sent and not answered
RETRY_S_MAX = 10.0  # or half a beat
FAILURES_MAX = 2  # one lost question is bad luck, two in a row are a lost link

State = Literal["unknown", "up", "down"]
Answer = Literal["answered", "silence", "refused"]


class Link:
    """Beats for ever; ``on_up`` and ``on_down`` are told once a change, ``on_up`` also when the cloud answers over a
    connection that was made again: what was published in between is lost to its subscribers, however short that was.
    ``on_answer`` gets what each answer says."""

    def __init__(
        self,
        connection: Connection,
        node: str,
        beat: Callable[[], reports.Beat],
        *,
        on_up: Callable[[], None],
        on_down: Callable[[], None],
        on_answer: Callable[[bytes], None] = lambda _: None,
        beat_s: float = BEAT_S,
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
        retry_s: float = RETRY_S,
    ) -> None:
        self._connection, self._node, self._beat = connection, node, beat
        self._on_up, self._on_down, self._on_answer = on_up, on_down, on_answer
        self._beat_s, self._answer_timeout_s, self._retry_s = beat_s, answer_timeout_s, retry_s
        self._nudge, self._anew = asyncio.Event(), asyncio.Event()
        self._renewed = False
        self.state: State = "unknown"
        self.fenced = False
        """Another daemon holds this node's identity: nothing may be said in its name (cloud/clones.py)."""

    def nudge(self, renewed: bool = False) -> None:
        """Something happened to the connection: ask now instead of at the next beat.  ``renewed``: it was lost and is there
        again (what ``Connection.on_change`` tells)."""
        if renewed:
            self._renewed = True
            self._anew.set()
        self._nudge.set()

    async def run(self) -> None:
        failures = silences = 0
        while True:
            self._nudge.clear()  # a nudge while we ask is another question
            answer = await self._asked()
            # A cloud that is only slow must not be asked more the slower it is: with every node doing so, it would never
            # be in time again.  A question that ends here, or at the node's own leaf, costs nobody anything.
            silences = silences + 1 if answer == "silence" else 0
            if answer == "answered":
                failures = 0
                if self.state != "up":
                    logger.info("link.up", node=self._node)
                if self.state != "up" or self._renewed:
                    self.state, self._renewed = "up", False
                    self._on_up()
            else:
                failures += 1
                # Being fenced is an answer, and the last one for a while: nothing is to be waited for.
                if self.state != "down" and (self.fenced or failures >= FAILURES_MAX or self.state == "unknown"):
                    logger.warning("link.down", node=self._node)
                    self.state = "down"
                    self._on_down()
            wait = self._beat_s if failures == 0 or self.fenced else self._retry_pause(silences)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait * random.uniform(0.9, 1.1)):
                    await self._nudge.wait()

    def _retry_pause(self, silences: int) -> float:
        doublings = max(0, min(silences - FAILURES_MAX, 16))
        return max(self._retry_s, min(RETRY_S_MAX, self._beat_s / 2, self._retry_s * (1 << doublings)))

    async def _asked(self) -> Answer:
        """One question; a second beside it when the link is new meanwhile: the first may have gone with the old one, and its
        answer would be waited for in vain."""
        self._anew.clear()
        anew = asyncio.create_task(self._anew.wait(), name="link.anew")
        asks = [asyncio.create_task(self._ask(), name="link.ask")]
        waits: set[asyncio.Task[Any]] = {anew, *asks}
        answer: Answer = "silence"
        try:
            while waits - {anew}:
                done, waits = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                for ask in asks:
                    if ask in done and (answer := ask.result()) == "answered":
                        return answer
                if anew in done:
                    asks.append(asyncio.create_task(self._ask(), name="link.ask.again"))
                    waits.add(asks[-1])
            return answer
        finally:
            for task in (anew, *asks):
                await tasks.end(task)

    async def _ask(self) -> Answer:
        """``refused``: it went nowhere, which was told at once."""
        try:
            data = codec.encode(self._beat())
            answer = await self._connection.request(subjects.beat(self._node), data, timeout_s=self._answer_timeout_s)
        except (nats.errors.TimeoutError, TimeoutError):
            return "silence"
        except (nats.errors.Error, NotConnected, OSError):
            return "refused"
        fenced = answer.data == reports.FENCED
        if fenced != self.fenced:
            self.fenced = fenced
            logger.log(40 if fenced else 20, "link.fenced" if fenced else "link.free", node=self._node)
        if fenced:
            return "refused"
        self._on_answer(answer.data)
        return "answered"
