"""The outbox and the node's state in the simulation: the real classes, their asyncio taken over by virtual time.

``Outbox._send`` and ``_send_run`` are coroutines that await one thing, the append (through the fence of a cloned node):
their order of steps (append, wait for the acknowledgement, remove) is the one that runs on a node.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Protocol, cast

from bus import log, outbox
from bus.link import Link
from bus.stores import base
from edge.fence import Fence
from edge.state import RETRY_S, NodeState, Report
from ops.sim.coroutines import Resume, Tasks, Wait
from ops.sim.disk import Disk
from ops.sim.schedule import MS, Clock, S, Schedule
from schemas import event, subjects


class Host(Protocol):
    schedule: Schedule
    lots: Random
    disk: Disk
    clock: Clock
    fenced: bool

    def refused(self, subject: str, ev: event.Event) -> None: ...

    def mine(self, run: Callable[[], None]) -> Callable[[], None]: ...

    def append(self, subject: str, payload: bytes, msg_id: str, done: Resume) -> None: ...

    def append_run(self, subject: str, run: Sequence[tuple[bytes, str]], done: Resume) -> None: ...


class _Hub:
    """The log as the outbox and its fence see it."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def append_bytes(self, subject: str, payload: bytes, msg_id: str) -> int:
        seq: int = await Wait(lambda resume: self._host.append(subject, payload, msg_id, resume))
        return seq

    async def append_run(self, subject: str, run: Sequence[tuple[bytes, str]]) -> None:
        await Wait(lambda resume: self._host.append_run(subject, run, resume))


class OutboxRim:
    """What ``Outbox.run`` does, without tasks of asyncio."""

    def __init__(self, host: Host, box: outbox.Outbox) -> None:
        self._host, self.box = host, box
        self._fence = Fence(cast(log.Log, _Hub(host)), cast(Link, host))
        self._tasks = Tasks()
        self._scheduled = False

    def wake(self) -> None:
        """Something was added, or an attempt ended."""
        if self._scheduled:
            return
        self._scheduled = True
        wait_us = self._host.lots.randrange(1, 5 * MS)
        if self.box._failures:
            most = min(outbox.RETRY_S_MAX, outbox.RETRY_S * 2 ** min(self.box._failures - 1, 10))
            wait_us = int(most * S * self._host.lots.uniform(0.5, 1.0))
        self._host.schedule.after(wait_us, self._host.mine(self._pump))

    def link_up(self) -> None:
        self.box.link_up()
        self._host.schedule.after(1, self._host.mine(self._pump))

    def _pump(self) -> None:
        self._scheduled = False
        box = self.box
        if box._anew:
            box._anew = False
            self._tasks.end()
            box._flying.clear()
            box._busy.clear()
        for n, subject in list(box._subjects.items()):
            if len(box._busy) >= outbox.IN_FLIGHT_MAX:
                break
            if box.may_send(n, subject):
                box._busy.add(subject)
                run = box._run_from(n, subject)
                box._flying.update(dict.fromkeys(run, cast(Any, None)))
                alone = len(run) == 1
                sending = box._send(self._fence, n, subject) if alone else box._send_run(self._fence, run, subject)
                self._tasks.spawn(sending, self._sent)

    def _sent(self, result: object) -> None:
        if isinstance(result, Exception):
            raise result
        self.wake()

    def crash(self) -> None:
        self._tasks.end()


class SimNodeState(NodeState):
    """Stamps from the schedule; its retry is the schedule's."""

    def __init__(self, host: Host, node: str, shards: int, store: base.Store, rim: OutboxRim, boot: str) -> None:
        super().__init__(node, shards, store, rim.box)
        self._host, self._rim, self.boot = host, rim, boot
        self._waits = False

    def _event(self, r: Report) -> tuple[str, event.Event]:
        schedule = self._host.schedule
        ident = schedule.new_id()
        ev = event.Event(
            id=ident,
            type=event.REPORT,
            scope=self._node,
            resource=r.kind,
            namespace=r.namespace,
            name=r.name,
            uid=getattr(r.payload, "uid", ""),
            time=self._host.clock.now_us,
            mono=schedule.mono_us,
            boot=self.boot,
            source="edge@sim",
            cause=r.cause,
            trace=r.trace or ident,
            data=r.payload.model_dump(exclude_defaults=True),
        )
        name = r.name or None
        return subjects.report(self._node, r.kind, self._shards, r.namespace if name else None, name), ev

    def _flush(self, events: Sequence[tuple[str, event.Event]] = ()) -> None:
        if self._host.disk.full:
            for subject, ev in events:
                self._host.refused(subject, ev)
        super()._flush(events)
        self._rim.wake()

    def _retry_later(self) -> None:
        if not self._waits:
            self._waits = True
            self._host.schedule.after(int(RETRY_S * S), self._host.mine(self._try_again))

    def _try_again(self) -> None:
        self._waits = False
        self._flush()
