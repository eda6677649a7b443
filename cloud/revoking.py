"""Holds the hub's accounts to what the log says about who may not come in.

A revocation is first an event in IDENTITY, then a claim at the servers.  Between the two anything may fail: a server that is
away, a push that is lost, two who change the claims at once, an accounts folder that was restored from an old copy.  So one
process of the cloud compares, at once after each event, after each reconnect, and now and then, and pushes what is missing.

The same for signing keys whose grace after a rotation is over (bus/hub/rotate.py).

A key that is refused in EDGE alone was shut out for a while (cloud/gatekeeper.py); when its time is over it is taken out
here, too, if the gatekeeper died before it could.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import structlog

from bus import connect, stamp
from bus import log as buslog
from bus.hub import rotate
from bus.hub.init import Hub
from bus.identity import accounts
from schemas import codec, identity, times

logger = structlog.get_logger(__name__)

LOOK_S = 30.0
RETRY_S = 2.0
SETTLE_S = 0.2  # events that come together are one look


@dataclass(frozen=True, slots=True)
class Change:
    add: frozenset[str] = frozenset()
    remove: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.add or self.remove)


def changes(
    out: Mapping[str, int], shut: Iterable[str], edge: Mapping[str, int], join: Mapping[str, int], now_s: int
) -> tuple[Change, Change]:
    """What is to be changed in (JOIN, EDGE).  Pure.

    ``out``: keys that are refused for good, with the second of it; ``shut``: those that are for a while; ``edge`` and
    ``join``: what the server refuses now, with the second until which.  Old ones are forgotten in EDGE, whose JWTs have all
    expired."""
    since = now_s - accounts.REVOCATION_KEPT_S
    young = {k for k, at in out.items() if at > since} | {k for k, until in join.items() if until > now_s}
    keep = set(shut)
    return (
        Change(add=frozenset(out.keys() - join.keys())),
        Change(
            add=frozenset((young | keep) - edge.keys()),
            remove=frozenset(edge.keys() - keep - join.keys() - out.keys()),
        ),
    )


class Looks:
    """Look after look; pure but for what was seen at the one before."""

    def __init__(self) -> None:
        self.stale: frozenset[str] = frozenset()  # refused in EDGE, and nobody knows why: taken out when it is so twice

    def look(
        self, out: Mapping[str, int], shut: Iterable[str], edge: Mapping[str, int], join: Mapping[str, int], now_s: int
    ) -> tuple[Change, Change]:
        """As ``changes``.  A door that is being shut at this moment may be at the server and not yet known here."""
        in_join, in_edge = changes(out, shut, edge, join, now_s)
        twice, self.stale = in_edge.remove & self.stale, in_edge.remove
        return in_join, Change(in_edge.add, twice)


def taken_out(state: identity.NodeState, time_us: int) -> dict[str, int]:
    """Keys that a node's state, stored at that time, says are out for good, with the second of it."""
    out = {key: at // times.US_PER_S for key, at in state.former.items()}
    return out | {state.public_key: time_us // times.US_PER_S} if state.revoked else out


class Revoking:
    """``run`` in one process of the cloud.  ``shut``: keys of the doors that are shut now."""

    def __init__(
        self,
        store: buslog.Log,
        hub: Hub,
        sys: connect.Connection,
        shut: Callable[[], Iterable[str]] = lambda: (),
        *,
        look_s: float = LOOK_S,
    ) -> None:
        self._log, self._hub, self._sys, self._shut, self._look_s = store, hub, sys, shut, look_s
        self._out: dict[str, int] = {}
        self._look = asyncio.Event()
        self._read = asyncio.Event()
        self._looks = Looks()
        self.pushed = 0
        sys.on_change(lambda up: self._look.set() if up else None)

    async def run(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(), name="revocations")
            await self._read.wait()
            while True:
                self._look.clear()
                wait_s = self._look_s
                try:
                    await self._compare()
                    if self._looks.stale:
                        wait_s = RETRY_S
                except accounts.PushFailed as e:
                    logger.warning("revoking.retrying", error=str(e))
                    wait_s = RETRY_S
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._look.wait()
                await asyncio.sleep(SETTLE_S)

    async def _compare(self) -> None:
        if await rotate.expire(self._hub, self._sys):
            self.pushed += 1
            logger.warning("revoking.signing_key_expired")
        now_s = stamp.now_us() // times.US_PER_S
        edge = await accounts.revocations(self._hub, self._sys, "edge")
        join = await accounts.revocations(self._hub, self._sys, "join")
        in_join, in_edge = self._looks.look(self._out, self._shut(), edge, join, now_s)
        for account, change in (("join", in_join), ("edge", in_edge)):
            if change:
                await accounts.change(self._hub, self._sys, account, add=change.add, remove=change.remove)  # type: ignore[arg-type]
                self.pushed += 1
                logger.warning("revoking.pushed", account=account, added=sorted(change.add), removed=sorted(change.remove))

    async def _follow(self) -> None:
        while True:
            self._out.clear()
            with contextlib.suppress(buslog.EpochChanged):
                async with contextlib.aclosing(
                    self._log.follow("IDENTITY", ["identity.nodes.>"], last_per_subject=True)
                ) as batches:
                    async for batch in batches:
                        for r in batch.records:
                            self._take(r)
                        if batch.pending == 0:
                            self._read.set()
                            self._look.set()

    def _take(self, r: buslog.Recorded) -> None:
        try:
            state = codec.validate(identity.NodeState, r.event().data or {})
        except codec.DecodeError as e:
            logger.warning("revoking.foreign_event", reason=str(e))
            return
        self._out |= taken_out(state, r.time_us)
