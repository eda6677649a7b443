"""One session of the tunnel, served by the node's container engine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time

from bus.connect import Connection
from bus.tunnel import Acceptor, Session, TunnelBroken, TunnelRefused
from edge.containers import streams
from edge.containers.errors import RuntimeFailure
from edge.core.pod_state import PodState
from edge.effects import PodsRim
from edge.node_api import usage, which
from schemas import codec, tunnel

CONNECT_S = 10.0  # into a pod on this very machine
READ_BYTES = 32 << 10
SIZE_MAX = 10_000  # of a terminal's side


class NodeApi:
    """``run`` until cancelled."""

    def __init__(self, connection: Connection, node: str, pods: PodsRim) -> None:
        self._pods = pods
        self._acceptor = Acceptor(connection, node, self._serve)

    async def run(self) -> None:
        await self._acceptor.run()

    async def _serve(self, request: tunnel.Open, session: Session) -> tunnel.Ended:
        if isinstance(request.what, tunnel.Usage):
            return await self._usage(session)
        pod = self._pods.core.pods.get(request.pod_uid)
        if pod is None:
            raise TunnelRefused(404, "NotFound", f'pod "{request.pod}" is not on its node, or not yet')
        try:
            match request.what:
                case tunnel.Logs() as what:
                    return await self._logs(pod, what, session)
                case tunnel.Exec() as what:
                    return await self._exec(pod, what, session)
                case tunnel.Attach() as what:
                    return await self._attach(pod, what, session)
                case tunnel.Port() as what:
                    return await _port(pod, what, session)
        except streams.NoSuchContainer as e:
            raise TunnelRefused(404, "NotFound", str(e)) from e
        except RuntimeFailure as e:
            raise TunnelRefused(500, "InternalError", f"Internal error occurred: {e}") from e

    async def _usage(self, session: Session) -> tunnel.Ended:
        await session.ready()
        await session.send(tunnel.STDOUT, codec.encode(await usage.measure(self._pods)))
        await session.end(tunnel.STDOUT)
        return tunnel.Ended()

    async def _logs(self, pod: PodState, what: tunnel.Logs, session: Session) -> tunnel.Ended:
        container = which.for_logs(pod, what.container, what.previous)
        since_us = what.since_us
        if what.since_s:
            since_us = max(1, time.time_ns() // 1000 - what.since_s * 1_000_000)
        options = streams.LogOptions(
            follow=what.follow and not what.previous,
            timestamps=what.timestamps,
            tail=what.tail,
            since=f"{since_us // 1_000_000}.{since_us % 1_000_000:06d}" if since_us else "",
            stdout=what.streams != "stderr",
            stderr=what.streams != "stdout",
        )
        left = what.bytes_max
        async with streams.logs(self._pods.runtime, container, options) as pieces:
            await session.ready()
            async with contextlib.aclosing(pieces):
                async for piece in pieces:
                    if left is not None:
                        piece = piece[:left]
                        left -= len(piece)
                    await session.send(tunnel.STDOUT, piece)
                    if left == 0:
                        break
        return tunnel.Ended()

    async def _exec(self, pod: PodState, what: tunnel.Exec, session: Session) -> tunnel.Ended:
        container = which.running(pod, what.container)
        async with streams.execute(
            self._pods.runtime,
            container,
            what.command,
            stdin=what.stdin,
            stdout=what.stdout,
            stderr=what.stderr,
            tty=what.tty,
        ) as execution:
            await session.ready()
            await _talk(execution, session)
            return tunnel.Ended(exit_code=await execution.exit_code())

    async def _attach(self, pod: PodState, what: tunnel.Attach, session: Session) -> tunnel.Ended:
        container = which.running(pod, what.container)
        async with streams.attach(
            self._pods.runtime, container, stdin=what.stdin, stdout=what.stdout, stderr=what.stderr
        ) as talk:
            await session.ready()
            await _talk(talk, session)
        return tunnel.Ended()


async def _talk(talk: streams.Talk, session: Session) -> None:
    """Until the process has closed its output; what it didn't read of its input is dropped."""
    inputs = [asyncio.create_task(_stdin(talk, session)), asyncio.create_task(_sizes(talk, session))]
    try:
        while (said := await talk.read()) is not None:
            stream, data = said
            await session.send(tunnel.STDERR if stream == streams.STDERR else tunnel.STDOUT, data)
    finally:
        for task in inputs:
            task.cancel()
        await asyncio.gather(*inputs, return_exceptions=True)


async def _stdin(talk: streams.Talk, session: Session) -> None:
    with contextlib.suppress(TunnelBroken, RuntimeFailure):  # the output's end tells what it was
        while (data := await session.receive(tunnel.STDIN)) is not None:
            await talk.write(data)
        talk.write_eof()


async def _sizes(talk: streams.Talk, session: Session) -> None:
    with contextlib.suppress(TunnelBroken):
        while (data := await session.receive(tunnel.RESIZE)) is not None:
            size = _size(data)
            if size is not None:
                with contextlib.suppress(RuntimeFailure):  # it may just have ended
                    await talk.resize(*size)


def _size(data: bytes) -> tuple[int, int] | None:
    """(width, height) of ``{"Width": 80, "Height": 24}``; None for anything else."""
    try:
        raw = json.loads(data)
        width, height = raw["Width"], raw["Height"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    good = all(type(n) is int and 0 < n <= SIZE_MAX for n in (width, height))
    return (width, height) if good else None


async def _port(pod: PodState, what: tunnel.Port, session: Session) -> tunnel.Ended:
    host = which.address(pod)
    try:
        async with asyncio.timeout(CONNECT_S):
            reader, writer = await asyncio.open_connection(host, what.port, limit=READ_BYTES)
    except (OSError, TimeoutError) as e:
        why = f"no answer within {CONNECT_S:.0f} s" if e.errno is None else os.strerror(e.errno).lower()
        raise TunnelRefused(500, "InternalError", f"dial tcp {host}:{what.port}: connect: {why}") from e
    await session.ready()
    down = asyncio.create_task(_to_pod(writer, session))
    try:
        while data := await reader.read(READ_BYTES):
            await session.send(tunnel.STDOUT, data)
        await session.end(tunnel.STDOUT)
        await down
    except OSError as e:
        raise TunnelRefused(500, "InternalError", f"{host}:{what.port}: {e.strerror or e}") from e
    finally:
        down.cancel()
        await asyncio.gather(down, return_exceptions=True)
        writer.transport.abort()
    return tunnel.Ended()


async def _to_pod(writer: asyncio.StreamWriter, session: Session) -> None:
    while (data := await session.receive(tunnel.STDIN)) is not None:
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
