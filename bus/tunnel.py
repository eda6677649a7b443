"""Streams between an API server and a node behind NAT, over the bus that is there anyway: no port is opened on a node.

``Dialer`` (cloud) opens a session on a node, ``Acceptor`` (node) serves it; both then hold a ``Session``: channels of bytes
with half-close, a window for each (schemas/tunnel.py), and a result at the end.

Core NATS loses messages when a link breaks, and says nothing.  So frames are numbered, both sides ping, and a session that
has a gap or heard nothing for SILENCE_S is broken: readers get TunnelBroken, never a stream that merely stops.  Nothing is
resumed: a log is asked for again, and a command must not run twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import Awaitable, Callable

import nats.errors
import structlog

from bus.connect import Connection, Message, NotConnected, Subscribed
from schemas import codec, subjects, tunnel
from schemas.tunnel import Type

log = structlog.get_logger(__name__)

PING_S = 2.0  # some 100 bytes each way, only while a session is open and has nothing else to say
SILENCE_S = 8.0  # four pings lost, or a node that did nothing for so long: a reader shouldn't wait longer for the truth
OPEN_S = 6.0  # for a node to say yes or no; what it then does may take longer
IDLE_S = 4 * 3600.0  # the kubelet's streaming-connection-idle-timeout
CREDIT_BYTES = tunnel.WINDOW_BYTES // 4  # read bytes are granted again in such portions
SESSIONS_MAX = 64  # on one node: at most 64 windows each way, 16 MB, when nobody reads anything
DIALED_MAX = 1_024  # in one API server
ENDED_BYTES_MAX = 4_096  # of a session's result
MESSAGE_CHARS_MAX = 1_000


class TunnelError(Exception):
    """A session can't be opened or can't go on."""


class TunnelBroken(TunnelError):
    """The other side can't be heard any more, or something was lost on the way."""


class TunnelRefused(TunnelError):
    """The node answered no; ``code`` and ``reason`` are those of a Status."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message


class NodeUnreachable(TunnelError):
    """The node doesn't answer."""


