"""Publishing into a stream fast and without loss: a bounded window of unacknowledged messages over a bounded buffer.

nats-py's JetStream publish waits for each acknowledgement (7,000 a second), its asynchronous version forgets what a lost
connection took with it, and a plain publish loses a third of a burst (NATS facts, measured).  Here ``offer`` never waits
and never fails: a message is kept until the stream says that it has it.

* In order: one queue, sent in order; after any doubt (lost connection, an acknowledgement that doesn't come, a refusal)
  everything unacknowledged is sent again from the first one on (go-back-n).  ``Nats-Msg-Id`` makes that harmless.
* After an outage that may be longer than the stream's duplicate window, the stream is asked for the last message of each
  subject in doubt, so that nothing is stored twice either.  This holds for subjects that only this publisher writes.
* When the buffer is full the oldest unsent message is dropped, counted and said: samples carry sequence numbers, so a
  reader sees the gap.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError
from nats.errors import TimeoutError as NatsTimeout

from bus.connect import Connection, NotConnected
from schemas import subjects

log = structlog.get_logger(__name__)

MSG_ID = "Nats-Msg-Id"
NOT_FOUND = 404  # the subject has no message yet
TOO_LARGE = 10054  # JSMessageSizeExceedsMaximumErr: sending it again can't help


@dataclass(frozen=True, slots=True)
class PublisherSettings:
    """``stream`` is where the messages must end up; ``last`` is the subject of STREAM.MSG.GET for it."""

    stream: str = "TELEMETRY"
    last: str = subjects.LOCAL_TELEMETRY_LAST
    window: int = 256  # from 100 on the Python client is the limit, not the window (measured)
    buffer: int = 50_000  # messages kept; a hundred properties at 1 s for eight minutes
    buffer_bytes: int = 16 << 20  # payloads kept: a quarter of the budget of a node
    ack_timeout_s: float = 5.0  # a leaf on a slow disk answers within one; then the window is sent again
    pause_first_s: float = 0.1
    pause_cap_s: float = 5.0  # a restarted leaf is found within this
    settle_after_s: float = 30.0  # a resend later than this asks the stream first; well below any duplicate window
    check_s: float = 0.2  # how often overdue acknowledgements are looked for while something waits

    def __post_init__(self) -> None:
        assert 0 < self.window < self.buffer


@dataclass(slots=True)
class PublisherStats:
    offered: int = 0
    acked: int = 0
    duplicates: int = 0  # of the acked: the stream had it already
    resent: int = 0
    dropped: int = 0  # the buffer was full
    refused: int = 0  # the stream will never take it


@dataclass(slots=True)
class _Message:
    subject: str
    payload: bytes
    msg_id: str
    first_sent: float | None = None
    sent: float = 0.0


class Publisher:
    """``run`` does the work until it is cancelled; ``offer`` may be called before, meanwhile and after."""

    def __init__(self, connection: Connection, settings: PublisherSettings | None = None) -> None:
        self._connection = connection
        self._settings = settings or PublisherSettings()
        self._waiting: deque[_Message] = deque()
        self._flight: dict[int, _Message] = {}
        self._bytes = 0
        self._tokens = itertools.count(1)
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._client: Client | None = None
        self._reconnects = 0
        self._inbox = ""
        self._subscription: Subscription | None = None
        self._again = False
        self._pause_s = 0.0
        self._why = ""
        self._dropping = 0
        self.stats = PublisherStats()
        connection.on_change(lambda _up: self._wake.set())

    @property
    def unacknowledged(self) -> int:
        return len(self._waiting) + len(self._flight)

    def offer(self, subject: str, payload: bytes, msg_id: str) -> None:
        """Takes a message.  Never waits; drops the oldest unsent one when the buffer is full."""
        self._waiting.append(_Message(subject, payload, msg_id))
        self._bytes += len(payload)
        self.stats.offered += 1
        while self._waiting and (self.unacknowledged > self._settings.buffer or self._bytes > self._settings.buffer_bytes):
            self._bytes -= len(self._waiting.popleft().payload)
            self.stats.dropped += 1
            self._dropping += 1
            if self._dropping == 1:
                log.warning("publisher.dropping", stream=self._settings.stream, kept=self.unacknowledged, why=self._why)
        self._empty.clear()
        self._wake.set()

    async def flush(self, timeout_s: float) -> int:
        """Waits until everything is acknowledged, at most ``timeout_s``; how many are not."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._empty.wait()
        return self.unacknowledged

    async def run(self) -> None:
        try:
            while True:
                self._wake.clear()
                wait_s = await self._step()
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._wake.wait()
        finally:
            await self._let_go()

    # --- one round: look at the connection, at the clock, then send ------------------------------------------------

    async def _step(self) -> float | None:
        """Seconds until the next round is needed even if nothing happens; None when only a message can need one."""
        if not self.unacknowledged:
            return None
        try:
            if not await self._ready():
                self._doubt("no connection to the bus")
                return self._settings.check_s
            if self._overdue():
                self._connection.doubt()
                self._doubt(f"no acknowledgement within {self._settings.ack_timeout_s:g} s")
            if self._again:
                self._take_back()
                await asyncio.sleep(self._next_pause_s())
                if not await self._ready():
                    return self._settings.check_s
                await self._settle()
                self._again = False
            await self._send()
        except (NotConnected, NatsError, OSError) as e:
            self._doubt(f"{type(e).__name__}: {e}")
        return self._settings.check_s

    async def _ready(self) -> bool:
        if not self._connection.connected:
            return False
        client = self._connection.client
        if client is not self._client or self._subscription is None:
            await self._let_go()
            self._inbox = client.new_inbox()
            self._subscription = await client.subscribe(f"{self._inbox}.*", cb=self._on_ack)
            self._client, self._reconnects = client, -1
        if client.stats["reconnects"] != self._reconnects:
            self._reconnects = client.stats["reconnects"]
            if self._flight:  # what was on its way when the connection broke may or may not have arrived
                self._doubt("the connection was made anew")
        return True

    def _overdue(self) -> bool:
        oldest = next(iter(self._flight.values()), None)
        return oldest is not None and _now() - oldest.sent > self._settings.ack_timeout_s

    async def _send(self) -> None:
        client = self._client
        assert client is not None
        while self._waiting and len(self._flight) < self._settings.window and not self._again:
            message = self._waiting.popleft()
            token = next(self._tokens)
            if message.first_sent is None:
                message.first_sent = _now()
            else:
                self.stats.resent += 1
            message.sent = _now()
            self._flight[token] = message
            try:
                reply = f"{self._inbox}.{token}"
                await client.publish(message.subject, message.payload, reply, {MSG_ID: message.msg_id})
            except MaxPayloadError:
                self._refuse(token, f"{len(message.payload)} bytes are more than the server takes")

    # --- acknowledgements ------------------------------------------------------------------------------------------

    async def _on_ack(self, msg: Msg) -> None:
        token = int(msg.subject.rpartition(".")[2])
        if token not in self._flight:
            return  # sent again meanwhile; the answer to that one counts
        if (msg.headers or {}).get("Status") == "503":
            self._doubt_from_outside(f"no stream takes {self._flight[token].subject}")
            return
        try:
            answer = json.loads(msg.data)
            error = answer.get("error")
        except (ValueError, AttributeError):
            self._doubt_from_outside("an acknowledgement that is not one")
            return
        if error:
            if error.get("err_code") == TOO_LARGE:
                self._refuse(token, str(error.get("description")))
            else:
                self._doubt_from_outside(f"the stream refuses: {error.get('description')}")
            return
        self._done(token)
        self.stats.acked += 1
        self.stats.duplicates += bool(answer.get("duplicate"))
        self._all_well()

    def _done(self, token: int) -> None:
        self._bytes -= len(self._flight.pop(token).payload)
        self._after_removal()

    def _refuse(self, token: int, why: str) -> None:
        log.error("publisher.refused", subject=self._flight[token].subject, why=why)
        self.stats.refused += 1
        self._done(token)

    def _after_removal(self) -> None:
        if not self.unacknowledged:
            self._empty.set()
        self._wake.set()

    def _all_well(self) -> None:
        if self._again:
            return
        if self._why:
            log.info("publisher.resumed", stream=self._settings.stream, waiting=self.unacknowledged)
        if self._dropping:
            log.warning("publisher.dropped", stream=self._settings.stream, messages=self._dropping)
        self._why, self._pause_s, self._dropping = "", 0.0, 0

    # --- doubt -----------------------------------------------------------------------------------------------------

    def _doubt(self, why: str) -> None:
        """Something unacknowledged may be lost: pause, then send it all again from the first on."""
        if not self._why:
            log.warning("publisher.waiting", stream=self._settings.stream, why=why, kept=self.unacknowledged)
        self._why = why
        self._again = True

    def _doubt_from_outside(self, why: str) -> None:
        self._doubt(why)
        self._wake.set()

    def _next_pause_s(self) -> float:
        self._pause_s = min(max(self._pause_s * 2, self._settings.pause_first_s), self._settings.pause_cap_s)
        return self._pause_s

    def _take_back(self) -> None:
        self._waiting.extendleft(reversed(self._flight.values()))
        self._flight.clear()

    async def _settle(self) -> None:
        """Leaves out what the stream already has, where the resend may come after its duplicate window."""
        limit = _now() - self._settings.settle_after_s
        for subject in {m.subject for m in self._waiting if m.first_sent is not None and m.first_sent < limit}:
            last = await self._last_id(subject)
            ours = [m for m in self._waiting if m.subject == subject and m.first_sent is not None]
            index = next((i for i, m in enumerate(ours) if m.msg_id == last), None)
            if index is None:
                continue
            stored = {id(m) for m in ours[: index + 1]}
            self._bytes -= sum(len(m.payload) for m in ours[: index + 1])
            self._waiting = deque(m for m in self._waiting if id(m) not in stored)
            self.stats.acked += len(stored)
            self.stats.duplicates += len(stored)
            self._after_removal()

    async def _last_id(self, subject: str) -> str | None:
        """The Nats-Msg-Id of the subject's last message in the stream."""
        question = json.dumps({"last_by_subj": subject}).encode()
        assert self._client is not None
        try:
            answer = await self._connection.request(self._settings.last, question, timeout_s=self._settings.ack_timeout_s)
            found: Any = json.loads(answer.data)
            if found.get("error", {}).get("code", NOT_FOUND) != NOT_FOUND:
                raise ValueError(found["error"].get("description"))
            headers = base64.b64decode(found.get("message", {}).get("hdrs", "")).decode(errors="replace")
        except (NatsTimeout, ValueError, AttributeError) as e:  # not allowed, most likely: the Nats-Msg-Id has to do
            log.warning("publisher.cannot_ask", subject=self._settings.last, error=f"{type(e).__name__}: {e}")
            return None
        for line in headers.split("\r\n"):
            name, _, value = line.partition(":")
            if name.strip() == MSG_ID:
                return value.strip()
        return None

    async def _let_go(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            with suppress(NatsError, OSError):  # the client is closed: the subscription went with it
                await subscription.unsubscribe()


def _now() -> float:
    return asyncio.get_running_loop().time()
