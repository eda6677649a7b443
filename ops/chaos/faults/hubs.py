"""The hub stopped, started, and restored from a backup that is older than what its nodes know."""

from __future__ import annotations

import shutil
import signal

from ops.chaos.faults.fault import Fault
from ops.chaos.faults.links import heal
from ops.chaos.field import CLOUD, Field
from ops.lab.processes import started_of

BACKUP = "backup.tar.gz"


def _stop(f: Field) -> None:
    f.signal("hub", signal.SIGTERM)


def _start(f: Field) -> None:
    f.start("hub")


def _stop_everything(f: Field) -> None:
    for part in CLOUD:
        f.stop(part)
    f.stop("hub")


def _start_everything(f: Field) -> None:
    f.start("hub")
    for part in CLOUD:
        f.start(part)


def _back_up(f: Field) -> None:
    f.lab.skerry("hub", "backup", str(f.lab.folder / BACKUP), "--data", str(f.lab.hub))


def _back_up_and_cut(f: Field) -> None:
    _back_up(f)
    f.links.cut(f.wild)


def _restore(f: Field) -> None:
    """What users did since the backup is gone from the log, while nodes have it."""
    f.stop("hub")
    file = f.lab.folder / BACKUP
    f.lab.skerry("hub", "restore", str(file), "--data", str(f.lab.hub), "--replace")
    file.unlink()
    for aside in f.lab.hub.parent.iterdir():
        if aside != f.lab.hub and aside.is_dir() and aside.name.startswith(f.lab.hub.name):
            shutil.rmtree(aside)
    f.restored += 1
    f.start("hub")


def _restore_and_heal(f: Field) -> None:
    _restore(f)
    heal(f)


def _restore_with_cloud_killed(f: Field) -> None:
    for part in CLOUD:
        f.kill(part)
    _restore(f)
    for part in CLOUD:
        f.start(part)


def _kill_together(f: Field) -> None:
    """Power lost at the hub: everything of it at once, and nothing said goodbye."""
    pid = f.pid("hub server")
    for part in CLOUD:
        f.kill(part)
    f.kill("hub")
    f.lab.end_server(pid)
    assert started_of(pid) is None


FAULTS = [
    Fault("restart-hub", "the hub is stopped and started", "中心停止后重新启动", _stop, _start, both=True, kubeedge=(9,)),
    Fault(
        "restart-all",
        "hub and cloud are stopped and started",
        "中心与云端停止后重新启动",
        _stop_everything,
        _start_everything,
        both=True,
        kubeedge=(9,),
    ),
    Fault(
        "power-hub",
        "hub and cloud are killed at one instant",
        "中心与云端同时被杀死",
        _kill_together,
        _start_everything,
        both=True,
        kubeedge=(3, 9),
    ),
    Fault(
        "restore-hub",
        "the hub is restored from a backup, its nodes are ahead of it",
        "中心从备份恢复，节点比它更新",
        _back_up,
        _restore,
        both=True,
        hold_s=6.0,
        kubeedge=(3,),
    ),
    Fault(
        "restore-cut",
        "the same while a node is cut off",
        "同上，且有一个节点断开",
        _back_up_and_cut,
        _restore_and_heal,
        both=True,
        hold_s=6.0,
        kubeedge=(3, 10),
    ),
    Fault(
        "restore-cloud",
        "the same, the cloud begins anew as well",
        "同上，云端也重新开始",
        _back_up,
        _restore_with_cloud_killed,
        both=True,
        hold_s=6.0,
        kubeedge=(3,),
    ),
]
