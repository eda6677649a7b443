"""The cloud's processes, one a part: killed, standing still, and deposed while they lead."""

from __future__ import annotations

import signal

from ops.chaos.faults.fault import Act, Fault
from ops.chaos.faults.processes import kill, pause
from ops.chaos.field import CLOUD, Field

TITLES = {
    "api": ("the API and its controllers", "API 与控制器"),
    "dispatcher": ("the dispatcher", "分发器"),
    "reports": ("the reports worker", "上报处理进程"),
    "sync": ("the sync service", "同步服务"),
}


def _each() -> list[Fault]:
    out = []
    for part, (en, zh) in TITLES.items():
        verb = "stand" if " and " in en else "stands"
        out.append(Fault(f"kill-{part}", f"kill -9 of {en}", f"kill -9 {zh}", *kill(part, starts=True), both=True))
        out.append(
            Fault(f"pause-{part}", f"{en} {verb} still for 10 s", f"{zh}停顿 10 秒", *pause(part), both=True, hold_s=10.0)
        )
    return out


def _all(f: Field) -> None:
    for part in CLOUD:
        f.kill(part)


def _start_all(f: Field) -> None:
    for part in CLOUD:
        f.start(part)


def _begin_deposing(part: str) -> Act:
    def begin(f: Field) -> None:
        f.spare(part)
        f.change(f.wild)  # so that it has something in its hands
        f.signal(part, signal.SIGSTOP)

    return begin


def _more(f: Field) -> None:
    for n in f.nodes:
        f.change(n)


def _wake(part: str) -> Act:
    return lambda f: f.signal(part, signal.SIGCONT)


def _no_spare(f: Field) -> None:
    f.forget_spare()


def _begin_succeeding(part: str) -> Act:
    """The leader dies and does not come back while users wait for what it did."""

    def begin(f: Field) -> None:
        f.spare(part)
        f.change(f.wild)
        f.kill(part)

    return begin


def _no_successor(part: str) -> Act:
    def after(f: Field) -> None:
        f.start(part)
        f.forget_spare()

    return after


def _succeeded(part: str, title: str, zh: str, kubeedge: int) -> Fault:
    begin, after = _begin_succeeding(part), _no_successor(part)
    return Fault(f"lead-kill-{part}", title, zh, begin, after=after, both=True, hold_s=2.0, kubeedge=(kubeedge,))


def _deposed(part: str, title: str, zh: str, kubeedge: int) -> Fault:
    """The leader stands still, another takes over and works; then the old one wakes up in the middle of what it did."""
    begin, end = _begin_deposing(part), _wake(part)
    return Fault(f"lead-pause-{part}", title, zh, begin, end, _no_spare, _more, 20.0, (kubeedge,), both=True)


def _burst(f: Field) -> None:
    """Writes without end, and the cloud dies among them."""
    for n in range(12):
        f.change(f.wild)
        if n == 6:
            _all(f)
            break


FAULTS = [
    *_each(),
    _succeeded(
        "dispatcher",
        "kill -9 of a dispatcher that leads, another takes its shards",
        "kill -9 领导分片的分发器，由另一个接管",
        3,
    ),
    _deposed(
        "dispatcher",
        "a dispatcher that leads stands still for 20 s, another takes its shards, the old one wakes up",
        "领导分片的分发器停顿 20 秒，由另一个接管，旧的随后醒来",
        3,
    ),
    _succeeded(
        "reports",
        "kill -9 of the reports worker that leads, another takes over",
        "kill -9 处于领导地位的上报处理进程，由另一个接管",
        5,
    ),
    _deposed(
        "reports",
        "the reports worker that leads stands still for 20 s, another takes over, the old one wakes up",
        "处于领导地位的上报处理进程停顿 20 秒，由另一个接管，旧的随后醒来",
        5,
    ),
    Fault("kill-cloud", "kill -9 of all of the cloud", "kill -9 整个云端", _all, _start_all, both=True),
    Fault(
        "burst",
        "kill -9 of all of the cloud in a burst of writes",
        "在密集写入中 kill -9 整个云端",
        _burst,
        _start_all,
        both=True,
        kubeedge=(3,),
        changes=False,
    ),
]
