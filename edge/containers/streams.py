"""Logs, commands and attachments of containers as streams of bytes, as long as somebody reads.

Unlike ``Runtime``'s operations these have no time limit: who asked ends them.  Nothing is gathered: the engine is read as
fast as the reader goes, in pieces of at most CHUNK_BYTES.
Source: Docker Engine API, ContainerLogs, ContainerAttach ("Stream format"), ContainerExec, ExecStart.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiodocker
import aiohttp

from edge.containers.errors import RuntimeFailure, RuntimeUnavailable
from edge.containers.runtime import STATUS_NO_CONNECTION, Runtime

CHUNK_BYTES = 32 << 10
LOOK_S = 1.0  # how soon it is noticed that nobody reads some input any more
HEAD_BYTES = 8  # stream, three zeros, length
STDIN, STDOUT, STDERR = 0, 1, 2


class NoSuchContainer(RuntimeFailure):
    """It was there a moment ago."""


@dataclass(frozen=True, slots=True)
class LogOptions:
    """``tail`` None: all; ``since``: seconds since 1970 with a fraction, "" for all."""

    follow: bool = False
    timestamps: bool = False
    tail: int | None = None
    since: str = ""
    stdout: bool = True
    stderr: bool = True


class Demultiplexer:
    """The frames of an engine's stream, taken apart without waiting for a frame's end: memory is bounded by the input."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._left = 0
        self._stream = STDOUT

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """(stream, bytes), in order.  Raises RuntimeFailure for what is not such a stream."""
        out = []
        at = 0
        while at < len(data):
            if self._left == 0:
                taken = data[at : at + HEAD_BYTES - len(self._head)]
                self._head += taken
                at += len(taken)
                if len(self._head) == HEAD_BYTES:
                    self._stream = self._head[0]
                    if self._stream > STDERR or any(self._head[1:4]):
                        raise RuntimeFailure("LogsError", "the engine's stream has a frame of an unknown kind")
                    self._left = int.from_bytes(self._head[4:])
                    self._head.clear()
            else:
                part = data[at : at + self._left]
                at += len(part)
                self._left -= len(part)
                out.append((self._stream, part))
        return out


@contextlib.asynccontextmanager
async def _ours(what: str, reason: str) -> AsyncIterator[None]:
    """Around every use of the engine: our own errors."""
    try:
        yield
    except TimeoutError:  # an OSError too, and always one of ours: nothing here is waited for so long that it has failed
        raise
    except aiodocker.DockerError as e:
        if e.status == STATUS_NO_CONNECTION:
            raise RuntimeUnavailable(e.message) from e
        kind = NoSuchContainer if e.status == 404 else RuntimeFailure
        raise kind(reason, f"{what}: {e.message}") from e
    except (aiohttp.ClientError, OSError) as e:
        raise RuntimeUnavailable(f"{what}: the container engine was lost: {type(e).__name__}: {e}") from e


async def _tty(runtime: Runtime, container: str) -> bool:
    shown = await runtime.client.containers.container(container).show()
    return bool((shown.get("Config") or {}).get("Tty"))


@contextlib.asynccontextmanager
async def logs(runtime: Runtime, container: str, options: LogOptions) -> AsyncIterator[AsyncGenerator[bytes, None]]:
    """Both streams of a container's log in the order of writing.  Raises NoSuchContainer, RuntimeFailure."""
    what = f"logs of {container}"
    params: dict[str, Any] = {
        "stdout": int(options.stdout),
        "stderr": int(options.stderr),
        "follow": int(options.follow),
        "timestamps": int(options.timestamps),
        "tail": "all" if options.tail is None else options.tail,
    }
    if options.since:
        params["since"] = options.since
    endless = aiohttp.ClientTimeout(total=None, sock_read=None)
    async with _ours(what, "LogsError"):
        tty = await _tty(runtime, container)
        # aiodocker's own call decodes the text; a log is bytes.
        async with runtime.client._query(f"containers/{container}/logs", params=params, timeout=endless) as response:
            yield _pieces(response, tty, what)


async def _pieces(response: aiohttp.ClientResponse, tty: bool, what: str) -> AsyncGenerator[bytes, None]:
    frames = Demultiplexer()
    async with _ours(what, "LogsError"):
        async for chunk in response.content.iter_chunked(CHUNK_BYTES):
            if tty:
                yield chunk
                continue
            if data := b"".join(part for _, part in frames.feed(chunk)):
                yield data


