"""A hub of three servers that loses one, that leads or not, while users and devices go on."""

from __future__ import annotations

import contextlib
import os
import signal

from bus import log
from ops.chaos.faults.fault import Fault, nothing
from ops.chaos.field import Field
from ops.lab import setting
from schemas import subjects

SERVERS = 3
LEAD_S = 60.0


def _folder_pid(f: Field, server: int) -> int:
    return f.lab.server_pid(f.lab.hub / "servers" / str(server))


def _leader(f: Field, stream: str) -> int:
    """Number of the server that leads a stream, once there is one and its followers are level."""

    async def read(store: log.Log, _: int) -> int:
        with contextlib.suppress(log.LogError):
            found = (await store.request(f"STREAM.INFO.{stream}"))["cluster"]
            peers = found.get("replicas") or []
            if found.get("leader") and len(peers) == SERVERS - 1 and all(p.get("current") for p in peers):
                return int(found["leader"].rpartition("-")[2])
        return 0

    return int(f.lab.until(f"{stream} has a leader and level followers", lambda: f.lab.ask(read), seconds=LEAD_S))


def _meta(f: Field) -> str:
    async def read(_: log.Log, shards: int) -> str:
        return f"META-{subjects.shard_of(f.wild, shards)}"

    return f.lab.ask(read)


def _down(f: Field, server: int) -> None:
    """The whole server: supervisor and nats-server, so that nobody brings it back."""
    pid = _folder_pid(f, server)
    f.lab.processes.kill_9(setting.hub_name(f.lab, server))
    f.lab.end_server(pid)


def _up(f: Field, server: int) -> None:
    setting.start_hub_server(f.lab, server)


class _Lost:
    """One server is away for a while: which one is known when it happens."""

    def __init__(self, *, stream: str = "", follower: bool = False) -> None:
        self._stream, self._follower = stream, follower
        self._server = 0

    def choose(self, f: Field) -> int:
        leader = _leader(f, self._stream or _meta(f))
        self._server = leader % SERVERS + 1 if self._follower else leader
        return self._server

    def kill(self, f: Field) -> None:
        _down(f, self.choose(f))

    def start(self, f: Field) -> None:
        _up(f, self._server)

    def pause(self, f: Field) -> None:
        os.kill(_folder_pid(f, self.choose(f)), signal.SIGSTOP)

    def go_on(self, f: Field) -> None:
        os.kill(_folder_pid(f, self._server), signal.SIGCONT)


def _level(f: Field) -> None:
    """Whoever loses the next one must not be without a majority."""
    for stream in ("CLUSTER", _meta(f), "TELEMETRY"):
        _leader(f, stream)


def _roll(f: Field) -> None:
    """Each is stopped cleanly and started again, users go on; the next one when the streams are level again."""
    for server in range(1, SERVERS + 1):
        f.lab.processes.stop(setting.hub_name(f.lab, server))
        f.change(f.wild)
        _up(f, server)
        _level(f)


def _all_at_once(f: Field) -> None:
    for server in range(1, SERVERS + 1):
        _down(f, server)


def _all_back(f: Field) -> None:
    for server in range(1, SERVERS + 1):
        _up(f, server)


_follower, _meta_leader, _api_leader = _Lost(follower=True), _Lost(), _Lost(stream="CLUSTER")
_history, _hung = _Lost(stream="HISTORY-CLUSTER"), _Lost()

FAULTS = [
    Fault("three-none", "hub of three: nothing at all", "三服务器中心：什么都没有发生", nothing, hold_s=2.0, servers=3),
    Fault(
        "three-lose-one",
        "hub of three: a server is lost that leads nothing of the node's",
        "三服务器中心：失去一台不领导该节点流的服务器",
        _follower.kill,
        _follower.start,
        _level,
        hold_s=8.0,
        both=True,
        servers=3,
    ),
    Fault(
        "three-lose-leader",
        "hub of three: the leader of the node's stream is lost",
        "三服务器中心：失去该节点流的领导者",
        _meta_leader.kill,
        _meta_leader.start,
        _level,
        hold_s=8.0,
        both=True,
        servers=3,
        kubeedge=(9,),
    ),
    Fault(
        "three-lose-api",
        "hub of three: the leader of the API's storage is lost",
        "三服务器中心：失去 API 存储的领导者",
        _api_leader.kill,
        _api_leader.start,
        _level,
        hold_s=8.0,
        both=True,
        servers=3,
        kubeedge=(3, 9),
    ),
    Fault(
        "three-lose-history",
        "hub of three: the leader of a history is lost",
        "三服务器中心：失去历史流的领导者",
        _history.kill,
        _history.start,
        _level,
        hold_s=8.0,
        both=True,
        servers=3,
    ),
    Fault(
        "three-hang-leader",
        "hub of three: the leader of the node's stream stands still for 15 s, is deposed, wakes up",
        "三服务器中心：该节点流的领导者停顿 15 秒，被替换后醒来",
        _hung.pause,
        _hung.go_on,
        _level,
        hold_s=15.0,
        both=True,
        servers=3,
        kubeedge=(9,),
    ),
    Fault(
        "three-roll",
        "hub of three: all are restarted, one after the other",
        "三服务器中心：逐台重启",
        _roll,
        after=_level,
        hold_s=0.5,
        both=True,
        servers=3,
        kubeedge=(9,),
    ),
    Fault(
        "three-power",
        "hub of three: all are killed at one instant",
        "三服务器中心：同时全部被杀死",
        _all_at_once,
        _all_back,
        _level,
        both=True,
        servers=3,
        kubeedge=(3, 9),
    ),
]
