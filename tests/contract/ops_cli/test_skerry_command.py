"""The ``skerry`` command against a real hub: made, run, asked, looked into, ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bus import fold
from bus.stores import lmdb_store
from ops import cli
from ops.cli import common
from ops.replay import reading
from schemas import subjects
from tests.unit.ops_replay import made

pytestmark = pytest.mark.contract

READY_S = 30


class Hub:
    def __init__(self, folder: Path) -> None:
        self.dir = folder / "hub"
        self.process: subprocess.Popen[bytes] | None = None
        options = ["--host", "127.0.0.1", "--port", "0", "--leaf-port", "0", "--websocket-port", "0", "--shards", "1"]
        assert cli.main(["hub", "init", "--data", str(self.dir), *options]) == 0

    def start(self) -> None:
        """Returns when the hub has said READY=1 to the socket that systemd would give it."""
        path = self.dir.parent / "notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.bind(str(path))
            systemd.settimeout(READY_S)
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ops.cli", "hub", "run", "--data", str(self.dir)],
                env={**os.environ, "NOTIFY_SOCKET": str(path)},
            )
            try:
                assert systemd.recv(100) == b"READY=1"
            finally:
                path.unlink()

    def end(self, sig: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(sig)
        return self.process.wait(READY_S)

    def server_pid(self) -> int:
        return int(json.loads((self.dir / "nats-server.pid.json").read_text())["pid"])


def _alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A running hub whose log holds the small history of ``made``."""
    h = Hub(tmp_path_factory.mktemp("hub"))
    h.start()

    async def fill() -> None:
        async with common.hub_log(h.dir, "test") as (_, _, store):
            for entry in made.main_job().entries:
                assert entry.event is not None
                assert await store.append(entry.subject, entry.event) == entry.seq
            # A mirror lags a little; the debugger reads both, so this only makes the first test steadier.
            for _ in range(100):
                if (await store.info("HISTORY-META-0")).messages == 1:
                    break
                await asyncio.sleep(0.05)

    try:
        asyncio.run(fill())
        yield h
    finally:
        assert h.end() == 0
        assert not (h.dir / "nats-server.pid.json").exists()


