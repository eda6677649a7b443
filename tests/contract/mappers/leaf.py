"""A node's leaf server as it really is configured (accounts, users, permissions), but for the link to a hub.

Killed and started again on the same port and data.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Literal

from bus.connect import ConnectSettings
from bus.hub import config
from bus.hub.leaf import MAPPER_INBOX
from bus.identity import keys
from schemas import subjects

NODE = "edge-1"


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class Leaf:
    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "log").mkdir(parents=True)
        public = {}
        for role in ("daemon", "mapper", "system"):
            key = keys.generate("user")
            keys.write_private(folder / f"{role}.seed", key.seed + "\n")
            public[role] = key.public
        text = config.leaf(
            config.LeafConfig(
                dir=folder,
                server_name="leaf",
                port=self.port,
                domain="edge",
                hub_urls=(),
                hub_ca=folder / "none",
                credentials=folder / "none",
                node_telemetry=subjects.telemetry_node(NODE),
                uplink=subjects.uplink(NODE, "life"),
                daemon_key=public["daemon"],
                mapper_key=public["mapper"],
                system_key=public["system"],
                mapper_inbox=MAPPER_INBOX,
                store_bytes_max=1 << 30,
                memory_bytes_max=8 << 20,
                compression="off",
            )
        )
        (folder / "nats.conf").write_text(json.dumps({k: v for k, v in json.loads(text).items() if k != "leafnodes"}))

    def settings(self, role: Literal["daemon", "mapper"], name: str, wait_s: float | None = 30.0) -> ConnectSettings:
        inbox = MAPPER_INBOX if role == "mapper" else subjects.inbox(NODE)
        url = f"nats://127.0.0.1:{self.port}"
        return ConnectSettings((url,), name, nkey_seed=self.folder / f"{role}.seed", inbox=inbox, wait_s=wait_s)

    async def start(self) -> None:
        binary = shutil.which("nats-server", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        assert binary, "nats-server is in the locked requirements"
        command = [binary, "--config", str(self.folder / "nats.conf")]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(500):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                assert self._process.poll() is None, "nats-server ended: " + self._log()
                await asyncio.sleep(0.02)
            else:
                writer.close()
                await writer.wait_closed()
                return
        raise AssertionError("nats-server did not start")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _log(self) -> str:
        path = self.folder / "log" / "nats-server.log"
        return path.read_text()[-2000:] if path.exists() else "no log"
