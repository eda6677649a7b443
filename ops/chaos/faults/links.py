"""Links that are cut, bad, or gone in one direction only."""

from __future__ import annotations

import time

from ops.chaos.faults.fault import Act, Fault
from ops.chaos.field import Field
from ops.lab.links import CELLULAR, CLEAR, SATELLITE, Profile, Side, Way
from ops.lab.show import StepFailed

INSTALLED_BEAT_S = 300.0  # bus/link.py
LOSSY = Profile("lossy", rtt_ms=40, loss=0.2)


def _profile(profile: Profile) -> Act:
    """Stays bad until all has converged over it."""
    return lambda f: f.links.shape(f.wild, profile)


def clear(f: Field) -> None:
    f.links.shape(f.wild, CLEAR)


def _flap(f: Field) -> None:
    for _ in range(6):
        f.links.cut(f.wild)
        time.sleep(1.5)
        f.links.heal(f.wild)
        time.sleep(1.0)


def _flap_fast(f: Field) -> None:
    for _ in range(20):
        f.links.cut(f.wild)
        time.sleep(0.2)
        f.links.heal(f.wild)
        time.sleep(0.2)


def cut(f: Field) -> None:
    f.links.cut(f.wild)


def heal(f: Field) -> None:
    f.links.heal(f.wild)


def _one_way(way: Way) -> Act:
    return lambda f: f.links.cut(f.wild, way)


def _unplug(side: Side) -> tuple[Act, Act]:
    return (lambda f: f.links.unplug(f.wild, side)), (lambda f: f.links.plug(f.wild, side))


def _bad_cut(f: Field) -> None:
    f.links.shape(f.wild, SATELLITE)
    f.links.cut(f.wild)


def _quiet_cut(f: Field) -> None:
    """A node as it is installed: nothing but its rare beats would tell it that the link is dead."""
    f.kill("daemon", f.wild)
    f.start("daemon", f.wild, beat_s=INSTALLED_BEAT_S)
    f.lab.answers(f.wild)
    f.lab.until("the link is up", lambda: f.lab.node_status(f.wild).get("link") == "up")
    f.links.cut(f.wild)


def _usual_beats(f: Field) -> None:
    f.kill("daemon", f.wild)
    f.start("daemon", f.wild)
    f.lab.answers(f.wild)


def _recreate(f: Field) -> None:
    f.links.cut(f.wild)
    _replace(f)


def _replace(f: Field) -> None:
    name = f.toggle(f.wild)
    f.lab.kubectl("delete", "pod", name, "--force", "--grace-period=0", "--wait=false")
    f.lab.until("gone from the API", lambda: not f.lab.get("pod", name))
    f.lab.pod(f.wild, name, label="new")


def _is_new(f: Field) -> None:
    name = f"{f.toggle(f.wild)}/sleep"
    if f.lab.env_of(f.lab.containers(f.wild)[name][0])["LABEL"] != "new":
        raise StepFailed(f"{name} is still the old one")


def _many_cut(f: Field) -> None:
    """A lot is written for a node that is away: more than a burst, each object more often than the log keeps versions."""
    f.links.cut(f.wild)
    for _ in range(12):
        f.change(f.wild)


FAULTS = [
    Fault(
        "cut-3",
        "link silent for 3 s",
        "链路静默中断 3 秒",
        cut,
        heal,
        hold_s=3.0,
        kubeedge=(1, 15),
        heals=True,
    ),
    Fault(
        "cut-20", "link silent for 20 s", "链路静默中断 20 秒", cut, heal, hold_s=20.0, kubeedge=(1, 7, 9, 15), heals=True
    ),
    Fault(
        "cut-150",
        "link silent for 150 s: longer than every back-off and the log's window for doubles",
        "链路静默中断 150 秒：比一切退避和日志的去重窗口都长",
        cut,
        heal,
        hold_s=150.0,
        kubeedge=(1, 7, 9, 15),
        heals=True,
    ),
    Fault(
        "cut-installed",
        "link silent for 30 s, beats as rare as installed (300 s)",
        "链路静默中断 30 秒，心跳与安装后一样稀少（300 秒）",
        _quiet_cut,
        heal,
        _usual_beats,
        hold_s=30.0,
        kubeedge=(9, 15),
        heals=True,
    ),
    Fault(
        "cut-many",
        "36 writes for a node that is away",
        "节点离线时为它写入 36 次",
        _many_cut,
        heal,
        hold_s=5.0,
        kubeedge=(1, 15),
        changes=False,
        heals=True,
    ),
    Fault(
        "unplug-node", "cable pulled at the node for 10 s", "节点一侧拔线 10 秒", *_unplug("node"), hold_s=10.0, heals=True
    ),
    Fault(
        "unplug-hub",
        "cable pulled at the hub for 10 s",
        "中心一侧拔线 10 秒",
        *_unplug("hub"),
        hold_s=10.0,
        heals=True,
    ),
    Fault(
        "deaf",
        "nothing reaches the node for 10 s",
        "10 秒内节点什么也收不到",
        _one_way("down"),
        heal,
        hold_s=10.0,
        heals=True,
    ),
    Fault(
        "mute", "nothing leaves the node for 10 s", "10 秒内节点什么也发不出", _one_way("up"), heal, hold_s=10.0, heals=True
    ),
    Fault(
        "flapping",
        "six cuts of 1.5 s",
        "中断六次，每次 1.5 秒",
        _flap,
        hold_s=0.5,
        kubeedge=(5, 9),
    ),
    Fault(
        "flapping-fast",
        "twenty cuts of 0.2 s",
        "中断二十次，每次 0.2 秒",
        _flap_fast,
        hold_s=0.5,
        kubeedge=(5, 9),
    ),
    Fault(
        "satellite",
        "satellite: 600 ms, 5 % of packets lost each way",
        "卫星链路：600 毫秒，双向各丢 5 % 的包",
        _profile(SATELLITE),
        after=clear,
        hold_s=10.0,
        kubeedge=(5,),
    ),
    Fault(
        "satellite-cut",
        "satellite link silent for 10 s",
        "卫星链路静默中断 10 秒",
        _bad_cut,
        heal,
        clear,
        hold_s=10.0,
        kubeedge=(5, 15),
    ),
    Fault(
        "cellular",
        "cellular: 80 ms, 120 ms jitter, 2 % lost each way",
        "蜂窝链路：80 毫秒，抖动 120 毫秒，双向各丢 2 %",
        _profile(CELLULAR),
        after=clear,
        kubeedge=(5,),
    ),
    Fault(
        "lossy",
        "40 ms, 20 % lost each way",
        "40 毫秒，双向各丢 20 %",
        _profile(LOSSY),
        after=clear,
        hold_s=10.0,
        kubeedge=(5,),
    ),
    Fault(
        "recreate",
        "a pod made anew under its name, the node cut off",
        "节点断开时以同名重建一个 Pod",
        _recreate,
        heal,
        _is_new,
        kubeedge=(10,),
        changes=False,
        heals=True,
    ),
    Fault(
        "recreate-linked",
        "a pod made anew under its name",
        "以同名重建一个 Pod",
        _replace,
        after=_is_new,
        kubeedge=(10,),
        changes=False,
    ),
]
