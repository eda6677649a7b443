"""Operators, machines and thieves at the hub's door, and what must hold there; see entering.py.

Always: a token makes one node; a key that an operator was told is out never comes in again.  In the end: of each node the
one machine is in whose key the log names, and nobody else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

from bus import log
from bus.identity import accounts
from cloud.admitting import Admitting
from ops.sim.checkers import Violation, read
from ops.sim.doors import Doors, Session
from ops.sim.entering import Entrance, Machine, give_out
from ops.sim.hub import Hub
from ops.sim.schedule import S, Schedule
from ops.sim.wire import Wire

NODES = ("gate-1", "gate-2", "gate-3")
MACHINES_MAX = 10
CLOCK_OFF_S_MAX = 60  # of a join service: a JWT's life is far longer than clocks may be apart


@dataclass(frozen=True)
class Gated:
    """What a mutant may replace."""

    admitting: type[Admitting] = Admitting
    changed: Callable[..., dict[str, int]] = accounts.changed
    always: bool = False  # in every world


@dataclass
class GateChecker:
    hub: Hub
    users: dict[str, tuple[str, str]] = field(default_factory=dict)  # token -> (node, key) that used it
    nodes: dict[str, tuple[str, str]] = field(default_factory=dict)  # token -> (node, key) that joined by it
    out: set[str] = field(default_factory=set)  # keys of which an operator was told that they are out
    let_in: int = 0
    revoked: int = 0

    def appended(self, record: log.Recorded) -> None:
        if record.stream != "IDENTITY":
            return
        raw = read(record.payload)
        data: dict[str, Any] = raw["data"]
        if raw["resource"] == "tokens" and data.get("used_by"):
            self._once(self.users, raw["name"], (data["used_by"], data["used_key"]), record)
        if raw["resource"] == "nodes" and raw["type"] == "identity.node.joined":
            self._once(self.nodes, data["token"], (raw["name"], data["public_key"]), record)

    @staticmethod
    def _once(known: dict[str, tuple[str, str]], token: str, who: tuple[str, str], record: log.Recorded) -> None:
        if known.setdefault(token, who) != who:
            raise Violation("token once", f"{record.subject} #{record.seq}: used by {who}, and by {known[token]} before")

    def entered(self, session: Session) -> None:
        self.let_in += 1
        if session.jwt.key in self.out:
            raise Violation("revoked", f"{session.machine} is let in with a key that is out")

    def told_out(self, key: str) -> None:
        self.revoked += 1
        self.out.add(key)

    def restored(self) -> None:
        """What the new epoch has forgotten may be used again; who is out stays out."""
        self.users, self.nodes = {}, {}
        for record in self.hub.streams["IDENTITY"].history:
            self.appended(record)


class Gate:
    def __init__(self, schedule: Schedule, hub: Hub, wire: Wire, gated: Gated) -> None:
        self._schedule, self._hub, self._wire = schedule, hub, wire
        self.checker = GateChecker(hub)
        self.doors = Doors(schedule, gated.changed)
        self.doors.on_in = self.checker.entered
        self.entrances = [Entrance(f"join-{n}", schedule, hub, wire, self.doors, gated.admitting) for n in (1, 2)]
        for entrance in self.entrances:
            entrance.clock.off_us = schedule.lots(f"{entrance.name}/clock").randrange(-CLOCK_OFF_S_MAX, CLOCK_OFF_S_MAX) * S
        self.machines: list[Machine] = []

    def begin(self) -> None:
        lots = self._schedule.lots("gate")
        for node in NODES[:2]:
            self._new(node, None, lots)

    # --- what operators and thieves do

    def act(self, lots: Random) -> None:
        do = lots.choices((self._newcomer, self._replace, self._revoke, self._switch_off), (3, 3, 3, 1))[0]
        do(lots)

    def _newcomer(self, lots: Random) -> None:
        self._new(lots.choice(NODES), None, lots)

    def _replace(self, lots: Random) -> None:
        """Another machine for a node; the one before goes on trying."""
        node = lots.choice(NODES)
        self._new(node, node, lots)

    def _new(self, node: str, for_node: str | None, lots: Random) -> None:
        """A machine, and sometimes a second one that got hold of its token."""
        if len(self.machines) + 2 > MACHINES_MAX:
            return
        thieves = [node] if lots.random() < 0.6 else [node, lots.choice(NODES)]
        made = [self._machine(n) for n in thieves]
        entrance = lots.choice(self.entrances)

        def done(answer: Any) -> None:
            if isinstance(answer, tuple):
                for machine in made:
                    machine.give(answer)

        if entrance.running:
            entrance.spawn(give_out(entrance, for_node, lots), done)

    def _machine(self, node: str) -> Machine:
        name = f"machine-{len(self.machines) + 1}"
        made = Machine(name, node, self._schedule, self._wire, self.doors, lambda lots: lots.choice(self.entrances))
        self.machines.append(made)
        return made

    def _revoke(self, lots: Random) -> None:
        node, entrance = lots.choice(NODES), lots.choice(self.entrances)

        async def revoke() -> None:
            try:
                state = await entrance.admitting.revoke(node, reason="stolen", actor="operator")
                await entrance.refuse(state.public_key)
            except (LookupError, log.LogError) as e:
                self._schedule.note(f"{node} could not be revoked: {type(e).__name__}")
                return
            self._schedule.note(f"{node} is revoked")
            self.checker.told_out(state.public_key)

        if entrance.running:
            entrance.spawn(revoke(), _raised)

    def _switch_off(self, lots: Random) -> None:
        lots.choice(self.machines).switch_off()

    def old_claims(self) -> None:
        """Somebody restores the folder of the claims: until the keeper of the revocations has looked, old keys count."""
        self.doors.older()
        if self.doors.copy is None:
            self.checker.out.clear()

    def restored(self) -> None:
        self.checker.restored()
        self.doors.throw_out_all()

    # --- in the end

    def help(self) -> None:
        """An operator sees a node that the log knows and that is not in, and gives its machine another token."""
        for node, state in self._states().items():
            machine = self._holder(state["public_key"])
            if machine is not None and machine.jwt is None and not state["revoked"]:
                self.entrances[0].spawn(give_out(self.entrances[0], node, machine.lots), partial(_given, machine))

    def _states(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for record in self._hub.streams["IDENTITY"].history:
            raw = read(record.payload)
            if raw["resource"] == "nodes":
                found[raw["name"]] = raw["data"]
        return found

    def _holder(self, key: str) -> Machine | None:
        return next((m for m in self.machines if m.key == key and not m.off), None)

    def differences(self) -> list[str]:
        states = self._states()
        out: list[str] = []
        inside = {s.machine: s.jwt for s in self.doors.sessions}
        for name, jwt in inside.items():
            state = states.get(jwt.node)
            if state is None or state["revoked"] or state["public_key"] != jwt.key:
                out.append(f"{name} is in as {jwt.node}, which it is not")
        for node, state in states.items():
            machine = self._holder(state["public_key"])
            if machine is None or state["revoked"] or machine.name in inside:
                continue
            if machine.key in self.doors.claims["join"]:
                continue  # it was out before the log was restored to when it was not: an operator has to replace it
            # A connection ends with the JWT that it was made with, and is made anew with the next one.
            if machine.jwt is None or not self.doors.believes(machine.jwt):
                out.append(f"{machine.name} is {node} and not in")
        return out


def _given(machine: Machine, answer: Any) -> None:
    if isinstance(answer, tuple):
        machine.give(answer)


def _raised(result: Iterable[Any] | Exception | None) -> None:
    if isinstance(result, Exception):
        raise result
