"""A dispatcher as a process of its own, to be killed: ``python -m tests.contract.cloud.dispatching URL``."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from bus import connect, log
from cloud.dispatcher import DispatcherWorker


def start(url: str) -> subprocess.Popen[bytes]:
    root = Path(__file__).resolve().parents[3]
    env = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.Popen([sys.executable, "-m", __name__, url], cwd=root, env=env)


async def _run(url: str) -> None:
    connection = await connect.connect(connect.ConnectSettings(urls=(url,), name="dispatcher"))
    await DispatcherWorker(log.Log(connection), 1).run()


if __name__ == "__main__":
    asyncio.run(_run(sys.argv[1]))
