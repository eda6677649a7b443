"""A connection with the face of ``connect.Connection``, in some kilobytes: no task while it is connected.

Its callbacks run where their message is read, so they must not wait (a replica's, a link's, an outbox's don't); one that
does is a bug and raises.  Pauses, jitter and proofs by round trip are those of ``connect``.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import itertools
import json
import os
import random
import socket
import ssl
import time
import urllib.parse
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, cast

import nats.errors
from nats.aio.client import Client

from bus import connect, resuming, tasks
from bus.client import CONNECT, PROTOCOL
from bus.connect import Callback, ConnectSettings, Message, NotConnected
from bus.identity import creds, keys
from bus.slim import protocol

_NO_CLIENT = cast("Client", None)  # nobody answers a message through the message here
_ERR_STAYS = b"permissions violation"


@functools.lru_cache(maxsize=8)
def _trust(ca: Path) -> ssl.SSLContext:
    """Once a process: a storm is no time to look at a file for each connection."""
    return resuming.lean(ca)


class SlimError(Exception):
    """The server greets or answers otherwise than expected; the message says what came."""


class _Wire(asyncio.Protocol):
    """One TCP connection; its owner is told of what comes.  ``greeted`` has the server's INFO, ``ready`` its first PONG."""

    __slots__ = ("_owner", "_parser", "greeted", "lost", "ready")

    def __init__(self, owner: SlimConnection) -> None:
        loop = asyncio.get_running_loop()
        self._owner, self._parser = owner, protocol.Parser()
        self.lost = False
        self.greeted: asyncio.Future[dict[str, Any]] | None = loop.create_future()
        self.ready: asyncio.Future[None] | None = loop.create_future()

    def data_received(self, data: bytes) -> None:
        for item in self._parser.feed(data):
            if isinstance(item, protocol.Body):
                self._owner._message(item)
            elif item.verb == b"INFO" and self.greeted is not None:
                greeted, self.greeted = self.greeted, None
                if not greeted.done():
                    greeted.set_result(json.loads(item.rest))
            elif item.verb == b"PONG" and self.ready is not None:
                self.open()
            else:
                self._owner._control(self, item)

    def open(self) -> None:
        ready, self.ready = self.ready, None
        if ready is not None and not ready.done():
            ready.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        error = exc or SlimError(self._owner.last_error or "closed by the server")
        for waits in (self.greeted, self.ready):
            if waits is not None and not waits.done():
                waits.set_exception(error)
                waits.exception()  # who doesn't wait any more doesn't have to look
        self._owner._lost(self)


