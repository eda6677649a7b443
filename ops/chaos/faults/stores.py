"""Disks that are full, stores that are damaged or gone."""

from __future__ import annotations

import os
import shutil

from ops.chaos.faults.fault import Fault
from ops.chaos.faults.links import heal
from ops.chaos.field import Field

PAGE = 4096  # LMDB's


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


def _pages(f: Field) -> None:
    """What a worn flash does: some pages are other than they were, the head is sound."""
    f.kill("daemon", f.wild)
    with f.store(f.wild).open("r+b") as data:
        for n in range(3, f.store(f.wild).stat().st_size // PAGE, 2):
            data.seek(n * PAGE)
            data.write(os.urandom(PAGE))


def _no_store(f: Field) -> None:
    f.kill("daemon", f.wild)
    shutil.rmtree(f.store(f.wild).parent)


def _no_store_cut(f: Field) -> None:
    """Neither store nor cloud: what runs must go on, though nobody knows what should."""
    f.links.cut(f.wild)
    _no_store(f)
    _start_daemon(f)
    f.lab.answers(f.wild)


def _start_daemon(f: Field) -> None:
    f.start("daemon", f.wild)


FAULTS = [
    Fault("node-disk", "the node's disk is full for 10 s", "节点磁盘写满 10 秒", _node_disk, _node_room, hold_s=10.0),
    Fault("hub-disk", "the hub's disk is full for 10 s", "中心磁盘写满 10 秒", _hub_disk, _hub_room, both=True, hold_s=10.0),
    Fault(
        "junk-store",
        "the node's store is overwritten with junk",
        "节点存储被垃圾覆盖",
        _junk,
        _start_daemon,
        kubeedge=(4, 15),
    ),
    Fault(
        "half-store",
        "the node's store is cut in half",
        "节点存储被截去一半",
        _half,
        _start_daemon,
        kubeedge=(4, 15),
    ),
    Fault(
        "page-store",
        "every other page of the node's store is junk",
        "节点存储隔页损坏",
        _pages,
        _start_daemon,
        kubeedge=(4, 15),
    ),
    Fault(
        "no-store",
        "the node's store is deleted",
        "节点存储被删除",
        _no_store,
        _start_daemon,
        kubeedge=(4, 15),
    ),
    Fault(
        "no-store-cut",
        "the node's store is deleted while its link is cut",
        "链路中断时节点存储被删除",
        _no_store_cut,
        heal,
        hold_s=8.0,
        kubeedge=(4, 15),
        heals=True,
    ),
]
