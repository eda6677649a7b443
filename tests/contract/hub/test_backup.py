"""A backup of a running hub and its restore: whole, in new epochs, or not at all."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bus.hub import backup, init, streams, supervise, telemetry
from bus.identity import accounts, join, jwt, keys
from cloud import epochs
from schemas import subjects
from tests.contract import hub_fixture, node_fixture
from tests.contract.bus import plain
from tests.contract.hub_fixture import RunningHub

pytestmark = pytest.mark.contract


async def put(hub: RunningHub, name: str, size: int = 10) -> int:
    data = {"kind": "ConfigMap", "blob": os.urandom(size)}
    return await hub.log.append(subjects.cluster(plain.cm(name)), plain.make_event(plain.cm(name), data))


async def fill(hub: RunningHub) -> None:
    for n in range(12):
        await put(hub, f"c{n % 5}", 100_000)  # several chunks
    while (await hub.log.info("HISTORY-CLUSTER")).last_seq < 12:
        await asyncio.sleep(0.05)


def tree(folder: Path) -> dict[str, bytes]:
    """What a restore must not touch."""
    skipped = ("jetstream", "log")
    return {
        str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.relative_to(folder).parts[0] not in skipped
    }


async def test_a_restored_hub_has_everything_in_other_epochs_and_goes_on(tmp_path: Path) -> None:
    running = await hub_fixture.start_hub(tmp_path / "hub")
    file = tmp_path / "b.tar.gz"
    stolen = keys.generate("user").public
    try:
        async with node_fixture.join_service(running) as service:
            await node_fixture.join_node(running, tmp_path / "n", "edge-1")
            await telemetry.add_telemetry_source(running.log, "edge-1", join.public_key(tmp_path / "n"))
            await fill(running)
            made = await backup.backup(running.hub, running.core, running.log, file)
            was = {s.name: await running.log.info(s.name) for s in made.streams}
            records = (await running.log.last("CLUSTER", ["cluster.>"])).records
            assert service._sys is not None
            await put(running, "after")
            await accounts.revoke(running.hub, service._sys, stolen)
        with pytest.raises(backup.BackupError, match="never written over"):
            await backup.backup(running.hub, running.core, running.log, file)
        with pytest.raises(backup.BackupError, match="runs: end it first"):
            await backup.restore(file, running.hub.dir, replace=True)
    finally:
        await hub_fixture.stop_hub(running)
    assert file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(backup.BackupError, match="replaced only when asked"):
        await backup.restore(file, running.hub.dir)
    hub, _, aside = await backup.restore(file, running.hub.dir, replace=True)
    assert hub.id == running.hub.id and hub.file.epoch != running.hub.file.epoch
    assert aside is not None and init.load_hub(aside).file == running.hub.file
    assert stolen in jwt.claims_of(hub.account_jwt(hub.accounts.edge).read_text())["nats"]["revocations"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.tar.gz", "hub", aside.name, "n"]

    again = await hub_fixture.start_hub(hub.dir)
    try:
        assert await streams.differences(again.log, shards=hub.shards) == {}
        now = {n: await again.log.info(n) for n in was}
        assert {n: i.last_seq for n, i in now.items()} == {n: i.last_seq for n, i in was.items()}
        fresh = {i.epoch for i in now.values()}
        assert len(fresh) == len(now) and not fresh & {i.epoch for i in was.values()}
        found = (await again.log.last("CLUSTER", ["cluster.>"])).records
        assert [(r.seq, r.subject, r.payload) for r in found] == [(r.seq, r.subject, r.payload) for r in records]
        # the node's telemetry is fetched again, and the history follows its origin
        assert [s["filter_subject"] for s in now["TELEMETRY"].config["sources"]] == ["telemetry.edge-1.>"]
        assert await put(again, "after") == was["CLUSTER"].last_seq + 1
        while (await again.log.info("HISTORY-CLUSTER")).last_seq != was["CLUSTER"].last_seq + 1:
            await asyncio.sleep(0.05)
        # what answers a node's beat is another mark than before
        marks = epochs.Epochs(again.log, hub.shards)
        assert marks.mark("edge-1") == b""
        looking = asyncio.create_task(marks.run())
        while not (mark := marks.mark("edge-1")):
            await asyncio.sleep(0.01)
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        before = epochs.Epochs(again.log, hub.shards)
        before._epochs = {n: was[f"META-{n}"].epoch for n in range(hub.shards)}
        assert before.mark("edge-1") != mark
    finally:
        await hub_fixture.stop_hub(again)


def _rewrite(data: bytes, change: Callable[[str, bytes], tuple[str, bytes] | None]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as old, tarfile.open(fileobj=out, mode="w:gz") as new:
        for m in old:
            f = old.extractfile(m)
            assert f is not None
            changed = change(m.name, f.read())
            if changed is not None:
                info = tarfile.TarInfo(changed[0])
                info.size = len(changed[1])
                new.addfile(info, io.BytesIO(changed[1]))
    return out.getvalue()


def _flip(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def _outside(name: str, data: bytes) -> tuple[str, bytes]:
    if name != backup.MANIFEST:
        return name, data
    raw = json.loads(data)
    raw["files"][0]["path"] = "../../escaped"
    return name, json.dumps(raw).encode()


def _member(member: str, change: Callable[[bytes], bytes] | None) -> Callable[[bytes], bytes]:
    """A backup with one member changed, or left out."""

    def one(name: str, data: bytes) -> tuple[str, bytes] | None:
        return (name, data) if name != member else (name, change(data)) if change else None

    return lambda backup_: _rewrite(backup_, one)


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "truncated": (lambda b: b[: len(b) // 2], "no backup, or is damaged"),
    "cut short by its last bytes": (lambda b: b[:-9], "no backup, or is damaged"),
    "a flipped bit": (_member("streams/CLUSTER", _flip), "the checksum of streams/CLUSTER is wrong"),
    "a key changed": (_member("hub/keys/operator.seed", _flip), "the checksum of hub/keys/operator.seed is wrong"),
    "a stream missing": (_member("streams/META-0", None), "streams/META-0 is missing"),
    "a stranger": (lambda b: _rewrite(b, lambda n, d: (n.replace("META-0", "X"), d)), "manifest doesn't know"),
    "another format": (_member(backup.MANIFEST, lambda _: b'{"format": 99}'), "format 99"),
    "no manifest": (_member(backup.MANIFEST, None), "does not begin with"),
    "a path outside": (lambda b: _rewrite(b, _outside), "outside of itself"),
    "not gzip": (lambda b: b"hello" * 1000, "no backup, or is damaged"),
    "empty": (lambda b: b"", "no backup, or is damaged"),
    "gzip of nothing": (lambda b: gzip.compress(b""), "no backup"),
}


async def test_a_damaged_backup_changes_nothing(tmp_path: Path) -> None:
    running = await hub_fixture.start_hub(tmp_path / "hub")
    file = tmp_path / "b.tar.gz"
    try:
        await fill(running)
        await backup.backup(running.hub, running.core, running.log, file)
    finally:
        await hub_fixture.stop_hub(running)
    good, before = file.read_bytes(), tree(tmp_path / "hub")
    for what, (damage, said) in DAMAGES.items():
        file.write_bytes(damage(good))
        for target in (tmp_path / "hub", tmp_path / "new"):
            with pytest.raises(backup.BackupError, match=said):
                await backup.restore(file, target, replace=True)
        assert tree(tmp_path / "hub") == before, what
        assert sorted(p.name for p in tmp_path.iterdir()) == ["b.tar.gz", "hub"], what


async def test_a_stream_that_the_server_refuses_changes_nothing(tmp_path: Path) -> None:
    """Checksums hold, but the snapshot is not what nats-server takes: seen late, after other streams are back."""
    running = await hub_fixture.start_hub(tmp_path / "hub")
    file = tmp_path / "b.tar.gz"
    try:
        await fill(running)
        await backup.backup(running.hub, running.core, running.log, file)
    finally:
        await hub_fixture.stop_hub(running)
    before = tree(tmp_path / "hub")
    whole: dict[str, bytes] = {}
    _rewrite(file.read_bytes(), lambda n, d: (whole.update({n: d}), (n, d))[1])
    manifest = json.loads(whole[backup.MANIFEST])
    audit = next(s for s in manifest["streams"] if s["name"] == "AUDIT")
    cluster = next(s for s in manifest["streams"] if s["name"] == "CLUSTER")
    audit.update(bytes=cluster["bytes"], sha256=cluster["sha256"])
    whole |= {backup.MANIFEST: json.dumps(manifest).encode(), "streams/AUDIT": whole["streams/CLUSTER"]}
    file.write_bytes(_rewrite(file.read_bytes(), lambda n, _: (n, whole[n])))
    with pytest.raises(Exception, match="AUDIT"):
        await backup.restore(file, tmp_path / "hub", replace=True)
    assert tree(tmp_path / "hub") == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.tar.gz", "hub"]


KILLED = """
import asyncio, sys, os
from pathlib import Path
from bus.hub import backup
real = backup.bring_back
async def bring_back(*args):
    await real(*args)
    print("now", flush=True)
    await asyncio.sleep(60)
backup.bring_back = bring_back
asyncio.run(backup.restore(Path(sys.argv[1]), Path(sys.argv[2]), replace=True))
"""


async def test_a_restore_that_is_killed_leaves_the_hub_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    running = await hub_fixture.start_hub(tmp_path / "hub")
    file = tmp_path / "b.tar.gz"
    try:
        await fill(running)
        await backup.backup(running.hub, running.core, running.log, file)
    finally:
        await hub_fixture.stop_hub(running)
    before = tree(tmp_path / "hub")
    argv = [sys.executable, "-c", KILLED, str(file), str(tmp_path / "hub")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line == "now\n":
                break
        child.send_signal(signal.SIGKILL)
    assert tree(tmp_path / "hub") == before
    (left,) = tmp_path.glob(".hub.*.restoring")
    assert supervise.hub_server(init.load_hub(left / "hub")).left_running
    hub, _, aside = await backup.restore(file, tmp_path / "hub", replace=True)
    assert aside is not None
    assert not list(tmp_path.glob(".hub.*")), "neither the folder nor the server of the killed one is left"
    again = await hub_fixture.start_hub(hub.dir)
    try:
        assert (await again.log.info("CLUSTER")).last_seq == 12
    finally:
        await hub_fixture.stop_hub(again)
