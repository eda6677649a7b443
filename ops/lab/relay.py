"""A link that can be cut: a TCP relay between a node's leaf and the hub.

Cut means what a pulled cable means to both ends: open connections die and new ones are refused, until it is healed.
Commands come as lines on standard input (``cut``, ``heal``, ``count``) and are answered on standard output; the end of the
input ends the relay.  ``count`` answers the bytes carried up and down, so that what a reconnect cost on the wire is
measured, not guessed.  ``chunks`` answers in how many pieces they came: on an idle link each is a packet, and its
acknowledgement another.  ``shape <delay ms> <jitter ms> <loss>`` makes it slow, each way: loss as TCP shows it to whoever
uses it, a wait for the retransmission.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys

CHUNK = 64 << 10
WAITING_MAX = 64  # chunks on their way: what a slow link holds; beyond it the sender waits
RETRANSMIT_S = 0.2  # Linux' shortest retransmission timeout


class Relay:
    def __init__(self, to_host: str, to_port: int) -> None:
        self._to = (to_host, to_port)
        self._open: set[asyncio.Task[None]] = set()
        self._up = self._down = 0
        self._chunks = [0, 0]
        self._cut = False
        self._delay_s = self._jitter_s = self._loss = 0.0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            if self._cut:
                return
            up_reader, up_writer = await asyncio.open_connection(*self._to)
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._pump(reader, up_writer, up=True))
                    both.create_task(self._pump(up_reader, writer, up=False))
            finally:
                up_writer.transport.abort()
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(task)
            writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        loop = asyncio.get_running_loop()
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(WAITING_MAX)

        async def deliver() -> None:
            while True:
                due, data = await waiting.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                writer.write(data)
                await writer.drain()

        async with asyncio.TaskGroup() as both:
            delivering = both.create_task(deliver())
            while data := await reader.read(CHUNK):
                self._chunks[not up] += 1
                if up:
                    self._up += len(data)
                else:
                    self._down += len(data)
                await waiting.put((loop.time() + self._wait_s(), data))
            delivering.cancel()
        raise ConnectionResetError("one side is done")

    def _wait_s(self) -> float:
        wait = self._delay_s + random.uniform(0, self._jitter_s)
        while random.random() < self._loss:
            wait += RETRANSMIT_S + 2 * self._delay_s
        return wait

    def command(self, line: str) -> str:
        match line.strip():
            case "cut":
                self._cut = True
                for task in list(self._open):
                    task.cancel()
                return "cut"
            case "heal":
                self._cut = False
                return "healed"
            case "count":
                return f"{self._up} {self._down}"
            case "chunks":
                return f"{self._chunks[0]} {self._chunks[1]}"
            case text if text.startswith("shape "):
                delay, jitter, self._loss = map(float, text.split()[1:])
                self._delay_s, self._jitter_s = delay / 1000, jitter / 1000
                return "shaped"
            case other:
                return f"unknown command {other!r}"


async def main(to_host: str, to_port: int, listen_port: int) -> None:
    relay = Relay(to_host, to_port)
    server = await asyncio.start_server(relay.serve, "127.0.0.1", listen_port)
    print(server.sockets[0].getsockname()[1], flush=True)
    stdin = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    while line := await stdin.readline():
        print(relay.command(line.decode()), flush=True)
    relay.command("cut")
    server.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(2):
            await server.wait_closed()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
