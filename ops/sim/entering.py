"""Joining, renewing and revoking in the simulation: the real decisions (cloud/admitting.py, cloud/revoking.py) between
machines that want in and the model of the hub's door.

Tokens are given out, used twice and by thieves, answers are lost, nodes are revoked and join again with another key while
who has the old one goes on trying.  The machines are no edges (edge.py), which are let in by ``rejoin`` alone: what is done
with a link is simulated there, who gets one here.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from bus import log
from bus.identity import keys, tokens
from cloud.admitting import Admitting, Refused
from cloud.revoking import LOOK_S, RETRY_S, SETTLE_S, Looks, taken_out
from ops.sim.api import WorkersLog
from ops.sim.doors import Account, Doors, Jwt
from ops.sim.hub import Hub
from ops.sim.schedule import MS, Clock, S, Schedule
from ops.sim.wire import Link, Wire
from ops.sim.worker import Worker
from schemas import codec, event, identity, subjects
from schemas.joining import JoinRequest, RenewRequest

LIFE_S = 400  # of a JWT: some renewals in a run
RENEW_AT = 2 / 3  # as bus/identity/join.py
AGAIN_US = 15 * S
Answer = tuple[Jwt, Jwt] | str | log.LogError  # (JWT, late JWT); why not; nobody answered


class Stamps:
    def __init__(self, worker: Worker) -> None:
        self._w = worker

    def now_us(self) -> int:
        return self._w.clock.now_us

    def new_id(self) -> str:
        return event.uuid7(self._w.clock.now_us, self._w.lots.randbytes(10))


class Entrance(Worker):
    """One instance of the join service, and the keeper of the revocations beside it: as one process of the cloud."""

    def __init__(
        self, name: str, schedule: Schedule, hub: Hub, wire: Wire, doors: Doors, admitting: type[Admitting] = Admitting
    ) -> None:
        super().__init__(name, schedule, hub, wire)
        self._doors, self._make = doors, admitting
        self._out: dict[str, int] = {}
        self.begin_anew()

    def begin_anew(self) -> None:
        self.admitting = self._make(WorkersLog(self), self._cut_off, stamps=Stamps(self))
        self._looks, self._out = Looks(), {}

    def begin(self) -> None:
        self.begin_anew()
        self.follow("IDENTITY", self._identity, lambda: self.later(1, self._look))

    # --- requests

    def ask(self, work: Callable[[], Any], answer: Callable[[Answer], None]) -> None:
        """``work``: a coroutine of ours; whoever asks hears nothing when we end before it does."""

        def done(result: Any) -> None:
            match result:
                case Refused(reason):
                    answer(reason)
                case log.LogError():
                    pass  # not refused and not told: the node hears a timeout and asks again
                case Exception():
                    raise result
                case (node, state):
                    answer(self._signed(node, state))

        self.later(self.lots.randrange(1, 20 * MS), lambda: self.spawn(work(), done))

    def _signed(self, node: str, state: identity.NodeState) -> tuple[Jwt, Jwt]:
        now_s = self.clock.now_us // S
        key = state.public_key
        return Jwt("edge", node, key, now_s, now_s + LIFE_S), Jwt("join", node, key, now_s, None)

    async def join(self, token: str, data: bytes) -> tuple[str, identity.NodeState]:
        request, state = await self.admitting.join(token, data)
        return request.node, state

    async def renew(self, node: str, data: bytes) -> tuple[str, identity.NodeState]:
        _, state = await self.admitting.renew(node, data)
        return node, state

    # --- revocations

    async def push(self, account: Account, *, add: frozenset[str], remove: frozenset[str] = frozenset()) -> None:
        """Raises LogUnavailable for what is PushFailed outside."""
        now_s = self.clock.now_us // S
        await self.request(lambda: self._doors.change(account, now_s, add=add, remove=remove), write=True)

    async def refuse(self, key: str) -> None:
        await self.push("join", add=frozenset([key]))
        await self.push("edge", add=frozenset([key]))

    async def _cut_off(self, _: str, key: str) -> None:
        try:
            await self.refuse(key)
        except log.LogError:
            self.schedule.note(f"{self.name} could not cut off a former key")

    def _identity(self, r: log.Recorded, _: bool) -> None:
        if r.subject.startswith("identity.nodes."):
            state = codec.validate(identity.NodeState, r.event().data or {})
            if out := taken_out(state, r.time_us):
                self._out |= out
                self.later(int(SETTLE_S * S), lambda: self.spawn(self._compare(), self._quiet))

    def _look(self) -> None:
        def done(result: Any) -> None:
            failed = isinstance(result, log.LogError) or self._looks.stale
            self._quiet(result)
            self.later(int((RETRY_S if failed else LOOK_S) * S), self._look)

        self.spawn(self._compare(), done)

    @staticmethod
    def _quiet(result: Any) -> None:
        if isinstance(result, Exception) and not isinstance(result, log.LogError):
            raise result

    async def _compare(self) -> None:
        claims: dict[Account, dict[str, int]] = await self.request(self._doors.copied)
        now_s = self.clock.now_us // S
        in_join, in_edge = self._looks.look(self._out, (), claims["edge"], claims["join"], now_s)
        if in_join:
            await self.push("join", add=in_join.add, remove=in_join.remove)
        if in_edge:
            await self.push("edge", add=in_edge.add, remove=in_edge.remove)


class Machine:
    """Wants to be a node, and has a key; ``token`` is what it was given, or took."""

    def __init__(
        self, name: str, node: str, schedule: Schedule, wire: Wire, doors: Doors, pick: Callable[[Random], Entrance]
    ) -> None:
        self.name, self.node, self.schedule, self._wire, self._doors, self._pick = name, node, schedule, wire, doors, pick
        self.lots = schedule.lots(name)
        self.clock = Clock(schedule)
        self.link = Link(name)
        self.key = keys.from_raw(self.lots.randbytes(32), "user").public
        self.jwt: Jwt | None = None
        self.late: Jwt | None = None
        self.token: tuple[str, str] | None = None  # (id, secret)
        self.inside = False
        self.refused = ""
        self.off = False
        self._renew_at_us: int | None = None
        self._asking = False
        schedule.after(self.lots.randrange(1, S), self._live)

    def give(self, token: tuple[str, str]) -> None:
        self.token, self.refused = token, ""

    def switch_off(self) -> None:
        self.off = True
        self.inside = False
        self._doors.leave(self.name)

    def _live(self) -> None:
        """What it does next, for ever: it asks for a JWT, or with the one that it has to be let in."""
        if self.off:
            return
        if not self._asking:
            if self.jwt is None:
                if self.token is not None and not self.refused:
                    self._join(*self.token)
            elif self._due():
                self._renew()
            if self.jwt is not None and not self.inside:
                self._enter(self.jwt)
        self.schedule.after(self.lots.randrange(1 * S, AGAIN_US), self._live)

    def _due(self) -> bool:
        """By its monotonic clock; or it was not let in though it has one (bus/identity/join.py)."""
        return self._renew_at_us is None or self.schedule.mono_us >= self._renew_at_us or not self.inside

    def _enter(self, jwt: Jwt) -> None:
        def ended() -> None:
            self.inside = False

        def serve() -> bool:
            return not self.off and self._doors.enter(jwt, self.name, ended)

        def done(answer: bool | log.LogError) -> None:
            if answer is True and any(s.machine == self.name for s in self._doors.sessions):
                self.inside = True

        if not any(s.machine == self.name for s in self._doors.sessions):
            self._wire.request(self.link, serve, done)

    def _join(self, token: str, secret: str) -> None:
        data = codec.encode(JoinRequest(token=token, secret=secret, node=self.node, public_key=self.key))
        self._ask(lambda e: e.join(token, data))

    def _renew(self) -> None:
        """Over its own connection, or with the late JWT."""
        late = self.late
        if late is None or not (self.inside or self._doors.believes(late)):
            return  # the door is shut in its face
        data = codec.encode(RenewRequest(public_key=self.key))
        self._ask(lambda e: e.renew(self.node, data))

    def _ask(self, work: Callable[[Entrance], Any]) -> None:
        self._asking = True
        entrance = self._pick(self.lots)
        session, answered = [True], self._answered

        def got(answer: Answer) -> None:
            if session[0]:
                session[0] = False
                self._asking = False
                answered(answer)

        def arrive() -> None:
            if entrance.running:
                entrance.ask(lambda: work(entrance), lambda a: self._wire.publish(self.link, lambda: got(a)))

        self._wire.request(self.link, arrive, lambda _: None)
        self.schedule.after(AGAIN_US, lambda: got(log.LogUnavailable("no answer")))

    def _answered(self, answer: Answer) -> None:
        match answer:
            case str():
                self.schedule.note(f"{self.name} is refused: {answer[:40]}")
                if self.jwt is None and "try again" not in answer:
                    self.refused = answer
            case (jwt, late):
                self.schedule.note(f"{self.name} has a JWT")
                self.jwt, self.late = jwt, late
                self._renew_at_us = self.schedule.mono_us + int(LIFE_S * RENEW_AT * S)


def token_event(token: str, secret: str, node: str | None, key: str, stamps: Stamps) -> event.Event:
    """As tokens.create_token writes it."""
    expires = stamps.now_us() + 3600 * S
    state = identity.TokenState(secret_sha256=tokens.secret_hash(secret), expires=expires, node=node, bootstrap_key=key)
    return tokens.identity_event(identity.TOKEN_CREATED, "tokens", token, state.model_dump(), stamps=stamps)


async def give_out(entrance: Entrance, node: str | None, lots: Random) -> tuple[str, str]:
    """A new token, once the log has it."""
    token, secret = lots.randbytes(6).hex(), lots.randbytes(32).hex()
    key = keys.from_raw(lots.randbytes(32), "user").public
    ev = token_event(token, secret, node, key, Stamps(entrance))
    await WorkersLog(entrance).append(subjects.identity_token(token), ev, expect=log.Expect(0))
    return token, secret
