"""What a mapper tells the daemon about its device, on the node's own bus, with a mapper's credentials."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bus import connect
from bus.hub import leaf
from mappers.local import BusDaemon, DaemonUnavailable
from ops.lab.show import StepFailed
from schemas.devices import TwinUpdate
from schemas.reports import TwinValue

CONNECT_S = 10.0
ANSWER_S = 10.0


def tell(node_dir: Path, device: str, prop: str, value: int, *, boot: str, seq: int, time_us: int) -> None:
    """Stored by the daemon when this returns.  Raises StepFailed."""
    asyncio.run(_tell(node_dir, device, prop, value, boot, seq, time_us))


async def _tell(node_dir: Path, device: str, prop: str, value: int, boot: str, seq: int, time_us: int) -> None:
    settings = leaf.prepare(leaf.LeafSettings(node_dir, port=0)).mapper("chaos twin", wait_s=CONNECT_S)
    try:
        connection = await connect.connect(settings)
    except connect.ConnectFailed as e:
        raise StepFailed(f"the node's bus can't be reached: {e}") from e
    try:
        daemon = BusDaemon(connection, "virtual", "chaos", ANSWER_S)
        config = next((d for d in (await daemon.devices()).devices if d.name == device), None)
        if config is None:
            raise StepFailed(f"the daemon knows no device {device}")
        answer = await daemon.report(
            TwinUpdate(
                namespace=config.namespace,
                device=device,
                uid=config.uid,
                boot=boot,
                seq=seq,
                state="online",
                values=[TwinValue(property=prop, value=value, time=time_us)],
            )
        )
    except DaemonUnavailable as e:
        raise StepFailed(f"the daemon does not take what a device says: {e}") from e
    finally:
        await connection.close()
    if not (answer.ok and answer.known):
        raise StepFailed(f"the daemon does not take what a device says: {answer.message or 'it knows no such device'}")
