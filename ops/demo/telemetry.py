"""What the demo reads of telemetry: the hub's stream and the leaf's own, and whether every sample is there once."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

from bus import connect, log
from bus.hub import init, leaf
from ops.lab.show import StepFailed
from schemas import codec, subjects
from schemas.telemetry import Sample

STREAM = "TELEMETRY"


def hub_settings(hub_dir: Path) -> connect.ConnectSettings:
    hub = init.load_hub(hub_dir)
    return connect.ConnectSettings(tuple(hub.urls), "demo", credentials=hub.core_creds, ca=hub.ca_path)


def leaf_settings(node_dir: Path) -> connect.ConnectSettings:
    return leaf.prepare(leaf.LeafSettings(node_dir, port=0)).daemon("demo")


async def _read(settings: connect.ConnectSettings, subject: str | None) -> list[log.Recorded]:
    connection = await connect.connect(settings)
    store = log.Log(connection)
    out: list[log.Recorded] = []
    try:
        async for batch in store.follow(STREAM, [subject] if subject else None):
            out += batch.records
            if batch.pending == 0:
                break
        return out
    finally:
        await store.close()
        await connection.close()


def at_hub(hub_dir: Path, node: str, device: str, prop: str, namespace: str = "default") -> list[Sample]:
    records = asyncio.run(_read(hub_settings(hub_dir), subjects.telemetry(node, namespace, device, prop)))
    return [codec.decode_as(Sample, r.payload) for r in records]


def on_leaf(node_dir: Path) -> list[tuple[str, str]]:
    """(subject, message id) of everything in the node's own stream."""
    return [_name(r) for r in asyncio.run(_read(leaf_settings(node_dir), None))]


def missing_at_hub(hub_dir: Path, kept: list[tuple[str, str]], node: str) -> int:
    """How many of these the hub lacks."""
    records = asyncio.run(_read(hub_settings(hub_dir), subjects.telemetry_node(node)))
    return len(set(kept) - {_name(r) for r in records})


def _name(r: log.Recorded) -> tuple[str, str]:
    s = codec.decode_as(Sample, r.payload)
    return r.subject, f"{s.boot}/{s.seq}"


def check_whole(samples: list[Sample]) -> int:
    """The number of samples; raises StepFailed unless they count from 1 without a gap or a repetition in each boot."""
    boots: dict[str, list[int]] = {}
    for s in samples:
        boots.setdefault(s.boot, []).append(s.seq)
    for boot, seqs in boots.items():
        wrong = [(a, b) for a, b in pairwise([0, *seqs]) if b != a + 1]
        if wrong:
            raise StepFailed(f"samples of {boot} are not 1, 2, 3 ...: {wrong[:5]} of {len(seqs)}")
    return len(samples)