class SlimConnection(connect.Connection):
    """``dialing`` bounds the handshakes of a process; ``source`` is the local address to connect from."""

    def __init__(self, settings: ConnectSettings, dialing: asyncio.Semaphore, source: str = "") -> None:
        # Not super().__init__(): a client of nats-py is most of what this class is there to do without.
        self.settings = settings
        self.rtt_s = None
        self.last_error = ""
        self.reconnects = 0
        self._callbacks = []
        self._attempts = 0
        self._closing = False
        self._dialing, self._source = dialing, source
        self._wire: _Wire | None = None
        self._transport: asyncio.Transport | None = None
        self._subscribed: dict[bytes, tuple[str, Callback]] = {}
        self._sids = itertools.count(1)
        self._inbox = ""
        self._waiting: dict[str, asyncio.Future[Message]] = {}
        self._reconnecting: asyncio.Task[None] | None = None
        self._proof: asyncio.TimerHandle | None = None
        self._asked_at = 0.0  # of a round trip under way
        self._out: list[bytes] = []
        self._payload_bytes_max = 1 << 20
        self._tickets = resuming.Tickets()

    # --- what connect.Connection offers

    @property
    def connected(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    @property
    def payload_bytes_max(self) -> int:
        return self._payload_bytes_max

    async def subscribe(self, subject: str, callback: Callback, *, queue: str = "") -> _Subscribed:  # type: ignore[override]
        sid = b"%d" % next(self._sids)
        self._subscribed[sid] = (subject, callback)
        self._write(self._sub_line(subject, sid))
        return _Subscribed(self, sid)

    async def publish(self, subject: str, payload: bytes, *, reply: str = "") -> None:
        self._send(subject, payload, reply, None)

    async def request(
        self, subject: str, payload: bytes, *, timeout_s: float, headers: dict[str, str] | None = None
    ) -> Message:
        if not self._inbox:
            self._inbox = f"{self.settings.inbox}.{os.urandom(6).hex()}"
            await self.subscribe(f"{self._inbox}.*", self._answered)
        token = os.urandom(6).hex()
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[token] = answer
        try:
            self._send(subject, payload, f"{self._inbox}.{token}", headers)
            async with asyncio.timeout(timeout_s):
                msg = await answer
        except TimeoutError as e:
            self.doubt()
            raise nats.errors.TimeoutError from e
        finally:
            del self._waiting[token]
        if (msg.headers or {}).get("Status") == "503":
            raise nats.errors.NoRespondersError
        return msg

    async def flush(self) -> None:
        raise NotImplementedError("a slim connection proves itself by its timer")

    def doubt(self) -> None:
        if self._transport is not None and not self._asked_at:
            self._ask_round_trip()

    def on_doubt(self, callback: Any) -> None:
        raise NotImplementedError("a slim connection has no leaf")

    async def reconnect(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        if self._reconnecting is not None:
            await tasks.end(self._reconnecting)
        self._drop()

    @property
    def sock(self) -> socket.socket | None:
        """The kernel's side of it (``ops.fleet.wire`` asks what it has carried)."""
        return None if self._transport is None else self._transport.get_extra_info("socket")

    # --- connecting

    async def _first(self) -> None:
        while True:
            try:
                await self._dial()
                return
            except (OSError, ssl.SSLError, TimeoutError, SlimError, protocol.ProtocolError) as e:
                self._note(e)
                self._drop()
            await asyncio.sleep(self._pause())

    async def _again(self) -> None:
        while True:
            await asyncio.sleep(self._pause())
            try:
                await self._dial()
            except (OSError, ssl.SSLError, TimeoutError, SlimError, protocol.ProtocolError) as e:
                self._note(e)
                self._drop()
                continue
            break
        self.reconnects += 1
        self._reconnecting = None
        self._tell(True)

    async def _dial(self) -> None:
        url = urllib.parse.urlsplit(random.choice(self.settings.urls))
        assert url.hostname is not None and url.port is not None
        loop = asyncio.get_running_loop()
        local = (self._source, 0) if self._source else None
        async with self._dialing, asyncio.timeout(connect.CONNECT_S_MAX):
            wire = _Wire(self)
            self._wire = wire
            assert wire.greeted is not None and wire.ready is not None
            greeted, ready = wire.greeted, wire.ready
            transport, _ = await loop.create_connection(lambda: wire, url.hostname, url.port, local_addr=local)
            self._transport_of(transport)
            try:
                info = await greeted
                if info.get("tls_required"):
                    assert self.settings.ca is not None
                    trust = _trust(self.settings.ca)
                    with self._tickets.dialing(url.netloc):
                        secured = await loop.start_tls(transport, wire, trust, server_hostname=url.hostname)
                    if secured is None:
                        raise SlimError("closed in the TLS handshake")
                    transport = secured
                self._hello(transport, info)
                said = dict(self._subscribed)
                await ready
                if wire.lost:
                    raise SlimError(self.last_error or "closed after the greeting")
            except BaseException:
                transport.abort()
                raise
            self._out = []
            self._transport = transport
            for sid, (subject, _) in said.items():  # what changed while the greeting was under way
                if sid not in self._subscribed:
                    self._write(self._unsub_line(subject, sid))
            for sid, (subject, _) in self._subscribed.items():
                if sid not in said:
                    self._write(self._sub_line(subject, sid))
        self._attempts = 0
        self.last_error = ""
        self._payload_bytes_max = int(info.get("max_payload", self._payload_bytes_max))
        self._asked_at = 0.0
        self._arm()

    def _transport_of(self, transport: asyncio.Transport) -> None:
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _hello(self, transport: asyncio.Transport, info: dict[str, Any]) -> None:
        options = {"verbose": False, "pedantic": False, "name": self.settings.name, "lang": "python3", "version": "slim",
                   "protocol": PROTOCOL, "headers": True, "no_responders": True, **self._proof_of(info)}  # fmt: skip
        lines = [CONNECT + json.dumps(options, separators=(",", ":")).encode() + b"\r\n", *self._sub_lines(), b"PING\r\n"]
        transport.write(b"".join(lines))  # in one packet

    def _sub_lines(self) -> list[bytes]:
        return [self._sub_line(subject, sid) for sid, (subject, _callback) in self._subscribed.items()]

    def _proof_of(self, info: dict[str, Any]) -> dict[str, Any]:
        """JWT and signed nonce (ADR-14)."""
        nonce = info.get("nonce")
        if not nonce:
            return {}
        held = creds.parse(self.settings.credentials_text)
        signature = base64.urlsafe_b64encode(keys.Key("", held.seed).sign(nonce.encode())).rstrip(b"=").decode()
        return {"jwt": held.jwt, "sig": signature}

    def _drop(self) -> None:
        if self._proof is not None:
            self._proof.cancel()
            self._proof = None
        self._wire = None
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()

    def _lost(self, wire: _Wire) -> None:
        if wire is not self._wire or self._transport is None:
            return  # while it was being made: whoever makes it is told
        self._drop()
        if self._closing:
            return
        self._tell(False)
        self._reconnecting = asyncio.get_running_loop().create_task(self._again(), name=f"{self.settings.name}.reconnect")

    # --- a round trip now and then

    def _arm(self) -> None:
        every = self.settings.rtt_every_s
        self._proof = asyncio.get_running_loop().call_later(every, self._ask_round_trip)

    def _ask_round_trip(self) -> None:
        if self._transport is None:
            return
        if self._proof is not None:
            self._proof.cancel()
        self._asked_at = time.monotonic()
        self._write(b"PING\r\n")
        self._proof = asyncio.get_running_loop().call_later(connect.RTT_S_MAX, self._silent)

    def _silent(self) -> None:
        self.last_error = f"no answer in {connect.RTT_S_MAX} s"
        if self._transport is not None:
            self._transport.abort()

    # --- what comes, what goes

    def _send(self, subject: str, payload: bytes, reply: str, headers: dict[str, str] | None) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            raise NotConnected(f"no connection to {', '.join(self.settings.urls)}: {self.last_error or 'connecting'}")
        if transport.get_write_buffer_size() > connect.PENDING_BYTES_MAX:
            raise NotConnected(f"{subject}: not sent: {connect.PENDING_BYTES_MAX} bytes wait for the server already")
        self._write(self._pub(subject, reply, payload, headers))

    def _write(self, data: bytes) -> None:
        """With what else is written in this turn of the loop: a packet each would be most of what a small message costs."""
        if self._transport is None:
            return
        if not self._out:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None:
            self._transport.write(b"".join(out))

    def _pub(self, subject: str, reply: str, payload: bytes, headers: dict[str, str] | None) -> bytes:
        return protocol.publish("PUB", subject, reply, payload, headers)

    def _sub_line(self, subject: str, sid: bytes) -> bytes:
        return b"SUB %s %s\r\n" % (subject.encode(), sid)

    def _unsub_line(self, subject: str, sid: bytes) -> bytes:
        return b"UNSUB %s\r\n" % sid

    def _unsubscribe(self, sid: bytes) -> None:
        found = self._subscribed.pop(sid, None)
        if found is not None:
            self._write(self._unsub_line(found[0], sid))

    def _callback_of(self, words: list[bytes]) -> Callback | None:
        found = self._subscribed.get(words[1])
        return None if found is None else found[1]

    def _reply_of(self, words: list[bytes]) -> str:
        return words[2].decode() if len(words) > 2 else ""

    def _message(self, body: protocol.Body) -> None:
        callback = self._callback_of(body.words)
        if callback is None:
            return
        status, headers = protocol.headers_of(body.headers)
        if status:
            headers = {**(headers or {}), "Status": status}
        msg = Message(_NO_CLIENT, body.words[0].decode(), self._reply_of(body.words), body.payload, headers)
        _run(cast("Coroutine[Any, Any, None]", callback(msg)))

    async def _answered(self, msg: Message) -> None:
        waits = self._waiting.get(msg.subject.rpartition(".")[2])
        if waits is not None and not waits.done():
            waits.set_result(msg)

    def _control(self, wire: _Wire, line: protocol.Line) -> None:
        if line.verb == b"PING":
            self._write(b"PONG\r\n")
        elif line.verb == b"PONG" and self._asked_at:
            self.rtt_s, self._asked_at = time.monotonic() - self._asked_at, 0.0
            if self._proof is not None:
                self._proof.cancel()
            self._arm()
        elif line.verb == b"-ERR":
            self.last_error = line.rest.decode(errors="replace")[:300]
            if self._transport is not None and _ERR_STAYS not in line.rest.lower():
                self._transport.abort()


class _Subscribed:
    __slots__ = ("_connection", "_sid")

    def __init__(self, connection: SlimConnection, sid: bytes) -> None:
        self._connection, self._sid = connection, sid

    async def unsubscribe(self) -> None:
        self._connection._unsubscribe(self._sid)


def _run(callback: Coroutine[Any, Any, None]) -> None:
    """To its end, at once."""
    try:
        callback.send(None)
    except StopIteration:
        return
    callback.close()
    raise SlimError("a callback of a slim connection must not wait")


async def connected(
    settings: ConnectSettings, dialing: asyncio.Semaphore, *, source: str = "", kind: type[SlimConnection] = SlimConnection
) -> SlimConnection:
    """For ever, or for ``settings.wait_s``.  Raises connect.ConnectFailed."""
    made = kind(settings, dialing, source)
    try:
        async with asyncio.timeout(settings.wait_s):
            await made._first()
    except TimeoutError as e:
        await made.close()
        reason = made.last_error or "no answer"
        raise connect.ConnectFailed(f"no connection to {', '.join(settings.urls)} in {settings.wait_s} s: {reason}") from e
    except BaseException:
        await made.close()
        raise
    return made
