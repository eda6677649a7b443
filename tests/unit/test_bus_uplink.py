"""A dead link by the kernel's bookkeeping, and which server is tried next."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from bus import connect
from bus.hub import config, uplink

# Laid out as proc_net_tcp of the kernel's documentation says, without what comes after the inode.
TABLE = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0  0 81001
   1: 0202C80A:C350 0102C80A:1CFE 01 00000210:00000000 01:000000C8 00000004  0  0 81002
   2: 0100007F:1F90 0100007F:C351 01 00000000:00000000 00:00000000 00000000  0  0 81003
   3: 0202C80A:C352 0302C80A:1CFE 01 00000210:00000000 01:000000C8 00000001  0  0 81004
   4: 0202C80A:C353 0402C80A:1CFE 02 00000001:00000000 01:000000C8 00000003  0  0 81005
   5: 0202C80A:C354 0502C80A:1CFE 01 00000210:00000000 01:000000C8 00000009 0 0 99999
"""
TABLE6 = """  sl  local_address remote_address st tx_queue rx_queue tr tm->when retrnsmt
   0: 0000000000000000FFFF00000202C80A:C350 0000000000000000FFFF00000102C80A:1CFF 01 210:0 01:C8 3 0 0 81006
   1: B80D0120000000000000000001000000:C350 B80D0120000000000000000002000000:1CFF 01 210:0 01:C8 3 0 0 81007
"""


def test_dead_is_what_is_retransmitted_on_an_established_connection_of_ours() -> None:
    inodes = {str(n) for n in range(81001, 81008)}
    assert uplink.dead_peers([TABLE], inodes) == {("10.200.2.1", 7422)}
    assert uplink.dead_peers([TABLE6], inodes) == {("10.200.2.1", 7423), ("2001:db8::2", 7423)}
    assert uplink.dead_peers([TABLE, TABLE6], set()) == set()
    assert uplink.dead_peers(["", "garbage\nmore garbage\n"], inodes) == set()


def test_a_live_process_is_read_and_one_that_is_gone_has_no_dead_links() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        assert uplink.dead_peers_of(os.getpid()) == set()
    assert uplink.dead_peers_of(2**22 + 1) == set()


def test_leafs_dial_in_their_own_rhythm_and_always_in_the_same() -> None:
    rhythms = [config.leaf_reconnect_ms(f"leaf-edge-{n}") for n in range(1000)]
    assert rhythms == [config.leaf_reconnect_ms(f"leaf-edge-{n}") for n in range(1000)]
    low, high = config.LEAF_RECONNECT_MS_MIN, config.LEAF_RECONNECT_MS_MAX
    assert all(low <= r < high for r in rhythms)
    tenth = (high - low) / 10
    crowds = [sum(low + k * tenth <= r < low + (k + 1) * tenth for r in rhythms) for k in range(10)]
    assert max(crowds) < 2 * min(crowds), f"bunched: {crowds}"


def test_a_server_that_failed_is_tried_last() -> None:
    urls = tuple(f"tls://hub-{n}.example:4222" for n in (1, 2, 3))
    c = connect.Connection(connect.ConnectSettings(urls, "x", ca=Path("none")))
    assert {c._by_merit()[0] for _ in range(200)} == set(urls)
    c._failed("hub-2.example:4222")
    assert all(c._by_merit()[2] == urls[1] for _ in range(50))
    servers = [connect.Server(uri=connect.urllib.parse.urlparse(u), reconnects=0) for u in urls]
    chosen = [c._next(servers, {})[0] for _ in range(3)]
    netlocs = [s.uri.netloc for s in chosen if s is not None]
    assert netlocs[0] != "hub-2.example:4222" and netlocs[1] not in ("hub-2.example:4222", netlocs[0])
    assert len(netlocs) == 3, "when all have failed, any of them"