class Session:
    """One session, seen from either side.  Made by Dialer and Acceptor."""

    def __init__(self, subject: str, connection: Connection, peer: str, done: Callable[[], None]) -> None:
        self._subject, self._connection, self._peer, self._done = subject, connection, peer, done
        self._sending = asyncio.Lock()
        self._sent = self._received = 0
        self._credit = [tunnel.WINDOW_BYTES] * tunnel.CHANNELS_MAX
        self._queues: list[deque[bytes]] = [deque() for _ in range(tunnel.CHANNELS_MAX)]
        self._held = [0] * tunnel.CHANNELS_MAX  # bytes under way to our reader: queued, or read and not granted again
        self._read = [0] * tunnel.CHANNELS_MAX
        self._ended = [False] * tunnel.CHANNELS_MAX  # by the other side
        self._waiting: set[asyncio.Future[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._heard_s = self._spoke_s = self._moved_s = self._loop.time()
        self._started = False
        self.ended: tunnel.Ended | None = None
        self._broken: TunnelBroken | None = None
        self._closed = False
        self._beats = asyncio.create_task(self._beat(), name=f"tunnel to {peer}")

    # --- for users

    @property
    def over(self) -> bool:
        return self._closed

    async def ready(self) -> None:
        """Tells the other side that what it asked for has begun."""
        await self._send(Type.READY, 0)

    async def started(self) -> None:
        """Waits for READY.  Raises TunnelRefused when it ended badly before that, TunnelBroken."""
        while not self._started:
            if self._broken is not None:
                raise self._broken
            if self.ended is not None:
                if self.ended.code:
                    raise TunnelRefused(self.ended.code, self.ended.reason, self.ended.message)
                return
            await self._wait()

    async def send(self, channel: int, data: bytes) -> None:
        """Returns when all of it is on its way; waits while the other side doesn't read.  Raises TunnelBroken."""
        view = memoryview(data)
        while view:
            while self._credit[channel] <= 0 and not self._closed:
                await self._wait()
            if self._closed:
                raise self._broken or TunnelBroken(f"{self._peer} has ended the session")
            part = view[: min(tunnel.CHUNK_BYTES_MAX, self._credit[channel])]
            self._credit[channel] -= len(part)
            self._moved_s = self._loop.time()
            await self._send(Type.DATA, channel, bytes(part))
            view = view[len(part) :]

    async def end(self, channel: int) -> None:
        """Nothing more comes from us on this channel."""
        if not self._closed:
            await self._send(Type.END, channel)

    async def receive(self, channel: int) -> bytes | None:
        """The next bytes, None after the last.  Raises TunnelBroken: what came before was not all."""
        queue = self._queues[channel]
        while not queue:
            if self._broken is not None:
                raise self._broken
            if self._ended[channel] or self._closed:
                return None
            await self._wait()
        data = queue.popleft()
        self._read[channel] += len(data)
        if self._read[channel] >= CREDIT_BYTES and not self._closed:
            read, self._read[channel] = self._read[channel], 0
            self._held[channel] -= read
            with contextlib.suppress(TunnelBroken):  # what is queued is still to be read; then it is raised
                await self._send(Type.CREDIT, channel, tunnel.credit(read))
        return data

    async def finished(self) -> tunnel.Ended:
        """Waits for the other side's result.  Raises TunnelBroken."""
        while self.ended is None:
            if self._broken is not None:
                raise self._broken
            if self._closed:
                return tunnel.Ended()
            await self._wait()
        return self.ended

    async def close(self, ended: tunnel.Ended | None = None) -> None:
        """Ends the session, with this result for the other side; the first call counts.  Never fails."""
        if self._closed:
            await self._settle()
            return
        result = ended or tunnel.Ended()
        if len(result.message) > MESSAGE_CHARS_MAX:
            result = result.model_copy(update={"message": result.message[:MESSAGE_CHARS_MAX]})
        with contextlib.suppress(TunnelBroken):
            await self._send(Type.CLOSE, 0, codec.encode(result))
        self._over()
        await self._settle()

    async def fail(self, why: str) -> None:
        """Ends the session as broken, for readers on either side.  Never fails."""
        with contextlib.suppress(TunnelBroken):
            ended = tunnel.Ended(code=503, reason="ServiceUnavailable", message=why)
            await self._send(Type.CLOSE, 0, codec.encode(ended))
        self._break(why)
        await self._settle()

    # --- frames

    async def _send(self, type_: Type, channel: int, payload: bytes = b"") -> None:
        async with self._sending:
            if self._closed:
                raise self._broken or TunnelBroken(f"{self._peer} has ended the session")
            self._sent += 1
            try:
                frame = tunnel.encode(tunnel.Frame(type_, channel, self._sent, payload))
                await self._connection.publish(self._subject, frame)
            except NotConnected as e:
                self._break(f"the connection to the bus was lost: {e}")
                assert self._broken is not None
                raise self._broken from e
            self._spoke_s = self._loop.time()

    def take(self, data: bytes) -> None:
        """A message from the other side."""
        if self._closed:
            return
        try:
            frame = tunnel.decode(data)
            if frame.number != self._received + 1:
                self._break(f"{frame.number - self._received - 1} messages from {self._peer} were lost on the way")
                return
            self._received = frame.number
            self._heard_s = self._loop.time()
            self._apply(frame)
        except (tunnel.FrameError, codec.DecodeError) as e:
            self._break(f"{self._peer} sent what is not a frame: {e}")
        self._wake()

    def _apply(self, frame: tunnel.Frame) -> None:
        channel = frame.channel
        match frame.type:
            case Type.DATA:
                self._moved_s = self._heard_s
                self._held[channel] += len(frame.payload)
                if self._held[channel] > tunnel.WINDOW_BYTES or self._ended[channel]:
                    raise tunnel.FrameError("more than it was allowed to send")
                self._queues[channel].append(frame.payload)
            case Type.END:
                self._ended[channel] = True
            case Type.CREDIT:
                self._credit[channel] += tunnel.credit_of(frame.payload)
                if self._credit[channel] > tunnel.WINDOW_BYTES:
                    raise tunnel.FrameError("credit for more than was sent")
            case Type.READY:
                self._started = True
            case Type.CLOSE:
                self.ended = codec.decode_as(tunnel.Ended, frame.payload, ENDED_BYTES_MAX)
                self._over()
            case Type.PING:
                pass

    # --- ending

    def _break(self, why: str) -> None:
        if not self._closed:
            self._broken = TunnelBroken(why)
            self._over()

    def _over(self) -> None:
        if not self._closed:
            self._closed = True
            self._done()
            self._beats.cancel()
        self._wake()

    async def _settle(self) -> None:
        if self._beats is not asyncio.current_task():
            await asyncio.gather(self._beats, return_exceptions=True)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(PING_S / 2)
            now = self._loop.time()
            if now - self._heard_s > SILENCE_S:
                self._break(
                    f"nothing was heard from {self._peer} for {SILENCE_S:.0f} seconds: the link is cut, or it stands still"
                )
                return
            if now - self._moved_s > IDLE_S:
                self._break(f"nothing was sent either way for {IDLE_S / 3600:.0f} hours")
                return
            if now - self._spoke_s >= PING_S:
                with contextlib.suppress(TunnelBroken):
                    await self._send(Type.PING, 0)

    # --- waiting

    async def _wait(self) -> None:
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.discard(future)

    def _wake(self) -> None:
        for future in self._waiting:
            if not future.done():
                future.set_result(None)


class Dialer:
    """Opens sessions on nodes, for one API server.  ``start`` before, ``stop`` after."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._gateway = secrets.token_hex(8)
        self._sessions: dict[tuple[str, str], Session] = {}
        self._subscribed: Subscribed | None = None

    async def start(self) -> None:
        self._subscribed = await self._connection.subscribe(subjects.tunnels_of(self._gateway), self._frame)
        with contextlib.suppress(nats.errors.Error, TimeoutError, OSError):  # it is made again with the connection
            await self._connection.flush()

    async def stop(self) -> None:
        for session in list(self._sessions.values()):
            await session.fail("the API server ends")
        if self._subscribed is not None:
            await self._subscribed.unsubscribe()

    async def open(self, node: str, uid: str, namespace: str, pod: str, what: tunnel.What) -> Session:
        """A session that the node has accepted; ``started`` tells when its work has begun.

        Raises NodeUnreachable, TunnelRefused."""
        if len(self._sessions) >= DIALED_MAX:
            raise TunnelRefused(429, "TooManyRequests", f"this API server has its {DIALED_MAX} streams to nodes")
        name = secrets.token_hex(16)
        key = (subjects.escape(node), name)
        down = subjects.tunnel_down(node, self._gateway, name)
        request = tunnel.Open(gateway=self._gateway, session=name, pod_uid=uid, namespace=namespace, pod=pod, what=what)
        session = Session(down, self._connection, f"node {node}", lambda: self._forget(key))
        self._sessions[key] = session
        try:
            subject = subjects.command(node, tunnel.TUNNEL)
            answer = await self._connection.request(subject, codec.encode(request), timeout_s=OPEN_S)
            opened = codec.decode_as(tunnel.Opened, answer.data)
        except (nats.errors.Error, NotConnected, OSError, TimeoutError, codec.DecodeError) as e:
            await session.close()
            raise NodeUnreachable(f"node {node} can't be reached: {_reason(e)}") from e
        except BaseException:
            await session.close()
            raise
        if not opened.accepted:
            await session.close()
            raise TunnelRefused(opened.code, opened.reason, opened.message)
        return session

    async def _frame(self, msg: Message) -> None:
        """The node's permission holds it to its own name in the subject, and a session is looked up with it."""
        parts = msg.subject.split(".")
        session = self._sessions.get((parts[1], parts[-1]))
        if session is not None:
            session.take(msg.data)

    def _forget(self, key: tuple[str, str]) -> None:
        self._sessions.pop(key, None)


def _reason(error: BaseException) -> str:
    if isinstance(error, nats.errors.NoRespondersError):
        return "it is not connected"
    if isinstance(error, TimeoutError):
        return f"no answer within {OPEN_S:.0f} seconds"
    return f"{type(error).__name__}: {error}"


Handler = Callable[[tunnel.Open, Session], Awaitable[tunnel.Ended]]


class Acceptor:
    """Serves sessions on a node.  ``handler`` runs as a task for each; what it returns is the session's result."""

    def __init__(self, connection: Connection, node: str, handler: Handler) -> None:
        self._connection, self._node, self._handler = connection, node, handler
        self._sessions: dict[tuple[str, str], Session] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until cancelled."""
        down = await self._connection.subscribe(subjects.tunnels_down(self._node), self._frame)
        asked = await self._connection.subscribe(subjects.command(self._node, tunnel.TUNNEL), self._asked)
        try:
            await asyncio.Event().wait()
        finally:
            await asked.unsubscribe()
            await down.unsubscribe()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _asked(self, msg: Message) -> None:
        try:
            request = codec.decode_as(tunnel.Open, msg.data)
        except codec.DecodeError as e:
            await self._answer(msg, tunnel.Opened(accepted=False, code=400, reason="BadRequest", message=str(e)))
            return
        if len(self._sessions) >= SESSIONS_MAX:
            busy = f"node {self._node} has its {SESSIONS_MAX} streams"
            await self._answer(msg, tunnel.Opened(accepted=False, code=429, reason="TooManyRequests", message=busy))
            return
        key = (request.gateway, request.session)
        up = subjects.tunnel_up(self._node, *key)
        session = Session(up, self._connection, "the API server", lambda: self._forget(key))
        self._sessions[key] = session
        await self._answer(msg, tunnel.Opened(accepted=True))
        task = asyncio.create_task(self._serve(request, session), name=f"tunnel {request.what.kind} {request.pod}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, request: tunnel.Open, session: Session) -> None:
        """The handler ends with the session: who asked has gone, or can't be told any more."""
        work = asyncio.ensure_future(self._handler(request, session))
        gone = asyncio.create_task(_gone(session))
        ended = tunnel.Ended(code=503, reason="ServiceUnavailable", message=f"the daemon of node {self._node} ends")
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                ended = _result(work, request)
        finally:
            work.cancel()
            gone.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)
            await session.close(ended)

    async def _frame(self, msg: Message) -> None:
        parts = msg.subject.split(".")
        session = self._sessions.get((parts[-2], parts[-1]))
        if session is not None:
            session.take(msg.data)

    async def _answer(self, msg: Message, opened: tunnel.Opened) -> None:
        with contextlib.suppress(NotConnected):  # who asked has no answer, and is told that in time
            await self._connection.publish(msg.reply, codec.encode(opened))

    def _forget(self, key: tuple[str, str]) -> None:
        self._sessions.pop(key, None)


async def _gone(session: Session) -> None:
    with contextlib.suppress(TunnelBroken):
        await session.finished()


def _result(work: asyncio.Future[tunnel.Ended], request: tunnel.Open) -> tunnel.Ended:
    error = work.exception()
    if error is None:
        return work.result()
    if isinstance(error, TunnelRefused):
        return tunnel.Ended(code=error.code, reason=error.reason, message=error.message)
    if not isinstance(error, TunnelError):
        log.error("tunnel.handler_failed", kind=request.what.kind, pod=f"{request.namespace}/{request.pod}", exc_info=error)
    return tunnel.Ended(code=500, reason="InternalError", message=f"{type(error).__name__}: {error}")
