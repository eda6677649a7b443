"""The faults, one a row of the scorecard.  ``begin`` makes it, ``end`` takes it away; in between users go on.

``kubeedge`` names the failures of KubeEdge that the row is about, by their numbers in the issue's list of them:
1 what was queued for an offline node is thrown away; 3 a crash between two writes; 4 the edge database is lost; 5 reports
lost, reordered or stale after a reconnect; 7 offline writes are refused; 9 NotReady until a manual restart; 10 delete and
recreate of one name, zombies, doubles, pods not recovered after an offline reboot; 15 what a deleted pod used stays, and a
fixed wait of 30 s after each reconnect.  The others are not faults that come and go (idle traffic is `./just bench`).
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from ops.chaos.field import STEADY, Field
from ops.lab.links import CELLULAR, CLEAR, SATELLITE, Profile
from ops.lab.show import StepFailed

PAGE = 4096


def _nothing(_: Field) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Fault:
    key: str
    title: str
    begin: Callable[[Field], None]
    end: Callable[[Field], None] = _nothing
    after: Callable[[Field], None] = _nothing  # once all is well again
    hold_s: float = 6.0
    kubeedge: tuple[int, ...] = ()
    both: bool = False  # it happens to the hub's side: both nodes are hurt
    changes: bool = True  # users go on meanwhile
    touches: bool = False  # the containers themselves are taken away: they can't be the same ones afterwards


def _profile(profile: Profile) -> Callable[[Field], None]:
    """Stays bad until all has converged over it."""
    return lambda f: f.links.shape(f.wild, profile)


def _clear(f: Field) -> None:
    f.links.shape(f.wild, CLEAR)


def _flap(f: Field) -> None:
    for _ in range(6):
        f.links.cut(f.wild)
        time.sleep(1.5)
        f.links.heal(f.wild)
        time.sleep(1.0)


def _cut(f: Field) -> None:
    f.links.cut(f.wild)


def _heal(f: Field) -> None:
    f.links.heal(f.wild)


def _kill(what: str, *, starts: bool) -> tuple[Callable[[Field], None], Callable[[Field], None]]:
    """``starts``: nobody in the lab starts it again but us."""
    return (lambda f: f.kill(what, f.wild)), (lambda f: f.start(what, f.wild) if starts else None)


def _pause(what: str) -> tuple[Callable[[Field], None], Callable[[Field], None]]:
    return (lambda f: f.signal(what, signal.SIGSTOP, f.wild)), (lambda f: f.signal(what, signal.SIGCONT, f.wild))


def _node_disk(f: Field) -> None:
    f.disk(f.wild).fill(f.pid("daemon", f.wild))


def _node_room(f: Field) -> None:
    f.disk(f.wild).free(f.pid("daemon", f.wild))


def _hub_disk(f: Field) -> None:
    f.hub_disk.fill(f.pid("hub server"))


def _hub_room(f: Field) -> None:
    f.hub_disk.free(f.pid("hub server"))


def _junk(f: Field) -> None:
    f.kill("daemon", f.wild)
    data = f.store(f.wild)
    data.write_bytes(os.urandom(data.stat().st_size))


def _half(f: Field) -> None:
    f.kill("daemon", f.wild)
    data = f.store(f.wild)
    os.truncate(data, data.stat().st_size // 2 // PAGE * PAGE)


def _no_store(f: Field) -> None:
    f.kill("daemon", f.wild)
    shutil.rmtree(f.store(f.wild).parent)


def _start_daemon(f: Field) -> None:
    f.start("daemon", f.wild)


def _hub_stop(f: Field) -> None:
    f.signal("hub", signal.SIGTERM)


def _reboot(f: Field) -> None:
    """Power lost with the link cut: daemon, leaf and every container are gone."""
    f.links.cut(f.wild)
    f.kill("daemon", f.wild)
    f.lab.kill_leaf_for_good(f.wild)
    f.lab.remove_containers(f.wild)
    f.start("daemon", f.wild)
    f.lab.until("the pods are back from the replica", lambda: len(f.steady(f.wild)) == 2 * len(STEADY))
    if f.lab.node_status(f.wild)["link"] == "up":
        raise StepFailed("the link should be cut")


def _recreate(f: Field) -> None:
    f.links.cut(f.wild)
    name = f.toggle(f.wild)
    f.lab.kubectl("delete", "pod", name, "--force", "--grace-period=0", "--wait=false")
    f.lab.until("gone from the API", lambda: not f.lab.get("pod", name))
    f.lab.pod(f.wild, name, label="new")


def _is_new(f: Field) -> None:
    name = f"{f.toggle(f.wild)}/sleep"
    if f.lab.env_of(f.lab.containers(f.wild)[name][0])["LABEL"] != "new":
        raise StepFailed(f"{name} is still the old one")


def _burst(f: Field) -> None:
    """Writes without end, and the cloud dies among them."""
    for n in range(20):
        f.change(f.wild)
        if n == 10:
            f.kill("cloud")
            break


def _start_cloud(f: Field) -> None:
    f.start("cloud")


FAULTS = [
    Fault("none", "nothing at all", _nothing, hold_s=2.0),
    Fault("satellite", "satellite: 600 ms, 5 % of packets lost each way", _profile(SATELLITE), after=_clear, kubeedge=(5,)),
    Fault("cellular", "cellular: 80 ms, 120 ms jitter, 2 % lost each way", _profile(CELLULAR), after=_clear, kubeedge=(5,)),
    Fault("flapping", "flapping: six cuts of 1.5 s", _flap, hold_s=0.5, kubeedge=(5, 9)),
    Fault("cut", "link cut for 20 s", _cut, _heal, hold_s=20.0, kubeedge=(1, 7, 9, 15)),
    Fault(
        "recreate",
        "a pod made anew under its name, the node cut off",
        _recreate,
        _heal,
        _is_new,
        kubeedge=(10,),
        changes=False,
    ),
    Fault("reboot", "power lost with the link cut, all containers gone", _reboot, _heal, kubeedge=(10,), touches=True),
    Fault(
        "kill-hub-server", "kill -9 of the hub's nats-server", *_kill("hub server", starts=False), both=True, kubeedge=(9,)
    ),
    Fault("kill-hub", "kill -9 of the hub's supervisor", *_kill("hub", starts=True), both=True),
    Fault("kill-cloud", "kill -9 of the cloud process", *_kill("cloud", starts=True), both=True),
    Fault(
        "burst", "kill -9 of the cloud in a burst of writes", _burst, _start_cloud, both=True, kubeedge=(3,), changes=False
    ),
    Fault("kill-leaf", "kill -9 of the node's leaf", *_kill("leaf", starts=False)),
    Fault("kill-daemon", "kill -9 of the edge daemon", *_kill("daemon", starts=True), kubeedge=(4,)),
    Fault(
        "pause-hub-server",
        "the hub's nats-server stands still",
        *_pause("hub server"),
        both=True,
        hold_s=10.0,
        kubeedge=(9,),
    ),
    Fault(
        "hang-hub-server",
        "the hub's nats-server stands still for good: its supervisor must restart it",
        lambda f: f.signal("hub server", signal.SIGSTOP),
        both=True,
        hold_s=45.0,
        kubeedge=(9,),
    ),
    Fault("pause-hub", "the hub's supervisor stands still", *_pause("hub"), both=True),
    Fault("pause-cloud", "the cloud process stands still", *_pause("cloud"), both=True, hold_s=10.0),
    Fault("pause-leaf", "the node's leaf stands still", *_pause("leaf"), hold_s=10.0),
    Fault("pause-daemon", "the edge daemon stands still", *_pause("daemon"), hold_s=10.0),
    Fault("restart-hub", "the hub is stopped and started", _hub_stop, lambda f: f.start("hub"), both=True, kubeedge=(9,)),
    Fault("node-disk", "the node's disk is full", _node_disk, _node_room, hold_s=10.0),
    Fault("hub-disk", "the hub's disk is full", _hub_disk, _hub_room, both=True, hold_s=10.0),
    Fault("junk-store", "the node's store is overwritten with junk", _junk, _start_daemon, kubeedge=(4, 15)),
    Fault("half-store", "the node's store is cut in half", _half, _start_daemon, kubeedge=(4, 15)),
    Fault("no-store", "the node's store is deleted", _no_store, _start_daemon, kubeedge=(4, 15)),
]  # fmt: skip
SHORT = ("flapping", "cut", "kill-hub-server", "pause-leaf", "no-store")  # one of each kind, for every run of the tests


def chosen(keys: str) -> list[Fault]:
    """Faults by their keys, with commas; '' is all of them.  Raises KeyError."""
    if not keys:
        return list(FAULTS)
    known = {f.key: f for f in FAULTS}
    return [known[k] for k in keys.split(",")]
