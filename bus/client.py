"""nats-py's client, bent where it gives up and where it is slow (``bus/connect.py`` says why, ``bus/wire.py`` how)."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import nats.errors
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.protocol import command

from bus import resuming, tasks, transport, wire

CLOSE_S_MAX = 2.0  # to send what is pending and say goodbye
PERMISSIONS = "permissions violation"
# What CONNECT says: 1 wants an INFO after it (0.6 kB, once a connection) and another when the cluster changes, with servers
# to turn to.  Ours come from our settings, under names that the certificates have.
PROTOCOL = 0
CONNECT = b"CONNECT "

_WRITES = ("write", "writelines")
_ENDS = "wait_closed"


def _ended(_: object) -> None:
    """Instead of what asyncio does when TLS was aborted: an AttributeError, which nobody takes for a lost connection and
    which would end whoever publishes at that moment (Python 3.11, ``sslproto.py``)."""
    raise ConnectionResetError("the connection was ended")


async def _ended_already() -> None:
    """Instead of waiting for an end that was made: asyncio's future of it dies with the first task that is cancelled while
    it waits, and then cancels everybody who asks later, every further attempt to reconnect among them."""


class Client(NatsClient):
    """nats-py's client, less its ways to give up."""

    def __init__(self) -> None:
        super().__init__()
        self._reconnecting: set[asyncio.Task[Any]] = set()
        self.taking: dict[int, wire.Take] = {}
        self._tickets = resuming.Tickets()
        self._subscribed_again = False
        self._ps = wire.Parser(self)

    async def _attempt_reconnect(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._reconnecting.add(task)
        try:
            self._abort()
            # An attempt that replaced another may find the future set that both share; it is the last thing it does.
            with contextlib.suppress(asyncio.InvalidStateError):
                await super()._attempt_reconnect()
        finally:
            self._reconnecting.discard(task)

    async def _connect_to_server(self, s: Any) -> None:
        """nats-py forgets the connection of an attempt that failed after TCP (a server that hangs, a refused TLS): open."""
        self._abort()
        if self._transport is not None:
            for name in (*_WRITES, _ENDS):
                vars(self._transport).pop(name, None)  # nats-py takes the same object for the next connection
        elif s.uri.scheme not in ("ws", "wss"):
            self._transport = transport.Transport(self._tickets)
        await super()._connect_to_server(s)

    def _connect_command(self) -> bytes:
        """With the subscriptions behind it, when there are any: nats-py says each in a packet of its own, a round trip
        later, and waits for one more until they are there."""
        options = {**json.loads(super()._connect_command().removeprefix(CONNECT)), "protocol": PROTOCOL}
        if options.get("echo"):
            del options["echo"]  # the server's own default; it is one for none of the others
        line = CONNECT + json.dumps(options, separators=(",", ":")).encode() + b"\r\n"
        if not isinstance(self._transport, transport.Transport):
            return line
        again = [command.sub_cmd(sub._subject, sub._queue, sid) for sid, sub in self._subs.items() if not sub._max_msgs]
        self._subscribed_again = bool(again) and len(again) == len(self._subs)
        self._transport.hold(again)
        return line + b"".join(again)

    async def flush(self, timeout: int = 10) -> None:
        """After a reconnect nats-py asks whether its subscriptions are there; the greeting's answer has said so."""
        if self._subscribed_again and isinstance(self._transport, transport.Transport):
            self._subscribed_again = False
            self._transport.forget()
            return
        await super().flush(timeout)

    async def shut(self) -> None:
        """``close``, also in the middle of a reconnect, which nats-py's own leaves running."""
        for task in list(self._reconnecting):
            await tasks.end(task)
        current = asyncio.current_task()
        before = 0 if current is None else current.cancelling()
        try:
            # Python 3.11 never says that a connection whose TLS handshake failed is closed, and nats-py waits for that.
            async with asyncio.timeout(CLOSE_S_MAX):
                await self.close()
        except (nats.errors.Error, OSError, ValueError, TimeoutError):
            pass
        except asyncio.CancelledError:
            # The future that tells of the transport's end dies with whoever waited for it first: the reconnect above.
            if current is not None and current.cancelling() > before:
                raise
        self._abort()

    def _abort(self) -> None:
        """The connection is lost or not wanted: without this, ending its TLS politely waits 30 s for a peer that is gone."""
        for name in ("_io_writer", "_bare_io_writer"):  # of nats-py's TCP transport; a WebSocket has none
            writer = getattr(self._transport, name, None)
            if writer is not None:
                writer.transport.abort()
        if self._transport is not None:
            for name in _WRITES:
                setattr(self._transport, name, _ended)
            setattr(self._transport, _ENDS, _ended_already)

    async def _process_err(self, err_msg: str) -> None:
        error = nats.errors.Error(f"nats: {err_msg.strip(chr(39))}")
        await self._error_cb(error)
        if PERMISSIONS not in err_msg.lower():  # a refused subject is told, and the connection stays
            await self._process_op_err(error)

    async def _process_pong(self) -> None:
        """A pong that comes after its flush gave up finds that flush's future done; nats-py's reader ends of it, silently,
        and the connection hears nothing more until the watchdog looks."""
        with contextlib.suppress(asyncio.InvalidStateError):
            await super()._process_pong()

    @property
    def place(self) -> str:
        """Host and port of the server that it is, was or tries to be connected to."""
        server = self._current_server
        return "" if server is None else str(server.uri.netloc)

    @property
    def stuck(self) -> bool:
        """Neither connected nor on the way there."""
        task: asyncio.Task[None] | None = self._reconnection_task
        return not self.is_connected and not self.is_closed and (task is None or task.done())

    def revive(self) -> None:
        self._status = NatsClient.RECONNECTING
        self._ps.reset()
        self._reconnection_task = asyncio.get_running_loop().create_task(self._attempt_reconnect())

    async def abandon(self) -> None:
        """Ends a client that never connected, silently: why it didn't was told before."""
        self._error_cb = _ignore
        self._abort()
        await self.shut()

    # --- the short way in and out -----------------------------------------------------------------------------------

    async def take(self, subject: str, take: wire.Take) -> Subscription:
        """A subscription whose messages are given to ``take`` while they are read, without queue, task or limit."""
        subscription = await self.subscribe(subject, cb=_unused)
        self.taking[subscription._id] = take
        return subscription

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        super()._remove_sub(sid, max_msgs)
        self.taking.pop(sid, None)

    def send(self, data: bytes, messages: int) -> None:
        """Whole messages as ``wire.publish`` makes them, in one write, after what was published before.  The caller bounds
        how much it sends without an answer; nobody is waited for."""
        self._pending.append(data)
        self._pending_data_size += len(data)
        self.stats["out_msgs"] += messages
        self.stats["out_bytes"] += len(data)
        if self._flush_queue is not None and self._flush_queue.empty():
            self._flush_queue.put_nowait(asyncio.get_running_loop().create_future())


async def _ignore(_: Exception) -> None:
    pass


async def _unused(_: Msg) -> None:
    pass
