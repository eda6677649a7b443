"""A site that lets out nothing but port 443: joining, the daemon's connection and the leaf's link, all over wss.

And that nothing of the hub speaks without TLS.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from bus import connect
from bus.hub import leaf
from bus.identity import join, tokens
from schemas import subjects
from tests.contract import node_fixture
from tests.contract.hub_fixture import RunningHub

pytestmark = pytest.mark.contract


@pytest.mark.filterwarnings(
    "ignore:parameter 'timeout' of type 'float':DeprecationWarning"
)  # the NATS client's call of aiohttp
async def test_a_node_joins_and_works_over_wss_alone(hub: RunningHub, tmp_path: Path) -> None:
    wss = tuple(hub.hub.websocket_urls)
    async with node_fixture.join_service(hub):
        given = tokens.decode(await tokens.create_token(hub.log, hub.hub))
        token = tokens.encode(given.model_copy(update={"urls": list(wss), "leaf_urls": list(wss)}))
        await join.join(token, "edge-1", tmp_path / "n")
        # the daemon without a leaf
        direct = connect.ConnectSettings(
            wss, "direct", credentials=join.creds_path(tmp_path / "n"), ca=join.ca_path(tmp_path / "n"),
            inbox=subjects.inbox("edge-1"),
        )  # fmt: skip
        daemon = await connect.connect(direct)
        ack = await daemon.request(subjects.report("edge-1", "node", hub.hub.shards), b"over wss", timeout_s=5)
        assert json.loads(ack.data)["stream"].startswith("REPORT-")
        await daemon.close()
        # the leaf
        made = leaf.prepare(leaf.LeafSettings(tmp_path / "n", port=0, hub_urls=wss, compression="off"))
        server = made.server()
        await server.start()
        try:
            local = await connect.connect(made.daemon("daemon"))
            async with asyncio.timeout(30):
                while True:
                    try:
                        subject = subjects.report("edge-1", "pod", hub.hub.shards, "default", "x")
                        ack = await local.request(subject, b"through the leaf", timeout_s=1)
                        break
                    except Exception:  # the link is being made: no responders, or no answer
                        await asyncio.sleep(0.1)
            assert json.loads(ack.data)["seq"] == 2
            await local.close()
        finally:
            await server.stop()


async def test_no_port_of_the_hub_speaks_without_tls(hub: RunningHub) -> None:
    ports = hub.hub.file.ports
    for port in (ports.client, ports.leaf):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        info = json.loads((await reader.readline()).decode().partition(" ")[2])
        assert info["tls_required"], port
        writer.write(b'CONNECT {"verbose":true}\r\nPING\r\n')
        async with asyncio.timeout(15):
            said = await reader.read()  # until it hangs up
        assert b"PONG" not in said and b"+OK" not in said
        writer.close()
        await writer.wait_closed()
    reader, writer = await asyncio.open_connection("127.0.0.1", ports.websocket)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                 b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")  # fmt: skip
    async with asyncio.timeout(15):
        said = await reader.read()
    assert b"101" not in said
    writer.close()
    await writer.wait_closed()
