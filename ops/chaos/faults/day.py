"""A link that is silent for a day, without waiting for it: clocks are set ahead hour by hour (ops/chaos/clocks.py).

Daemon, mapper and cloud live through 24 hours by their own clocks: renewals, refreshes, back-offs, the age of what waits in
the outbox, evictions, leases, tokens.  nats-servers can't be lied to: to them the cut is 144 s, and so that they see the
node's credentials end as the node does, these live 2 minutes instead of the 20 hours that would be the same share of a day.
What is kept for days (histories, the leaf's samples) is not scaled: a day is less in either world.
"""

from __future__ import annotations

import time
from functools import partial

from bus import stamp
from bus.identity import creds, join, jwt
from ops.chaos import clocks, twins
from ops.chaos.faults.fault import Fault
from ops.chaos.faults.links import heal
from ops.chaos.faults.processes import reboot
from ops.chaos.field import PROBE, Field
from ops.lab.show import StepFailed

CHANGES_AT = (5, 11, 19)  # hours at which users change, delete and make things, beside those at its beginning
CLOUD_AT = (6, 12, 18, 24)  # hours at which the cloud's clock is set, six hours at once
POWER_LOST_AT = 15
AGAIN_S = 20.0  # a daemon that was just started, or whose engine was asked when time jumped


def _begin(f: Field) -> None:
    f.links.cut(f.wild)
    f.lab.until("the link is down", lambda: f.lab.node_status(f.wild).get("link") == "down")


def _day(f: Field) -> None:
    run = stamp.new_id()
    for hour in range(1, clocks.HOURS + 1):
        began = time.monotonic()
        f.day.nodes.go(3600)
        if hour in CLOUD_AT:
            f.day.cloud.go(6 * 3600)
        if hour == POWER_LOST_AT:
            reboot(f)
        if hour in CHANGES_AT:
            for node in f.nodes:
                f.change(node)
        _device_says(f, run, hour)
        time.sleep(max(0.0, clocks.HOUR_AT_SERVERS_S - (time.monotonic() - began)))
    waiting = f.lab.node_status(f.wild)["outbox_pending"]
    if not waiting:
        raise StepFailed("nothing waits in the outbox after a day: the cut was none")


def _device_says(f: Field, run: str, hour: int) -> None:
    tell = partial(
        twins.tell, f.lab.node_dir(f.wild), f"probe-{f.wild}", PROBE, hour,
        boot=run, seq=hour, time_us=int(f.day.nodes.time() * 1e6),
    )  # fmt: skip

    def once() -> bool:
        try:
            f.links.run_inside(f.wild, tell)
        except StepFailed:
            return False
        return True

    f.lab.until(f"the daemon takes what its device says in hour {hour}", once, seconds=AGAIN_S)


def _end(f: Field) -> None:
    """Both clocks are where they were to each other, and both servers and node see credentials that have ended."""
    assert f.day.nodes.ahead_s == f.day.cloud.ahead_s
    claims = jwt.claims_of(creds.read(join.creds_path(f.lab.node_dir(f.wild))).jwt)
    if int(claims["exp"]) > time.time():
        raise StepFailed("the node's credentials did not end within the cut: the row would prove nothing")
    heal(f)


def _after(f: Field) -> None:
    said = f"the renewer of {f.wild}"
    if int(jwt.claims_of(creds.read(join.creds_path(f.lab.node_dir(f.wild))).jwt)["exp"]) <= f.day.nodes.time():
        raise StepFailed(f"{said} has not got new credentials")

    def last() -> bool:
        status = f.lab.get("devicestatus", f"probe-{f.wild}").get("status") or {}
        return any(
            t["propertyName"] == PROBE and str((t.get("reported") or {}).get("value")) == str(clocks.HOURS)
            for t in status.get("twins") or []
        )

    f.lab.until("the API has what the device said last", last)


FAULTS = [
    Fault(
        "cut-day",
        "link silent for 24 h, power lost in the 15th: clocks of daemons, mappers and cloud are set ahead hour by hour; "
        "nats-servers see 144 s, and credentials of 2 minutes that end meanwhile (1:600)",
        "链路静默中断 24 小时，第 15 小时断电：守护进程、mapper 和云端的时钟逐小时拨快；nats-server 只经历 144 秒，"
        "凭据寿命按 1:600 缩为 2 分钟并在其间过期",
        _begin,
        _end,
        _after,
        _day,
        hold_s=clocks.HOURS * clocks.HOUR_AT_SERVERS_S,
        kubeedge=(1, 4, 7, 8, 9, 10, 15),
        touches=True,
        heals=True,
        clocks=True,
        bound=720.0,
    ),
]
