"""Each process of node and hub killed with -9, or standing still (SIGSTOP)."""

from __future__ import annotations

import signal
import time

from ops.chaos.faults.fault import Act, Fault
from ops.chaos.faults.links import heal
from ops.chaos.field import STEADY, Field
from ops.lab.show import StepFailed


def kill(what: str, *, starts: bool) -> tuple[Act, Act]:
    """``starts``: nobody in the lab starts it again but us."""
    return (lambda f: f.kill(what, f.wild)), (lambda f: f.start(what, f.wild) if starts else None)


def pause(what: str) -> tuple[Act, Act]:
    return (lambda f: f.signal(what, signal.SIGSTOP, f.wild)), (lambda f: f.signal(what, signal.SIGCONT, f.wild))


def _often(f: Field) -> None:
    """A daemon that is killed again and again, at whatever it does then."""
    for n in range(6):
        f.kill("daemon", f.wild)
        f.start("daemon", f.wild)
        time.sleep(0.4 + 0.3 * n)


def _both_at_node(f: Field) -> None:
    f.kill("daemon", f.wild)
    f.kill("leaf", f.wild)


def reboot(f: Field) -> None:
    """Power lost: daemon, leaf and every container are gone, and the node comes back by itself."""
    f.kill("daemon", f.wild)
    f.lab.kill_leaf_for_good(f.wild)
    f.lab.remove_containers(f.wild)
    f.start("daemon", f.wild)
    f.lab.until("the pods are back from the replica", lambda: len(f.steady(f.wild)) == 2 * len(STEADY))


def _reboot(*, linked: bool) -> Act:
    def act(f: Field) -> None:
        if not linked:
            f.links.cut(f.wild)
        reboot(f)
        if not linked and f.lab.node_status(f.wild)["link"] == "up":
            raise StepFailed("the link should be cut")

    return act


FAULTS = [
    Fault("kill-daemon", "kill -9 of the edge daemon", "kill -9 边缘守护进程", *kill("daemon", starts=True), kubeedge=(4,)),
    Fault(
        "kill-daemon-often",
        "kill -9 of the edge daemon six times",
        "六次 kill -9 边缘守护进程",
        _often,
        hold_s=0.5,
        kubeedge=(4, 5),
    ),
    Fault("pause-daemon", "the edge daemon stands still for 10 s", "边缘守护进程停顿 10 秒", *pause("daemon"), hold_s=10.0),
    Fault("kill-leaf", "kill -9 of the node's leaf", "kill -9 节点的 leaf", *kill("leaf", starts=False)),
    Fault("pause-leaf", "the node's leaf stands still for 10 s", "节点的 leaf 停顿 10 秒", *pause("leaf"), hold_s=10.0),
    Fault(
        "kill-node",
        "kill -9 of daemon and leaf together",
        "同时 kill -9 守护进程和 leaf",
        _both_at_node,
        lambda f: f.start("daemon", f.wild),
        kubeedge=(4,),
    ),
    Fault("kill-mapper", "kill -9 of the mapper", "kill -9 mapper 进程", *kill("mapper", starts=True), silences=True),
    Fault("pause-mapper", "the mapper stands still", "mapper 停顿", *pause("mapper"), silences=True),
    Fault(
        "reboot",
        "power lost with the link cut, all containers gone",
        "链路中断时断电，所有容器消失",
        _reboot(linked=False),
        heal,
        kubeedge=(10,),
        touches=True,
        heals=True,
    ),
    Fault(
        "reboot-linked",
        "power lost, all containers gone",
        "断电，所有容器消失",
        _reboot(linked=True),
        kubeedge=(10,),
        touches=True,
    ),
    Fault(
        "kill-hub-server",
        "kill -9 of the hub's nats-server",
        "kill -9 中心的 nats-server",
        *kill("hub server", starts=False),
        both=True,
        kubeedge=(9,),
    ),
    Fault(
        "kill-hub",
        "kill -9 of the hub's supervisor",
        "kill -9 中心的监管进程",
        *kill("hub", starts=True),
        both=True,
    ),
    Fault(
        "pause-hub-server",
        "the hub's nats-server stands still for 10 s",
        "中心的 nats-server 停顿 10 秒",
        *pause("hub server"),
        both=True,
        hold_s=10.0,
        kubeedge=(9,),
    ),
    Fault(
        "hang-hub-server",
        "the hub's nats-server stands still for good: its supervisor must restart it",
        "中心的 nats-server 永久停顿：监管进程必须重启它",
        lambda f: f.signal("hub server", signal.SIGSTOP),
        both=True,
        hold_s=45.0,
        kubeedge=(9,),
    ),
    Fault("pause-hub", "the hub's supervisor stands still", "中心的监管进程停顿", *pause("hub"), both=True),
]
