"""One connection to a NATS server that never gives up.

nats-py's own reconnecting ends after 60 attempts, has no jitter, and ends for good when a JWT expires.  So it is switched
off here (``allow_reconnect=False``), and a loop above it makes a new client each time, with credentials read anew.
The ``client`` therefore changes with each reconnect: subscriptions are made through ``subscribe`` of this class, which
makes them again, or in an ``on_change`` callback.  A lost link is logged once down, once up.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

log = structlog.get_logger("bus.connect")

BACKOFF_S_FIRST = 0.1
BACKOFF_S_MAX = 15.0  # a node may be out of reach for weeks; four attempts a minute cost little, and it is back soon
CONNECT_S_MAX = 10  # TCP, TLS and the greeting, on a slow radio link
RTT_S_MAX = 10.0  # a round trip slower than this is no link
DRAIN_S_MAX = 5
SUBSCRIPTION_MESSAGES_MAX = 65_536  # what waits for one slow callback before messages are dropped (and said)
SUBSCRIPTION_BYTES_MAX = 64 << 20
PENDING_BYTES_MAX = 16 << 20  # what waits for the socket; a publish beyond it waits

Callback = Callable[[Msg], Awaitable[None]]


class NotConnected(Exception):
    """There is no connection now; it is being made again."""


class ConnectFailed(Exception):
    """The first connection could not be made in the time allowed; the cause is chained."""


@dataclass(frozen=True, slots=True)
class ConnectSettings:
    """Where and as whom.

    ``credentials`` is a creds file, read at every attempt (renewed JWTs take effect); or ``user`` and ``password`` for a leaf.
    ``ca`` is the PEM file that server certificates must lead to.  ``inbox`` is the prefix of reply subjects
    (``subjects.inbox(node)`` for a node: it may hear no others).
    ``wait_s``: how long ``connect`` waits for the first connection; None for ever, 0 returns at once and connects behind.
    """

    urls: tuple[str, ...]
    name: str
    credentials: Path | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    ca: Path | None = None
    inbox: str = "_INBOX"
    wait_s: float | None = 30.0
    rtt_every_s: float = 60.0  # the watchdog's period: a dead link is noticed within this plus RTT_S_MAX


@dataclass(slots=True, eq=False)
class Subscribed:
    """A subscription that lives across reconnects; ``unsubscribe`` ends it."""

    subject: str
    callback: Callback
    queue: str
    _owner: Connection
    _now: Subscription | None = None

    async def unsubscribe(self) -> None:
        self._owner._subscriptions.discard(self)
        now, self._now = self._now, None
        if now is not None and self._owner.connected:
            with contextlib.suppress(nats.errors.Error):
                await now.unsubscribe()


class Connection:
    """Made by ``connect``; ended by ``close``."""

    def __init__(self, settings: ConnectSettings) -> None:
        self.settings = settings
        self.closed = False
        self.connects = 0
        self.rtt_s: float | None = None
        self.last_error = ""
        self._client: Client | None = None
        self._lost = asyncio.Event()
        self._up = asyncio.Event()
        self._callbacks: list[Callable[[bool], Awaitable[None] | None]] = []
        self._subscriptions: set[Subscribed] = set()
        self._task: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        return self._client is not None and self._client.is_connected and not self._lost.is_set()

    @property
    def client(self) -> Client:
        """The client of now; raises NotConnected.  Don't keep it: the next reconnect makes another."""
        if self._client is None or not self.connected:
            raise NotConnected(f"no connection to {', '.join(self.settings.urls)}: {self.last_error or 'connecting'}")
        return self._client

    def on_change(self, callback: Callable[[bool], Awaitable[None] | None]) -> None:
        """``callback(True)`` after each (re)connect, subscriptions being there again; ``callback(False)`` after each loss."""
        self._callbacks.append(callback)

    async def wait_connected(self) -> Client:
        """The client, as soon as there is one."""
        while not self.connected:
            if self.closed:
                raise NotConnected("the connection is closed")
            self._up.clear()
            await self._up.wait()
        return self.client

    async def subscribe(self, subject: str, callback: Callback, *, queue: str = "") -> Subscribed:
        """Messages that arrive while there is no connection are lost, as ever in core NATS."""
        sub = Subscribed(subject, callback, queue, self)
        self._subscriptions.add(sub)
        if self.connected:
            await self._attach(self.client, sub)
        return sub

    async def request(self, subject: str, payload: bytes, *, timeout_s: float, headers: dict[str, str] | None = None) -> Msg:
        """Raises NotConnected, or nats.errors.TimeoutError and NoRespondersError."""
        return await self.client.request(subject, payload, timeout=timeout_s, headers=headers)

    async def flush(self) -> None:
        """Returns when the server has seen everything sent so far."""
        await self.client.flush(timeout=int(RTT_S_MAX))

    def reconnect(self) -> None:
        """Drops the connection and makes it again, e.g. with a JWT that was just renewed."""
        self._lost.set()

    async def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._up.set()

    # --- the loop ---------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        backoff = BACKOFF_S_FIRST
        while True:
            try:
                client = await self._open()
            except (nats.errors.Error, OSError, TimeoutError, ssl.SSLError, ValueError) as e:
                self._failed(e)
            else:
                try:
                    up_at = time.monotonic()
                    await self._live(client)
                finally:
                    await self._shut(client)
                if time.monotonic() - up_at > BACKOFF_S_MAX:
                    backoff = BACKOFF_S_FIRST
            await asyncio.sleep(backoff * random.uniform(0.5, 1.0))
            backoff = min(backoff * 2, BACKOFF_S_MAX)

    def _failed(self, error: BaseException) -> None:
        text = f"{type(error).__name__}: {error}"[:300]
        if not self.last_error:
            log.warning("can't connect, trying on", name=self.settings.name, urls=list(self.settings.urls), reason=text)
        self.last_error = text

    async def _open(self) -> Client:
        s = self.settings
        self._lost.clear()
        client = Client()
        options: dict[str, Any] = {}
        if s.credentials is not None:
            options["user_credentials"] = str(s.credentials)
        if s.user is not None:
            options |= {"user": s.user, "password": s.password}
        if s.ca is not None:
            options["tls"] = ssl.create_default_context(cafile=str(s.ca))
        urls = list(s.urls)
        random.shuffle(urls)  # nodes that lost one hub don't all go to the same next one
        last: BaseException | None = None
        for url in urls:
            try:
                await asyncio.wait_for(
                    client.connect(
                        url,
                        name=s.name,
                        allow_reconnect=False,
                        connect_timeout=CONNECT_S_MAX,
                        drain_timeout=DRAIN_S_MAX,
                        inbox_prefix=s.inbox,
                        pending_size=PENDING_BYTES_MAX,
                        ping_interval=3600,  # the watchdog below is ours
                        error_cb=self._on_error,
                        disconnected_cb=self._on_lost,
                        closed_cb=self._on_lost,
                        **options,
                    ),
                    CONNECT_S_MAX + 2,
                )
                return client
            except (nats.errors.Error, OSError, TimeoutError, ssl.SSLError) as e:
                last = e
                await self._shut(client)
                client = Client()
        assert last is not None
        raise last

    async def _live(self, client: Client) -> None:
        """One connection, from its subscriptions to its loss."""
        try:
            for sub in list(self._subscriptions):
                await self._attach(client, sub)
        except (nats.errors.Error, OSError, TimeoutError) as e:
            self._failed(e)
            return
        self._client = client
        self.connects += 1
        if self.connects > 1 or self.last_error:
            log.info("connected", name=self.settings.name, url=_plain(client))
        self.last_error = ""
        self._up.set()
        await self._tell(True)
        try:
            await self._watch(client)
        finally:
            self._client = None
            for sub in self._subscriptions:
                sub._now = None
        log.warning("connection lost", name=self.settings.name, reason=self.last_error or "closed by the server")
        self.last_error = self.last_error or "closed by the server"
        await self._tell(False)

    async def _watch(self, client: Client) -> None:
        """Returns when the link is gone; proves it by a round trip now and then."""
        while not self._lost.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._lost.wait(), self.settings.rtt_every_s)
                return
            started = time.monotonic()
            try:
                await client.flush(timeout=int(RTT_S_MAX))
            except (nats.errors.Error, OSError, TimeoutError) as e:
                self.last_error = f"no round trip within {RTT_S_MAX:.0f} s: {type(e).__name__}"
                return
            self.rtt_s = time.monotonic() - started

    async def _attach(self, client: Client, sub: Subscribed) -> None:
        sub._now = await client.subscribe(
            sub.subject,
            queue=sub.queue,
            cb=sub.callback,
            pending_msgs_limit=SUBSCRIPTION_MESSAGES_MAX,
            pending_bytes_limit=SUBSCRIPTION_BYTES_MAX,
        )

    async def _tell(self, up: bool) -> None:
        for callback in self._callbacks:
            done = callback(up)
            if done is not None:
                await done

    async def _shut(self, client: Client) -> None:
        with contextlib.suppress(nats.errors.Error, OSError, TimeoutError, ValueError):
            await client.close()

    async def _on_lost(self) -> None:
        self._lost.set()

    async def _on_error(self, error: Exception) -> None:
        if isinstance(error, nats.errors.SlowConsumerError):
            log.error("messages dropped: a callback is too slow", name=self.settings.name, subject=error.subject)
            return
        text = f"{type(error).__name__}: {error}"[:300]
        if "permissions violation" in text.lower():
            log.error("refused by the server", name=self.settings.name, reason=text)
            return
        self.last_error = text


def _plain(client: Client) -> str:
    url = client.connected_url
    return "" if url is None else f"{url.hostname}:{url.port}"


async def connect(settings: ConnectSettings) -> Connection:
    """Raises ConnectFailed when there is no connection within ``wait_s``."""
    connection = Connection(settings)
    connection._task = asyncio.create_task(connection._run(), name=f"connection {settings.name}")
    if settings.wait_s == 0:
        return connection
    try:
        await asyncio.wait_for(connection.wait_connected(), settings.wait_s)
    except TimeoutError as e:
        reason = connection.last_error or "no answer"
        await connection.close()
        raise ConnectFailed(f"can't connect to {', '.join(settings.urls)} within {settings.wait_s} s: {reason}") from e
    except BaseException:
        await connection.close()
        raise
    return connection
