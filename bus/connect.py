"""One connection to a NATS server that never gives up.

nats-py's own reconnecting ends after 60 attempts, has no jitter, ends for good when a JWT expires (or at any other -ERR),
and dies silently of an error it doesn't expect.  Here it is bent, not replaced, so that the client object and everything
subscribed on it stay the same for the life of the process:

* endless, with growing pauses and jitter; credentials are read anew at every attempt;
* every -ERR but a refused subject leads to a reconnect;
* a watchdog proves the link by round trips, now and then and at once when an answer that should have come did not, and
  revives a reconnect loop that died;
* of several servers, one that was lost or did not answer is not tried again while there are others: a server that hangs
  takes connections, and would take ours again and again.

A lost link is logged once down, once up.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
import time
import urllib.parse
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats.errors
import structlog
from nats.aio.client import RawCredentials, Server
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from bus import resuming, tasks, wire
from bus.client import PERMISSIONS, Client

log = structlog.get_logger("bus.connect")

Message = Msg  # for those who may not import the NATS client
Callback = Callable[[Msg], Awaitable[None]]

BACKOFF_S_FIRST = 0.1
BACKOFF_S_MAX = 15.0  # a node may be out of reach for weeks; four attempts a minute cost little, and it is back soon
CONNECT_S_MAX = 10  # TCP, TLS and the greeting, on a slow radio link
RTT_S_MAX = 10  # a round trip slower than this is no link
RTT_EVERY_S = 60.0
RTT_DOUBTED_S_MAX = 5  # after a question without an answer: the two together are proof enough
DOUBT_S_MIN = 1.0  # between two proofs, however many questions are without an answer
SHUN_S = 30.0  # a server that failed is not tried before, when there is another; a hung one is restarted by then
SUBSCRIPTION_MESSAGES_MAX = 65_536  # what waits for one slow callback before messages are dropped (and said)
SUBSCRIPTION_BYTES_MAX = 64 << 20
PENDING_BYTES_MAX = 8 << 20  # what is published while the link is down; beyond it nats-py raises OutboundBufferLimitError


class NotConnected(Exception):
    """There is no connection now; it is being made again."""


class ConnectFailed(Exception):
    """The first connection could not be made in the time allowed; the message has the last reason."""


@dataclass(frozen=True, slots=True)
class ConnectSettings:
    """Where and as whom.

    ``credentials`` is a creds file, read at every attempt (renewed JWTs take effect); or ``nkey_seed`` is a seed file, for
    a leaf's local users.  ``ca`` is the PEM file that server certificates must lead to.  ``inbox`` is the prefix of reply
    subjects (``subjects.inbox(node)`` for a node: it may hear no others).  ``credentials_text`` is what a creds file would
    hold, for one process that is thousands of nodes (``ops.fleet``).
    ``wait_s``: how long ``connect`` waits for the first connection; None for ever.
    ``refusal_is_final``: ``connect`` fails at once when the server refuses us or we don't trust it; who runs for ever hopes.
    ``unverified``: TLS that proves nothing of the server, for who asks only what is proven otherwise (bus/identity/join.py).
    ``rtt_every_s``: the watchdog's period; a dead link is noticed within it plus RTT_S_MAX.
    """

    urls: tuple[str, ...]
    name: str
    credentials: Path | None = None
    nkey_seed: Path | None = None
    ca: Path | None = None
    inbox: str = "_INBOX"
    wait_s: float | None = 30.0
    refusal_is_final: bool = False
    unverified: bool = False
    rtt_every_s: float = RTT_EVERY_S
    credentials_text: str = field(default="", repr=False)


def keep_cancellation() -> None:
    """Raises the CancelledError that ``asyncio.wait_for`` (nats-py waits with it) loses before Python 3.12 when it comes
    together with the answer: the task would go on for ever, and who ended it would wait for ever."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _netloc(url: str) -> str:
    return urllib.parse.urlsplit(url).netloc


def _is_refusal(error: str) -> bool:
    return any(word in error.lower() for word in ("authorization", "authentication", "certificate"))


@dataclass(frozen=True, slots=True)
class Subscribed:
    """A subscription; ``unsubscribe`` ends it and never fails."""

    _connection: Connection
    _subscription: Subscription

    async def unsubscribe(self) -> None:
        with contextlib.suppress(nats.errors.Error, OSError):
            await self._subscription.unsubscribe()


