"""The hub's door as a model: which JWTs it believes, whom it lets in, whom it throws out.

As nats-server does with operator-mode accounts: a user's JWT counts until it ends, by the server's clock, and not when its
account's claims revoke the key up to the second in which it was issued, or a later one.  Claims are pushed whole, outlive a
restored log (bus/hub/backup.py keeps revocations), and are an older copy of themselves once somebody restored the folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from bus.identity import accounts
from ops.sim.schedule import Clock, S, Schedule

Account = Literal["edge", "join"]


@dataclass(frozen=True, slots=True)
class Jwt:
    """``expires_s`` None: never, and it may only ask for another one."""

    account: Account
    node: str
    key: str
    issued_s: int
    expires_s: int | None


@dataclass(slots=True)
class Session:
    """A connection of a machine; ``ended`` is told once."""

    jwt: Jwt
    machine: str
    ended: Callable[[], None]


class Doors:
    """``on_in`` is told of everybody who is let in; ``changed``: claims after a change (bus/identity/accounts.py)."""

    def __init__(self, schedule: Schedule, changed: Callable[..., dict[str, int]] = accounts.changed) -> None:
        self._schedule, self._changed = schedule, changed
        self.clock = Clock(schedule)
        self.claims: dict[Account, dict[str, int]] = {"edge": {}, "join": {}}
        self.copy: dict[Account, dict[str, int]] | None = None
        self.sessions: list[Session] = []
        self.on_in: Callable[[Session], None] = lambda _: None

    def believes(self, jwt: Jwt) -> bool:
        now_s = self.clock.now_us // S
        over = jwt.expires_s is not None and jwt.expires_s <= now_s
        return not over and self.claims[jwt.account].get(jwt.key, -1) < jwt.issued_s

    def enter(self, jwt: Jwt, machine: str, ended: Callable[[], None]) -> bool:
        if not self.believes(jwt):
            return False
        session = Session(jwt, machine, ended)
        self.sessions.append(session)
        self._schedule.note(f"{machine} is let in")
        self.on_in(session)
        if jwt.expires_s is not None:
            left_us = max(1, jwt.expires_s * S - self.clock.now_us)
            self._schedule.after(left_us, self._sweep)
        return True

    def change(self, account: Account, now_s: int, *, add: Iterable[str] = (), remove: Iterable[str] = ()) -> None:
        old = self.claims[account]
        self.claims[account] = self._changed(old, now_s, forget=account == "edge", add=add, remove=remove)
        self._schedule.note(f"doors of {account} refuse {len(self.claims[account])}")
        self._sweep()

    def copied(self) -> dict[Account, dict[str, int]]:
        return {a: dict(c) for a, c in self.claims.items()}

    def leave(self, machine: str) -> None:
        self.sessions = [s for s in self.sessions if s.machine != machine]

    def older(self) -> None:
        """The folder of the claims is as it once was."""
        if self.copy is None:
            self.copy = self.copied()
        else:
            self.claims, self.copy = self.copy, None
            self._schedule.note("doors are an old copy")

    def throw_out_all(self) -> None:
        """The server was started anew."""
        for session in self.sessions:
            self._schedule.after(1, session.ended)
        self.sessions = []

    def _sweep(self) -> None:
        for session in [s for s in self.sessions if not self.believes(s.jwt)]:
            self.sessions.remove(session)
            self._schedule.note(f"{session.machine} is thrown out")
            self._schedule.after(1, session.ended)
