"""Shuts out a node that floods the hub, for a while, and lets it in again.

What a node may send is its own affair until it is so much that others would feel it (cloud/core/gates.py).  Then its JWT is
revoked in the account of the nodes alone, which ends its connections within a second, and the join service gives it no new
one.  When its time is over the revocation is taken back, and the same JWT opens the door again.

What is so is in the log, ``identity.doors.<node>``: written before the door is shut and after it was opened, so whoever
looks after a crash shuts or opens it once more (also cloud/revoking.py).  Every cloud process has a gatekeeper, for what it
hears itself; of two that shut or open one door at once the log lets one win.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable

import structlog

from bus import connect, stamp
from bus import log as buslog
from bus.hub.init import Hub
from bus.identity import accounts, tokens
from cloud.core import gates
from schemas import codec, identity, subjects, times

logger = structlog.get_logger(__name__)

LOOK_S = 1.0
WAITING_MAX = 1000  # floods that were noticed and are not dealt with yet: one a node
RETRY_S = 2.0


class Gatekeeper:
    """``spend`` for everything that a node sends; ``run`` shuts and opens.  ``shut`` is told at each look, and whole.

    ``tell(type, what, node, reason)``: for the audit log."""

    def __init__(
        self,
        store: buslog.Log,
        hub: Hub,
        sys: connect.Connection,
        *,
        limits: gates.Limits | None = None,
        tell: Callable[[str, str, str, str], None] = lambda *_: None,
        on_doors: Callable[[dict[str, str]], None] = lambda _: None,
    ) -> None:
        self._log, self._hub, self._sys, self._tell, self._on_doors = store, hub, sys, tell, on_doors
        self._gates = gates.Gates(limits)
        self._floods: asyncio.Queue[tuple[str, str]] = asyncio.Queue(WAITING_MAX)
        self._noticed: set[str] = set()
        self._doors: dict[str, tuple[int, identity.DoorState]] = {}  # node -> (sequence, state), of those ever shut
        self._read = asyncio.Event()

    @property
    def read(self) -> asyncio.Event:
        """Set while the doors are known."""
        return self._read

    def on_doors(self, callback: Callable[[dict[str, str]], None]) -> None:
        """Told at each look of all nodes whose door is shut, and why."""
        self._on_doors = callback

    def spend(self, service: str, node: str, bytes_: int, now_s: float | None = None) -> None:
        """One message of so many bytes; ``now_s``: when the log stored it, for what comes from there."""
        if node in self._noticed:
            return
        if (known := self._doors.get(node)) is not None:
            door = known[1]
            # What was on its way when the door was shut, or waited in the log: one flood is not two.
            if door.until or (now_s is not None and now_s * 1e6 <= door.opened):
                return
        reason = self._gates.spend(service, node, 1, bytes_, time.monotonic() if now_s is None else now_s)
        if reason:
            with contextlib.suppress(asyncio.QueueFull):  # it goes on flooding, and is noticed later
                self._floods.put_nowait((node, reason))
                self._noticed.add(node)

    def spender(self, service: str) -> Callable[[str, int], None]:
        return lambda node, bytes_: self.spend(service, node, bytes_)

    def shut(self) -> dict[str, identity.DoorState]:
        """Doors that are shut, by what the log says."""
        return {node: door for node, (_, door) in self._doors.items() if door.until}

    async def run(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(), name="doors")
            await self._read.wait()
            tasks.create_task(self._shutting(), name="doors.shut")
            while True:
                await self._open_due()
                self._on_doors({node: door.reason for node, door in self.shut().items()})
                await asyncio.sleep(LOOK_S)

    async def _follow(self) -> None:
        while True:
            self._doors.clear()
            with contextlib.suppress(buslog.EpochChanged):
                async with contextlib.aclosing(
                    self._log.follow("IDENTITY", ["identity.doors.>"], last_per_subject=True)
                ) as batches:
                    async for batch in batches:
                        for r in batch.records:
                            with contextlib.suppress(codec.DecodeError):
                                ev = r.event()
                                self._doors[ev.name] = r.seq, codec.validate(identity.DoorState, ev.data or {})
                        if batch.pending == 0:
                            self._read.set()

    async def _shutting(self) -> None:
        while True:
            node, reason = await self._floods.get()
            while True:
                try:
                    await self._shut(node, reason)
                    break
                except codec.DecodeError as e:
                    logger.error("gatekeeper.unreadable", node=node, error=str(e))
                    break
                except (buslog.LogError, accounts.PushFailed) as e:
                    logger.warning("gatekeeper.retrying", node=node, error=str(e))
                    await asyncio.sleep(RETRY_S)
            self._noticed.discard(node)

    async def _shut(self, node: str, reason: str) -> None:
        known = await self._log.last_of("IDENTITY", subjects.identity_node(node))
        if known is None:
            return
        state = codec.validate(identity.NodeState, known.event().data or {})
        if state.revoked:
            return
        now_us = stamp.now_us()
        last = await self._log.last_of("IDENTITY", subjects.identity_door(node))
        door = None if last is None else codec.validate(identity.DoorState, last.event().data or {})
        if door is not None and door.public_key == state.public_key and door.until > now_us:
            await accounts.change(self._hub, self._sys, "edge", add=[state.public_key])  # it was, and is not yet
            return
        before = 0 if door is None else self._gates.times(door.times, door.opened / 1e6, now_us / 1e6)
        for_s = self._gates.shut_for_s(before)
        until = now_us + int(for_s * 1e6)
        shut = identity.DoorState(public_key=state.public_key, until=until, times=before + 1, reason=reason)
        try:
            seq = await self._write(identity.DOOR_SHUT, node, shut, 0 if last is None else last.seq)
        except buslog.WrongSequence:
            return  # another gatekeeper was here first
        self._doors[node] = seq, shut
        await accounts.change(self._hub, self._sys, "edge", add=[state.public_key])
        logger.warning("gatekeeper.shut", node=node, reason=reason, seconds=for_s, times=before + 1)
        self._tell(identity.AUDIT_FLOOD, "flood", node, f"shut out until {times.rfc3339(until)}: {reason}")

    async def _open_due(self) -> None:
        now_us = stamp.now_us()
        for node, (seq, door) in list(self._doors.items()):
            if not door.until or door.until > now_us:
                continue
            try:
                known = await self._log.last_of("IDENTITY", subjects.identity_node(node))
                state = None if known is None else codec.validate(identity.NodeState, known.event().data or {})
                if state is None or (state.public_key == door.public_key and not state.revoked):
                    await accounts.change(self._hub, self._sys, "edge", remove=[door.public_key])
                opened = door.model_copy(update={"until": 0, "opened": now_us})
                seq = await self._write(identity.DOOR_OPENED, node, opened, seq)
            except buslog.WrongSequence:
                continue  # another gatekeeper opened it; the log will tell
            except (buslog.LogError, accounts.PushFailed, codec.DecodeError) as e:
                logger.warning("gatekeeper.retrying", node=node, error=str(e))
                await asyncio.sleep(RETRY_S * random.uniform(0.5, 1.0))
                continue
            self._doors[node] = seq, opened
            logger.info("gatekeeper.opened", node=node)
            self._tell(identity.AUDIT_FLOOD, "flood", node, "let in again")

    async def _write(self, type_: str, node: str, state: identity.DoorState, after: int) -> int:
        ev = tokens.identity_event(type_, "doors", node, state.model_dump(), actor="cloud/gatekeeper")
        return await self._log.append(subjects.identity_door(node), ev, expect=buslog.Expect(after))