class Connection:
    """Made by ``connect``, ended by ``close``.  ``client`` is the same object for its whole life."""

    def __init__(self, settings: ConnectSettings) -> None:
        self.settings = settings
        self.client: Client = Client()
        self.rtt_s: float | None = None
        self.last_error = ""
        self.reconnects = 0
        self._callbacks: list[Callable[[bool], None]] = []
        self._attempts = 0
        self._failed_at: dict[str, float] = {}  # host and port of a server -> when it was lost or could not be reached
        self._trying = ""
        self._doubted = asyncio.Event()
        self._on_doubt: list[Callable[[], None]] = []
        self._down_logged = False
        self._watchdog: asyncio.Task[None] | None = None
        self._closing = False

    @property
    def connected(self) -> bool:
        return self.client.is_connected

    @property
    def closed(self) -> bool:
        return self._closing

    @property
    def payload_bytes_max(self) -> int:
        """What the server takes at most in one message, as it said when it greeted us."""
        return int(self.client.max_payload)

    def on_change(self, callback: Callable[[bool], None]) -> None:
        """``callback(True)`` after each reconnect (subscriptions are there again), ``callback(False)`` after each loss."""
        self._callbacks.append(callback)

    async def subscribe(self, subject: str, callback: Callback, *, queue: str = "") -> Subscribed:
        """Lives across reconnects; what is published while there is no connection is lost, as ever in core NATS."""
        sub = await self.client.subscribe(
            subject,
            queue=queue,
            cb=callback,
            pending_msgs_limit=SUBSCRIPTION_MESSAGES_MAX,
            pending_bytes_limit=SUBSCRIPTION_BYTES_MAX,
        )
        return Subscribed(self, sub)

    async def take(self, subject: str, take: wire.Take) -> Subscribed:
        """As ``subscribe``, for who is called with bytes while they are read and can't be slow (``bus/wire.py``)."""
        return Subscribed(self, await self.client.take(subject, take))

    async def request(self, subject: str, payload: bytes, *, timeout_s: float, headers: dict[str, str] | None = None) -> Msg:
        """Raises NotConnected (nothing was sent), nats.errors.TimeoutError, nats.errors.NoRespondersError."""
        if not self.connected:
            raise NotConnected(f"no connection to {', '.join(self.settings.urls)}: {self.last_error or 'connecting'}")
        try:
            answer = await self.client.request(subject, payload, timeout=timeout_s, headers=headers)
        except (nats.errors.TimeoutError, TimeoutError):
            self.doubt()
            raise
        keep_cancellation()
        return answer

    async def publish(self, subject: str, payload: bytes, *, reply: str = "") -> None:
        """Sends now or raises NotConnected: nothing is kept for later that may be stale by then."""
        if not self.connected:
            raise NotConnected(f"no connection to {', '.join(self.settings.urls)}: {self.last_error or 'connecting'}")
        try:
            await self.client.publish(subject, payload, reply=reply)
        except (nats.errors.Error, OSError) as e:
            raise NotConnected(f"{subject}: not sent: {e!r}") from e

    async def flush(self) -> None:
        """Returns when the server has seen everything sent so far.  Raises nats.errors.TimeoutError."""
        await self.client.flush(timeout=RTT_S_MAX)

    def doubt(self) -> None:
        """An answer that should have come did not: the watchdog looks now whether the server still hears us."""
        self._doubted.set()
        for callback in self._on_doubt:
            callback()

    def on_doubt(self, callback: Callable[[], None]) -> None:
        """Told of each answer that did not come, for those who know more of the way than this connection (a leaf's link)."""
        self._on_doubt.append(callback)

    async def reconnect(self) -> None:
        """Drops the connection and makes it again, e.g. with a JWT that was just renewed."""
        await self.client.force_reconnect()

    async def close(self) -> None:
        """Sends what is pending and ends; safe to call twice."""
        if self._closing:
            return
        self._closing = True
        if self._watchdog is not None:
            await tasks.end(self._watchdog)
        await self.client.shut()

    # --- connecting -------------------------------------------------------------------------------------------------

    async def _first(self) -> None:
        """Until there is a connection."""
        while True:
            client = Client()
            try:
                await client.connect(**self._options())
                keep_cancellation()
            except (nats.errors.Error, OSError, TimeoutError, ssl.SSLError, ValueError) as e:
                if not isinstance(e, nats.errors.NoServersError):  # that one says nothing; error_cb was told the reasons
                    self._note(e)
                self._failed(client.place)
                await client.abandon()
                keep_cancellation()  # lost with the error, we would try for ever though nobody waits any more
                if self.settings.refusal_is_final and _is_refusal(self.last_error):
                    raise ConnectFailed(f"refused by {', '.join(self.settings.urls)}: {self.last_error}") from e
                self._log_down()
                await asyncio.sleep(self._pause())
            except BaseException:
                await client.abandon()
                raise
            else:
                # Failing fast was for the first connection only; from here on it is for ever.
                client.options["allow_reconnect"] = True
                client.options["max_reconnect_attempts"] = -1
                self.client = client
                self._log_up()
                return

    def _options(self) -> dict[str, Any]:
        s = self.settings
        options: dict[str, Any] = {
            "servers": self._by_merit(),  # only the first is tried: the first connection fails fast
            "dont_randomize": True,
            "name": s.name,
            "allow_reconnect": False,
            "max_reconnect_attempts": 1,
            "reconnect_time_wait": 0,
            "connect_timeout": CONNECT_S_MAX,
            "inbox_prefix": s.inbox,
            "pending_size": PENDING_BYTES_MAX,
            "ping_interval": 3600,  # the watchdog below is ours
            "reconnect_to_server_handler": self._next,
            "error_cb": self._on_error,
            "disconnected_cb": self._on_down,
            "reconnected_cb": self._on_up,
        }
        if s.credentials is not None:
            options["user_credentials"] = str(s.credentials)
        elif s.credentials_text:
            options["user_credentials"] = RawCredentials(s.credentials_text)
        if s.nkey_seed is not None:
            options["nkeys_seed"] = str(s.nkey_seed)
        if (context := self._context()) is not None:
            options["tls"] = context
        return options

    def _context(self) -> ssl.SSLContext | None:
        s = self.settings
        if s.unverified:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            return context
        return resuming.trust(s.ca, web=any(url.startswith("wss:") for url in s.urls)) if s.ca is not None else None

    def _next(self, servers: list[Server], _info: dict[str, Any]) -> tuple[Server | None, float]:
        """Which server to try, and after how many seconds."""
        self._failed(self._trying)  # the last one tried, or we would not be asked
        with contextlib.suppress(OSError, ssl.SSLError):  # whom to trust may be another by now
            if (context := self._context()) is not None:
                self.client.options["tls"] = context
        best = self._by_merit()[0]
        server = next((s for s in servers if s.uri.netloc == _netloc(best)), None) or random.choice(servers)
        self._trying = server.uri.netloc
        return server, self._pause()

    def _by_merit(self) -> list[str]:
        """URLs, those that failed of late last, else in any order."""
        urls = random.sample(self.settings.urls, len(self.settings.urls))
        now = time.monotonic()
        return sorted(urls, key=lambda u: now - self._failed_at.get(_netloc(u), -SHUN_S) < SHUN_S)

    def _failed(self, netloc: str) -> None:
        if netloc:
            self._failed_at[netloc] = time.monotonic()

    def _pause(self) -> float:
        """Full jitter above a tenth: what was cut off together doesn't come back together."""
        limit = min(BACKOFF_S_MAX, BACKOFF_S_FIRST * 2 ** min(self._attempts, 16))
        self._attempts += 1
        return float(limit * random.uniform(0.1, 1.0))

    # --- what nats-py tells -----------------------------------------------------------------------------------------

    async def _on_error(self, error: Exception) -> None:
        if isinstance(error, nats.errors.SlowConsumerError):
            log.error("connect.dropped", name=self.settings.name, subject=error.subject, reason="a callback is too slow")
        elif PERMISSIONS in str(error).lower():
            log.error("connect.refused", name=self.settings.name, reason=str(error))
        else:
            self._note(error)

    async def _on_down(self) -> None:
        if self._closing:
            return
        self._trying = ""
        self._failed(self.client.place)
        self._log_down()
        self._tell(False)

    async def _on_up(self) -> None:
        self.reconnects += 1
        self._log_up()
        self._tell(True)

    def _tell(self, up: bool) -> None:
        for callback in self._callbacks:
            try:
                callback(up)
            except Exception:  # a listener's bug must not end nats-py's reconnect loop, which calls us
                log.exception("connect.listener_failed", name=self.settings.name)

    def _note(self, error: BaseException | None) -> None:
        if error is not None:
            self.last_error = f"{type(error).__name__}: {error}"[:300]

    def _log_down(self) -> None:
        if not self._down_logged:
            self._down_logged = True
            urls = list(self.settings.urls)
            log.warning("connect.down", name=self.settings.name, urls=urls, reason=self.last_error or "closed by the server")

    def _log_up(self) -> None:
        self._attempts = 0
        self._failed_at.pop(self._trying, None)
        self.last_error = ""
        if self._down_logged:
            self._down_logged = False
            log.info("connect.up", name=self.settings.name)

    # --- watchdog ---------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            doubted = await self._due()
            client = self.client
            if client.stuck:
                log.error("connect.revived", name=self.settings.name, reason=self.last_error)
                client.revive()
            elif client.is_connected:
                started = time.monotonic()
                try:
                    await client.flush(timeout=RTT_DOUBTED_S_MAX if doubted else RTT_S_MAX)
                    self.rtt_s = time.monotonic() - started
                except (nats.errors.Error, OSError, TimeoutError) as e:
                    self._note(e)
                    await client.force_reconnect()

    async def _due(self) -> bool:
        """Returns when the link is to be proved: True when somebody doubts it."""
        await asyncio.sleep(min(DOUBT_S_MIN, self.settings.rtt_every_s))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.settings.rtt_every_s - DOUBT_S_MIN):
                await self._doubted.wait()
        doubted = self._doubted.is_set()
        self._doubted.clear()
        return doubted


async def connect(settings: ConnectSettings) -> Connection:
    """Raises ConnectFailed when there is no connection within ``wait_s``."""
    connection = Connection(settings)
    try:
        async with asyncio.timeout(settings.wait_s):
            await connection._first()
    except TimeoutError as e:
        reason = connection.last_error or "no answer"
        raise ConnectFailed(f"no connection to {', '.join(settings.urls)} within {settings.wait_s} s: {reason}") from e
    connection._watchdog = asyncio.create_task(connection._watch(), name=f"watchdog of {settings.name}")
    return connection
