"""One node can't hear, speak in, or open another's tunnels: by the hub's permissions alone."""

from __future__ import annotations

import asyncio

import pytest

from bus import connect, tunnel
from schemas import subjects
from schemas import tunnel as words
from tests.contract.hub.test_isolation import Pair, heard, no_answer
from tests.contract.hub.test_isolation import pair as pair

pytestmark = pytest.mark.contract

G, S = "0f" * 8, "1e" * 16


async def test_a_node_touches_no_tunnel_but_its_own(pair: Pair) -> None:
    spying = await heard(
        pair.evil, "tunnel.>", "tunnel.edge-2.>", "tunnel.edge-2.down.>", "tunnel.*.up.>", "cmd.edge-2.tunnel", "cmd.>"
    )
    honest = await heard(pair.good, subjects.tunnels_down("edge-2"))
    cloud = await heard(pair.hub.core, "tunnel.>")
    for subject in (
        subjects.tunnel_up("edge-2", G, S),
        subjects.tunnel_down("edge-2", G, S),
        subjects.tunnel_down("edge-1", G, S),
        subjects.command("edge-2", words.TUNNEL),
    ):
        await pair.evil.client.publish(subject, b"forged")
    await pair.evil.flush()
    await pair.hub.core.client.publish(subjects.tunnel_down("edge-2", G, S), b"frame")
    await pair.hub.core.flush()
    await pair.good.client.publish(subjects.tunnel_up("edge-2", G, S), b"frame")
    await pair.good.flush()
    await pair.hub.core.flush()
    assert await honest.get() == subjects.tunnel_down("edge-2", G, S)
    assert honest.empty()
    assert await cloud.get() == subjects.tunnel_down("edge-2", G, S)  # its own
    assert await cloud.get() == subjects.tunnel_up("edge-2", G, S)
    assert cloud.empty()
    await pair.evil.flush()
    assert spying.empty()
    await no_answer(pair.evil, subjects.command("edge-2", words.TUNNEL))


async def test_a_session_listens_to_its_own_node_only(pair: Pair) -> None:
    """edge-1 may use its own ``up`` subjects with any session's name: it is still not heard as edge-2."""
    opened: asyncio.Queue[words.Open] = asyncio.Queue()

    async def echo(request: words.Open, session: tunnel.Session) -> words.Ended:
        opened.put_nowait(request)
        await session.ready()
        while (data := await session.receive(words.STDIN)) is not None:
            await session.send(words.STDOUT, data)
        return words.Ended(exit_code=7)

    acceptor = asyncio.create_task(tunnel.Acceptor(pair.good, "edge-2", echo).run())
    dialer = tunnel.Dialer(pair.hub.core)
    await dialer.start()
    await pair.good.flush()
    try:
        what = words.Port(kind="port", port=80)
        session = await dialer.open("edge-2", "uid", "default", "p", what)
        await session.started()
        request = await opened.get()
        forged = words.encode(words.Frame(words.Type.CLOSE, 0, 2, b""))
        await pair.evil.client.publish(subjects.tunnel_up("edge-1", request.gateway, request.session), forged)
        await pair.evil.client.publish(subjects.tunnel_up("edge-2", request.gateway, request.session), forged)
        await pair.evil.flush()
        await session.send(words.STDIN, b"still here")
        assert await session.receive(words.STDOUT) == b"still here"
        await session.end(words.STDIN)
        assert (await session.finished()).exit_code == 7
        with pytest.raises(tunnel.NodeUnreachable, match="not connected"):
            await dialer.open("edge-3", "uid", "default", "p", what)
    finally:
        await dialer.stop()
        acceptor.cancel()
        await asyncio.gather(acceptor, return_exceptions=True)


async def test_what_is_no_request_is_refused_and_a_crowd_is_told(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel, "SESSIONS_MAX", 1)

    async def wait(_: words.Open, session: tunnel.Session) -> words.Ended:
        await session.ready()
        return await session.finished()

    acceptor = asyncio.create_task(tunnel.Acceptor(pair.good, "edge-2", wait).run())
    dialer = tunnel.Dialer(pair.hub.core)
    await dialer.start()
    await pair.good.flush()
    try:
        for bad in (b"", b"\xc1", b"\x80"):
            answer: connect.Message = await pair.hub.core.request(subjects.command("edge-2", words.TUNNEL), bad, timeout_s=5)
            assert words.Opened.model_validate(tunnel.codec.unpack(answer.data)).code == 400
        what = words.Port(kind="port", port=80)
        first = await dialer.open("edge-2", "uid", "default", "p", what)
        await first.started()
        with pytest.raises(tunnel.TunnelRefused) as e:
            await dialer.open("edge-2", "uid", "default", "p", what)
        assert e.value.code == 429
        await first.close()
        second = await _opened_in_time(dialer, what)
        acceptor.cancel()  # the daemon ends: the other side is told, not left waiting
        assert (await second.finished()).code == 503
    finally:
        await dialer.stop()
        acceptor.cancel()
        await asyncio.gather(acceptor, return_exceptions=True)


async def _opened_in_time(dialer: tunnel.Dialer, what: words.Port) -> tunnel.Session:
    """Closing takes a moment to arrive."""
    while True:
        try:
            session = await dialer.open("edge-2", "uid", "default", "p", what)
        except tunnel.TunnelRefused:
            await asyncio.sleep(0.02)
            continue
        await session.started()
        return session