def _say(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = cli.main(args)
    out, err = capsys.readouterr()
    return code, out, err


def test_the_hub_says_that_it_is_well(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _say(capsys, "hub", "status", "--data", str(hub.dir))
    assert (code, out.splitlines()[0].endswith(": ok")) == (0, True)
    code, out, _ = _say(capsys, "status", "--hub", str(hub.dir), "--json")
    assert code == 0
    assert {s["name"]: s["messages"] for s in json.loads(out)["streams"]}["CLUSTER"] == 6 + 1
    code, out, _ = _say(capsys, "doctor", "--hub", str(hub.dir), "--data", str(hub.dir / "nothing"), "--json")
    checks = {c["name"]: c["level"] for c in map(json.loads, out.splitlines())}
    assert checks["streams"] == checks["hub"] == checks["TLS server.pem"] == checks["clock of the hub"] == "ok"
    assert code == 0


def test_a_hub_that_does_not_run_is_said_with_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = _say(capsys, "hub", "status", "--data", str(tmp_path))
    assert code == 1
    assert "skerry hub init" in err
    off = Hub(tmp_path)
    common_wait, common.HUB_WAIT_S = common.HUB_WAIT_S, 0.5
    try:
        code, out, _ = _say(capsys, "doctor", "--hub", str(off.dir), "--data", str(tmp_path / "none"))
    finally:
        common.HUB_WAIT_S = common_wait
    assert code == 1
    assert "FAIL  hub" in out
    assert "-> start it: skerry hub run" in out


def test_tokens_are_made_listed_and_revoked(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    at = ("--hub", str(hub.dir))
    code, token, _ = _say(capsys, "token", "create", "--node", "edge-9", "--ttl", "1h", *at)
    assert code == 0
    assert token.startswith("skerry1.")
    token_id = json.loads(_say(capsys, "token", "list", "--json", *at)[1].splitlines()[-1])["id"]
    listed = _say(capsys, "token", "list", *at)[1]
    assert token_id in listed
    assert "open" in listed
    assert token.strip()[10:40] not in listed
    assert _say(capsys, "token", "revoke", token_id, *at)[0] == 0
    assert "revoked" in _say(capsys, "token", "list", *at)[1]
    code, _, err = _say(capsys, "token", "revoke", "nonsense", *at)
    assert (code, "token list" in err) == (1, True)
    assert _say(capsys, "token", "create", "--ttl", "1 year", *at)[0] == 2
    assert _say(capsys, "token", "create", "--node", "Not A Name", *at)[0] == 1


def test_replay_tells_the_story_of_a_pod(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    at = ("--hub", str(hub.dir))
    code, out, _ = _say(capsys, "replay", "story", "pods/web-1", *at)
    assert code == 0
    places = [out.index(w) for w in (" api ", " controller ", " dispatch ", "edge.applied", "container.started", "status")]
    assert places == sorted(places)
    by_trace = json.loads(_say(capsys, "replay", "story", made.id_of(1), "--json", *at)[1])
    by_event = json.loads(_say(capsys, "replay", "story", made.id_of(7), "--json", *at)[1])
    assert by_trace == by_event
    assert len(by_trace["steps"]) == 10  # the other pod too
    for nonsense in ("pods/nobody", "pods", made.id_of(99), "what?"):
        code, _, err = _say(capsys, "replay", "story", nonsense, *at)
        assert (code, err.startswith("Error: ")) == (1, True)


def test_replay_log_filters(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    def count(*args: str) -> int:
        return len(_say(capsys, "replay", "log", "--json", "--hub", str(hub.dir), *args)[1].splitlines())

    assert count("pods/web-1") == 5
    assert count("--node", "edge-1", "--type", "report") == 1
    assert count("--subject", "cluster.core.pods.>", "--since", "start") == 4
    assert count("--subject", "meta.0.edge-1.>", "--since", "1h") == 1
    assert count("--actor", "admin", "--limit", "1") == 1
    assert count("--since", "2000-01-01", "pods") == 6
    assert _say(capsys, "replay", "log", "--since", "when?", "--hub", str(hub.dir))[0] == 1


@pytest.fixture
def replica(hub: Hub, tmp_path: Path) -> Path:
    """A node's store as its daemon would have left it, made by the replica's own rules."""

    async def lines() -> tuple[str, list[tuple[int, bytes]]]:
        async with common.hub_log(hub.dir, "test") as (_, _, store):
            records = (await store.last("META-0", [subjects.meta_scope("edge-1", 1)])).records
            return (await store.info("META-0")).epoch, [(r.seq, r.payload) for r in records]

    epoch, records = asyncio.run(lines())
    store = lmdb_store.LmdbStore(tmp_path / "store")
    with store.transact() as t:
        for seq, payload in records:
            fold.put(t, fold.fact_of("edge-1", made.POD, seq, payload))
        t.put("cursors", b"edge-1", fold.Cursor(epoch, records[-1][0]).to_bytes())
        t.put("cursors", b"all", fold.Cursor(epoch, 0).to_bytes())
    store.close()
    return tmp_path


def test_verify_finds_a_good_replica_equal(hub: Hub, replica: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _say(capsys, "replay", "verify", "edge-1", "--hub", str(hub.dir), "--data", str(replica))
    assert code == 0, out
    assert out.splitlines()[-1] == "equal: the replica of edge-1 is the fold of the log, 1 objects, byte for byte"


@pytest.mark.parametrize("damage", ["gone", "ghost", "stale"])
def test_verify_finds_a_bad_replica_different(
    hub: Hub, replica: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store = lmdb_store.LmdbStore(replica / "store")
    key = fold.store_key("edge-1", made.POD)
    with store.transact() as t:
        if damage == "gone":
            t.delete("objects", key)
        elif damage == "ghost":
            t.put("objects", fold.store_key("edge-1", subjects.ObjectKey("", "pods", "default", "x")), b"\0" * 9)
        else:
            t.put("objects", key, fold.store_value(0, b"x"))
    store.close()
    args = ("replay", "verify", "edge-1", "--hub", str(hub.dir), "--data", str(replica))
    code, out, _ = _say(capsys, *args)
    assert code == 1
    assert out.splitlines()[-1].startswith("DIFFERENT")
    verdict = next(s for s in json.loads(_say(capsys, *args, "--json")[1])["scopes"] if s["scope"] == "edge-1")
    assert len(verdict["differences"]) == 1


def test_verify_does_not_compare_what_can_t_be_compared(hub: Hub, replica: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ("--hub", str(hub.dir), "--data", str(replica))
    code, _, err = _say(capsys, "replay", "verify", "edge-2", *args)
    assert (code, "another node" in err) == (1, True)
    store = lmdb_store.LmdbStore(replica / "store")
    with store.transact() as t:
        t.put("cursors", b"edge-1", fold.Cursor("another-epoch", 1).to_bytes())
    store.close()
    code, _, err = _say(capsys, "replay", "verify", "edge-1", *args)
    assert (code, "epoch another-epoch" in err) == (1, True)
    code, _, err = _say(capsys, "replay", "verify", "edge-1", "--hub", str(hub.dir), "--data", str(replica / "nowhere"))
    assert (code, "--data" in err) == (1, True)


def test_at_shows_a_slice_as_it_was(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    at = ("replay", "at", "edge-1", "--json", "--hub", str(hub.dir))
    assert _say(capsys, *at, "--seq", "0")[1] == ""
    assert json.loads(_say(capsys, *at, "--seq", "1")[1])["object"] == "pods default/web-1"
    assert json.loads(_say(capsys, *at, "pods/web-1", "--time", "0s")[1])["seq"] == 1
    assert _say(capsys, *at, "--time", "1d")[1] == ""
    assert _say(capsys, *at)[0] == 2


async def test_the_start_of_a_time_is_found_by_bisection(hub: Hub) -> None:
    async with common.hub_log(hub.dir, "test") as (h, _, store):
        reader = reading.Reader(store, h.shards)
        every = await reader.read("CLUSTER")
        for record in every:
            found = await reader.read("CLUSTER", since_us=record.time_us)
            assert [r.seq for r in found] == [r.seq for r in every if r.time_us >= record.time_us]


def test_a_killed_supervisor_leaves_a_server_that_can_be_ended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    h = Hub(tmp_path)
    h.start()
    pid = h.server_pid()
    assert h.end(signal.SIGKILL) == -signal.SIGKILL
    assert _alive(pid)
    assert _say(capsys, "hub", "stop", "--data", str(h.dir)) == (0, "ended\n", "")
    deadline = time.monotonic() + READY_S
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _alive(pid)
    assert _say(capsys, "hub", "stop", "--data", str(h.dir)) == (0, "none runs\n", "")