class Talk:
    """A command or a main process that is talked to.  With a terminal everything comes as stdout."""

    def __init__(self, stream: Any, resize: Any, what: str) -> None:
        self._stream, self._resize, self._what = stream, resize, what
        self._over = False  # the process, while the engine holds its streams open for input that nobody reads

    async def read(self) -> tuple[int, bytes] | None:
        """(STDOUT or STDERR, bytes); None at the end.  Raises RuntimeFailure."""
        while True:
            try:
                async with _ours(self._what, "ExecError"), asyncio.timeout(LOOK_S):
                    message = await self._stream.read_out()
            except TimeoutError:
                if self._over:
                    return None
                continue
            return None if message is None else (message.stream, message.data)

    async def write(self, data: bytes) -> None:
        """Waits while the process doesn't read.  Raises RuntimeFailure, also when it doesn't read any more at all."""
        async with _ours(self._what, "ExecError"):
            wait = self._stream.write_in(data)
            while True:
                try:
                    async with asyncio.timeout(LOOK_S):
                        await wait
                        return
                except TimeoutError:
                    if await self.ended():
                        self._over = True
                        raise RuntimeFailure("ExecError", f"{self._what}: it has ended and reads no more") from None
                    wait = self._stream._resp.connection.protocol._drain_helper()  # the data itself is on its way

    async def ended(self) -> bool:
        return False

    def write_eof(self) -> None:
        """The process reads its end of file, where it has an input of its own."""

    async def resize(self, width: int, height: int) -> None:
        """Raises RuntimeFailure."""
        async with _ours(self._what, "ExecError"):
            await self._resize(h=height, w=width)


class Execution(Talk):
    def __init__(self, execution: Any, stream: Any, what: str) -> None:
        super().__init__(stream, execution.resize, what)
        self._execution = execution

    async def ended(self) -> bool:
        return not (await self._execution.inspect()).get("Running")

    def write_eof(self) -> None:
        connection = self._stream._resp.connection  # aiodocker can only close both ways at once
        if connection is not None and connection.transport is not None and connection.transport.can_write_eof():
            connection.transport.write_eof()

    async def exit_code(self) -> int:
        """After the end of its output.  Raises RuntimeFailure."""
        async with _ours(self._what, "ExecError"):
            code = (await self._execution.inspect()).get("ExitCode")
        return code if isinstance(code, int) else -1


@contextlib.asynccontextmanager
async def execute(
    runtime: Runtime, container: str, command: list[str], *, stdin: bool, stdout: bool, stderr: bool, tty: bool
) -> AsyncIterator[Execution]:
    """A command, started.  Leaving the context takes its streams away; an engine can't stop it."""
    what = f"exec in {container}"
    async with _ours(what, "ExecError"):
        handle = runtime.client.containers.container(container)
        execution = await handle.exec(command, stdin=stdin, stdout=stdout, stderr=stderr, tty=tty)
        stream = execution.start(detach=False)
        async with stream:
            yield Execution(execution, stream, what)


@contextlib.asynccontextmanager
async def attach(runtime: Runtime, container: str, *, stdin: bool, stdout: bool, stderr: bool) -> AsyncIterator[Talk]:
    """The main process of a running container.  Its input outlives who writes it: an engine takes the end of the input
    for the end of the attachment.  Raises RuntimeFailure for a container that has ended: an engine would attach to it and
    be silent for ever."""
    what = f"attach to {container}"
    async with _ours(what, "AttachError"):
        handle = runtime.client.containers.container(container)
        async with handle.attach(stdin=stdin, stdout=stdout, stderr=stderr) as stream:
            state = (await handle.show()).get("State") or {}  # looked at when attached: an end after that is in the stream
            if not state.get("Running"):
                raise RuntimeFailure("AttachError", f"{what}: it is not running ({state.get('Status', 'unknown')})")

            async def resize(*, h: int, w: int) -> None:
                async with runtime.client._query(f"containers/{container}/resize", "POST", params={"h": h, "w": w}):
                    pass

            yield Talk(stream, resize, what)
