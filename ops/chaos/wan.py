"""A wide-area network in user space: packets between two TUN devices, one here and one in a node's network namespace.

The kernel's own netem does this better, where a kernel has it; many don't (small virtual machines, some clouds).  Here every
packet is read, waits for its delay, or is lost, and is written on the other side: TCP sees true loss and true delay.  Order
is kept: a jitter that overtook packets would measure TCP's reordering, not the link.

    python -m ops.chaos.wan <network namespace> <device here> <device there>

says ``ready`` when both devices are there; then takes ``shape <delay ms> <jitter ms> <loss there> <loss back>`` by line, and
answers ``ok``.  Loss 1 is a cut: silence, no connection is told.  The devices go with the process.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import random
import struct
import sys
from collections import deque
from pathlib import Path

TUNSETIFF = 0x400454CA  # linux/if_tun.h
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
CLONE_NEWNET = 0x40000000  # sched.h
PACKET_BYTES_MAX = 65536
QUEUE_PACKETS_MAX = 1000  # netem's own default limit: beyond it packets are lost, as in a router


def open_tun(name: str) -> int:
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return descriptor


def enter(namespace: Path) -> None:
    """This thread's network becomes that of a namespace.  Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    with namespace.open() as f:
        if libc.setns(f.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {namespace}")


class Way:
    """One direction."""

    def __init__(self, source: int, sink: int) -> None:
        self._source, self._sink = source, sink
        self._queue: deque[tuple[float, bytes]] = deque()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self.delay_s = self.jitter_s = self.loss = 0.0
        self._loop.add_reader(source, self._read)

    def _read(self) -> None:
        try:
            packet = os.read(self._source, PACKET_BYTES_MAX)
        except BlockingIOError:
            return
        if len(self._queue) >= QUEUE_PACKETS_MAX or random.random() < self.loss:
            return
        due = self._loop.time() + self.delay_s + random.uniform(0, self.jitter_s)
        if self._queue:
            due = max(due, self._queue[-1][0])
        self._queue.append((due, packet))
        if self._timer is None:
            self._deliver()

    def _deliver(self) -> None:
        self._timer = None
        while self._queue and self._queue[0][0] <= self._loop.time():
            try:
                os.write(self._sink, self._queue.popleft()[1])
            except OSError:
                continue  # the device is down: lost, as on any wire
        if self._queue:
            self._timer = self._loop.call_at(self._queue[0][0], self._deliver)


async def main(namespace: Path, here: str, there: str) -> None:
    near = open_tun(here)
    enter(namespace)
    far = open_tun(there)
    ways = [Way(near, far), Way(far, near)]
    print("ready", flush=True)
    stdin = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    while line := await stdin.readline():
        _, delay, jitter, *losses = line.decode().split()
        for way, loss in zip(ways, losses, strict=True):
            way.delay_s, way.jitter_s, way.loss = float(delay) / 1000, float(jitter) / 1000, float(loss)
        print("ok", flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
