"""A mapper whose samples are counted while all goes wrong: numbered, on the node's own bus with a mapper's credentials and
a mapper's publisher, each counted once the leaf has taken it.

    python -m ops.chaos.writer <node's folder> <subject>

says ``ready <boot>``, and answers ``<offered> <accepted>`` to every line on standard input.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import structlog

from bus import connect, stamp
from bus.hub import leaf
from bus.publisher import Publisher
from bus.tasks import end
from schemas import codec
from schemas.telemetry import Sample

EVERY_S = 0.1


async def main(node_dir: Path, subject: str) -> None:
    connection = await connect.connect(leaf.prepare(leaf.LeafSettings(node_dir, port=0)).mapper("chaos writer", wait_s=None))
    publisher = Publisher(connection)
    stdin = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    boot = stamp.new_id()

    async def measure() -> None:
        seq = 0
        while True:
            seq += 1
            sample = Sample(value=seq, time=time.time_ns() // 1000, seq=seq, boot=boot)
            publisher.offer(subject, codec.encode(sample), f"{boot}/{seq}")
            await asyncio.sleep(EVERY_S)

    tasks = [asyncio.create_task(publisher.run()), asyncio.create_task(measure())]
    print("ready", boot, flush=True)
    while await stdin.readline():
        s = publisher.stats
        print(s.offered, s.acked, flush=True)
    for task in tasks:
        await end(task)
    await connection.close()


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # standard output is for the answers
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
