"""Making a hub, serving it, and its streams."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from bus import connect, log, outbox, stamp
from bus.hub import init, pulse, streams, supervise
from schemas import event, subjects
from tests.contract import hub_fixture
from tests.contract.bus import plain
from tests.contract.hub_fixture import RunningHub

pytestmark = pytest.mark.contract


def _event(scope: str, name: str = "a", prev: int | None = None) -> event.Event:
    return plain.make_event(plain.cm(name), {"kind": "ConfigMap"}, scope, prev)


async def test_streams_are_made_once_and_carry_an_epoch(hub: RunningHub) -> None:
    names = [c["name"] for c in streams.wanted(hub.hub.shards)]
    epochs = {n: (await hub.log.info(n)).epoch for n in names}
    assert len(set(epochs.values())) == len(names)
    again = await streams.ensure_streams(hub.log, shards=hub.hub.shards)
    assert again == streams.Ensured()
    changed = await streams.ensure_streams(hub.log, shards=hub.hub.shards, limits=streams.Limits(versions=3))
    assert "CLUSTER: max_msgs_per_subject: 8 -> 3" in changed.changed
    assert (await hub.log.info("CLUSTER")).epoch == epochs["CLUSTER"]
    assert (await hub.log.info("CLUSTER")).config["max_msgs_per_subject"] == 3


async def test_a_stream_that_cannot_be_changed_is_named(hub: RunningHub) -> None:
    await hub.log.request("STREAM.DELETE.AUDIT")
    await hub.log.request("STREAM.CREATE.AUDIT", {"name": "AUDIT", "subjects": ["audit.>"], "storage": "memory"})
    with pytest.raises(streams.StreamsError, match=r"AUDIT differs .*storage: 'memory' -> 'file'"):
        await streams.ensure_streams(hub.log, shards=hub.hub.shards)


async def test_meta_is_republished_to_live_and_history_keeps_every_version(hub: RunningHub) -> None:
    heard = await hub.core.client.subscribe(subjects.live_scope("edge-1"))
    subject = subjects.meta("edge-1", plain.cm("a"), hub.hub.shards)
    stream = subjects.stream_of(subject)
    history = f"HISTORY-{stream}"
    for n in range(streams.VERSIONS_DEFAULT + 3):
        await hub.log.append(subject, _event("edge-1", prev=n))
        while n == 0 and (await hub.log.info(history)).last_seq == 0:  # the mirror is at work
            await asyncio.sleep(0.02)
    first = await heard.next_msg(timeout=5)
    assert first.subject == f"live.edge-1.{plain.cm('a').tokens()}"
    assert first.headers is not None and first.headers["Nats-Sequence"] == "1"
    assert (await hub.log.info(stream)).messages == streams.VERSIONS_DEFAULT
    while (await hub.log.info(history)).last_seq < streams.VERSIONS_DEFAULT + 3:
        await asyncio.sleep(0.02)
    assert (await hub.log.info(history)).messages == streams.VERSIONS_DEFAULT + 3
    # mirror_direct is off: the history must not answer for the stream
    state = await hub.log.last(stream, [subjects.meta_scope("edge-1", hub.hub.shards)])
    assert [r.stream for r in state.records] == [stream]


async def test_what_a_node_reports_at_once_after_a_day_is_in_the_history(hub: RunningHub) -> None:
    """The stream had dropped most of a run before its history could read it."""
    subject = subjects.report("edge-1", "twin", hub.hub.shards, "default", "d")
    stream = subjects.stream_of(subject)
    history = f"HISTORY-{stream}"
    for _ in range(2):
        await hub.log.append_run(subject, [(b"x", stamp.new_id()) for _ in range(outbox.RUN_MAX)])
        last = (await hub.log.info(stream)).last_seq
        async with asyncio.timeout(60):
            while (await hub.log.info(history)).last_seq < last:
                await asyncio.sleep(0.02)
    assert (await hub.log.info(history)).messages == 2 * outbox.RUN_MAX


async def test_a_second_init_keeps_the_hub_and_takes_new_host_names(tmp_path: Path) -> None:
    ports = init.HubPorts(client=0, leaf=0, websocket=0)
    made = init.init_hub(tmp_path / "hub", ports=ports, listen="127.0.0.1", shards=2)
    secret = (made.dir / "keys" / "operator.seed").read_text()
    cert = (made.dir / "tls" / "server.pem").read_bytes()
    assert init.init_hub(tmp_path / "hub").file == made.file
    assert (made.dir / "tls" / "server.pem").read_bytes() == cert
    wider = init.init_hub(tmp_path / "hub", hosts=["localhost", "hub.example.org"], ports=ports)
    assert wider.id == made.id and wider.file.ports == made.file.ports
    assert wider.urls[1] == f"tls://hub.example.org:{made.file.ports.client}"
    assert (made.dir / "tls" / "server.pem").read_bytes() != cert
    assert (made.dir / "keys" / "operator.seed").read_text() == secret
    with pytest.raises(init.HubError, match="2 shards, fixed"):
        init.init_hub(tmp_path / "hub", shards=3)
    for secret_file in [*(made.dir / "keys").iterdir(), *(made.dir / "creds").iterdir(), made.dir / "tls" / "ca.key"]:
        assert secret_file.stat().st_mode & 0o777 == 0o600


def test_a_half_made_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hub" / "keys").mkdir(parents=True)
    with pytest.raises(init.HubError, match=r"half-made or something else"):
        init.init_hub(tmp_path / "hub")
    (tmp_path / "file").touch()
    with pytest.raises(init.HubError, match=r"file: Not a directory. Name another folder"):
        init.init_hub(tmp_path / "file")
    with pytest.raises(init.HubError, match=r"/proc is a mount point.*Name a folder in it: /proc/hub"):
        init.init_hub(Path("/proc"))
    with pytest.raises(init.HubError, match=r"can't make a hub in .*/file/hub: .*/file"):
        init.init_hub(tmp_path / "file" / "hub")
    with pytest.raises(init.HubError, match=r"holds no hub"):
        init.load_hub(tmp_path / "hub")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "hub"]


def test_a_damaged_hub_is_refused(tmp_path: Path) -> None:
    hub = init.init_hub(tmp_path / "hub", ports=init.HubPorts(client=0, leaf=0, websocket=0))
    for seed in (hub.dir / "keys").iterdir():
        seed.unlink()
    (hub.dir / "keys").rmdir()
    with pytest.raises(init.HubError, match="keys is missing"):
        init.init_hub(tmp_path / "hub")


async def test_the_kubernetes_api_gets_a_certificate_of_the_same_ca(tmp_path: Path) -> None:
    hub = init.init_hub(tmp_path / "hub", ports=init.HubPorts(client=0, leaf=0, websocket=0))
    cert, key = init.issue_server_cert(hub, "api", ["127.0.0.1", "api.example.org"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    assert init.issue_server_cert(hub, "api", ["api.example.org"]) == (cert, key)

    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(close, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    trusting = ssl.create_default_context(cafile=str(hub.ca_path))
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting, server_hostname="api.example.org")
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()


async def test_kill_9_the_hub_restarts_and_connections_come_back_by_themselves(hub: RunningHub) -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    changes: list[bool] = []
    hub.core.on_change(changes.append)

    async def take(msg: object) -> None:
        heard.put_nowait(msg.data)  # type: ignore[attr-defined]

    await hub.core.client.subscribe("live.>", cb=take)
    stored = await hub.log.append("cluster.core.configmaps.default.a", _event(""))
    pid = hub.server.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    while hub.server.restarts == 0 or changes != [False, True]:
        await asyncio.sleep(0.02)
    assert hub.server.pid != pid and hub.core.connected
    await hub.core.client.publish("live.x", b"again")
    assert await heard.get() == b"again"
    assert (await hub.log.info("CLUSTER")).last_seq == stored


async def test_a_server_that_hangs_is_restarted_and_one_that_works_is_not(tmp_path: Path) -> None:
    made = await hub_fixture.start_hub(tmp_path / "hub")
    await made.server.release()
    server = supervise.hub_server(made.hub, patience=pulse.Patience(every_s=0.1, probe_s=2, idle=2, busy=10_000))
    await server.start()
    try:
        pid, changes = server.pid, list[bool]()
        assert pid is not None
        made.core.on_change(changes.append)
        os.kill(pid, signal.SIGSTOP)
        async with asyncio.timeout(60):
            while server.pid == pid or not server.running or not made.core.connected or True not in changes:
                await asyncio.sleep(0.02)
        assert (await made.log.info("CLUSTER")).last_seq == 0
        with socket.create_server(("127.0.0.1", 0)) as deaf:  # listens and never greets
            patience = pulse.Patience(every_s=0, probe_s=0.05, idle=2, busy=4)
            why = await pulse.silent("127.0.0.1", deaf.getsockname()[1], 0, patience)
            assert why.startswith("no greeting to 2 connections") and "idle" in why
            spinning = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            try:
                patience = pulse.Patience(every_s=0, probe_s=1, idle=1, busy=2)
                why = await pulse.silent("127.0.0.1", deaf.getsockname()[1], spinning.pid, patience)
                assert why.startswith("no greeting to 2 connections") and "busy" in why
            finally:
                spinning.kill()
                spinning.wait()
    finally:
        await made.log.close()
        await made.core.close()
        await server.stop()
        made.server._reap()


async def test_a_running_server_is_adopted_and_a_changed_configuration_restarts_it(tmp_path: Path) -> None:
    first = await hub_fixture.start_hub(tmp_path / "hub")
    await first.log.close()
    await first.core.close()
    await first.server.release()  # what a daemon killed with -9 leaves behind
    second = supervise.hub_server(first.hub)
    await second.start()
    assert second.pid == first.server.pid and second.running and second.adopted
    # what was changed since it was started, it must read again
    trusted = tmp_path / "trusted.pem"
    trusted.write_text("")
    assert second.outdated(trusted) and not second.outdated(first.hub.config_path)
    await second.reload()
    assert not second.outdated(trusted)
    await second.release()
    wider = init.init_hub(first.hub.dir, hosts=["127.0.0.1"], listen="0.0.0.0")
    third = supervise.hub_server(wider)
    await third.start()
    try:
        assert third.pid != first.server.pid and not first.server.running
        # an adopted server that dies is noticed as well, although it is not this supervisor's child
        await third.release()
        fourth = supervise.hub_server(wider)
        await fourth.start()
        pid = fourth.pid
        assert pid == third.pid and pid is not None
        os.kill(pid, signal.SIGKILL)
        while fourth.restarts == 0:
            await asyncio.sleep(0.02)
        assert fourth.running
    finally:
        await fourth.stop()
        first.server._reap()
        third._reap()


async def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    hub = init.init_hub(tmp_path / "hub", ports=init.HubPorts(client=0, leaf=0, websocket=0), listen="127.0.0.1")
    hub.config_path.write_text("nonsense: {")
    with pytest.raises(supervise.ServerError, match="Parse error"):
        await supervise.hub_server(hub).start()


async def test_another_server_on_the_port_is_not_taken_for_ours(hub: RunningHub, tmp_path: Path) -> None:
    other = init.init_hub(tmp_path / "other", ports=hub.hub.file.ports, listen="127.0.0.1")
    with pytest.raises(supervise.ServerError, match="address already in use|belongs to another server"):
        await supervise.hub_server(other).start()
    assert hub.core.connected


async def test_a_hub_with_another_ca_is_refused(hub: RunningHub, tmp_path: Path) -> None:
    other = init.init_hub(tmp_path / "other", ports=init.HubPorts(client=0, leaf=0, websocket=0))
    settings = connect.ConnectSettings(
        tuple(hub.hub.urls), "test", credentials=hub.hub.core_creds, ca=other.ca_path, wait_s=0.5
    )
    with pytest.raises(connect.ConnectFailed, match="certificate verify failed"):
        await connect.connect(settings)


async def test_unknown_credentials_are_refused(hub: RunningHub, tmp_path: Path) -> None:
    # the server lets a wrong user wait for two seconds before it says so
    other = init.init_hub(tmp_path / "other", ports=init.HubPorts(client=0, leaf=0, websocket=0))
    settings = connect.ConnectSettings(
        tuple(hub.hub.urls), "test", credentials=other.core_creds, ca=hub.hub.ca_path, wait_s=3
    )
    with pytest.raises(connect.ConnectFailed, match="Authorization Violation"):
        await connect.connect(settings)


async def test_the_log_reads_what_the_hub_holds(hub: RunningHub) -> None:
    seq = await hub.log.append("cluster.core.configmaps.default.a", _event(""), expect=log.Expect(0))
    assert (await hub.log.get("CLUSTER", seq)) is not None
    with pytest.raises(log.WrongSequence):
        await hub.log.append("cluster.core.configmaps.default.a", _event(""), expect=log.Expect(0))
