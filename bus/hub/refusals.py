"""What nats-server refused, into the audit log.

Nobody of ours sees a refused subject: the server tells the client, and its own log file.  And a login that failed is an
event of SYS, as is the end of a connection that broke a limit.  So both are read here, where the log file is: beside the
hub (``skerry hub run``).

What the server tells nobody, and so is not in the audit log: interest of a *leaf* in subjects that its user may not hear
(dropped), and what a leaf sends on subjects it may not use (dropped).
A restart of this reader leaves out what was logged meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import structlog

from bus import connect
from bus import log as buslog
from bus.identity import jwt, nodes, tokens
from schemas import identity, subjects

log = structlog.get_logger("bus.hub.refusals")

LOOK_S = 0.5
READ_BYTES_MAX = 1 << 20  # of the log file at one look; what is beyond it is skipped and said: a flood must not cost us more
# The same refusal of the same user is one event a minute, with a count: who is refused again and again fills no disk.
QUIET_S = 60.0
KINDS_MAX = 1024  # refusals remembered between two looks and within QUIET_S; beyond it the oldest are told again
IDENTITY_S_MIN = 2.0  # IDENTITY is read at most this often for keys that nobody knows
SUBJECT_CHARS_MAX = 160

# Logged as:  <address> - cid:51 - "<name>" - "<account key>/<account>/jwt:<user key>" - Publish Violation - Subject "x"
# The name is the client's own choice (quoted by the server, so it has no line's end), a subject has no blank: so the last
# such user before the end of the line is the one that the server wrote.
_LINE = re.compile(
    r'.* - "[A-Z0-9]{56}/[A-Z]+/(?:jwt|nkey):(?P<key>U[A-Z2-7]{55})" - '
    r"(?:(?P<what>Publish|Subscription|Deliver)[A-Za-z ]* Violation - "
    r'(?:[A-Z][a-z]+ "\S*", )?Subject "(?P<subject>[^"\s]*)\S*(?: \S+){0,4}'
    r"|(?P<limit>maximum [a-z ]+ exceeded))"
)

# Reasons of nats-server (server/client.go, ClosedState) that a well-behaved node doesn't cause.
_ENDS = ("Exceeded", "Violation", "Duplicate", "Parse Error", "Parsing", "Slow Consumer")


@dataclass(frozen=True, slots=True)
class Refusal:
    """``what`` is publish, subscribe, login or limit; ``about`` is the subject or the server's words."""

    public_key: str
    what: str
    about: str


def parse_line(line: str) -> Refusal | None:
    """None for a line that is about something else."""
    found = _LINE.fullmatch(line)
    if found is None:
        return None
    if found["limit"]:
        return Refusal(found["key"], "limit", found["limit"])
    what = {"Publish": "publish", "Subscription": "subscribe", "Deliver": "subscribe"}[found["what"]]
    return Refusal(found["key"], what, found["subject"][:SUBJECT_CHARS_MAX])


def parse_login(payload: bytes) -> Refusal | None:
    """``CLIENT.AUTH.ERR``.  The JWT is what the client showed, not proven to be its own: the key is a claim."""
    try:
        event = json.loads(payload)
        key = jwt.claims_of(event["client"]["jwt"])["sub"]
        reason = str(event.get("reason", "refused"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return Refusal(str(key)[:64], "login", reason[:SUBJECT_CHARS_MAX])


def parse_end(payload: bytes) -> Refusal | None:
    """``DISCONNECT``; None for an end that nobody has to answer for."""
    try:
        event = json.loads(payload)
        key, reason = event["client"]["user"], str(event["reason"])
    except (ValueError, KeyError, TypeError):
        return None
    if not isinstance(key, str) or not any(word in reason for word in _ENDS):
        return None
    return Refusal(key[:64], "limit", reason[:SUBJECT_CHARS_MAX])


class Tail:
    """New whole lines of a log file that the server moves away when it is full."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._rest = b""
        self.skipped = 0

    def open_at_end(self) -> None:
        self._open()
        if self._file is not None:
            self._file.seek(0, 2)

    def read(self) -> list[str]:
        """Raises OSError."""
        if self._file is None:
            self._open()
            if self._file is None:
                return []
        data = self._file.read(READ_BYTES_MAX)
        if len(data) == READ_BYTES_MAX:
            here = self._file.tell()
            self.skipped += self._file.seek(0, 2) - here
            self._rest = b""
        if not data and self._moved():
            self.close()
            return self.read()
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line.decode(errors="replace") for line in lines]

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> None:
        self._rest = b""
        with contextlib.suppress(FileNotFoundError):
            self._file = self._path.open("rb")

    def _moved(self) -> bool:
        assert self._file is not None
        try:
            now = self._path.stat()
        except FileNotFoundError:
            return False
        had = os.fstat(self._file.fileno())
        return (now.st_ino, now.st_dev) != (had.st_ino, had.st_dev)


class Refusals:
    """``run`` over a SYS connection and CORE's log, where the hub's log file is."""

    def __init__(self, sys: connect.Connection, store: buslog.Log, log_file: Path) -> None:
        self._sys, self._log = sys, store
        self._tail = Tail(log_file)
        self._told: OrderedDict[Refusal, tuple[float, int]] = OrderedDict()  # when it was told, how often since
        self._new: OrderedDict[Refusal, int] = OrderedDict()
        self._names: dict[str, str] = {}
        self._names_at = float("-inf")
        self.audited = 0

    async def run(self) -> None:
        """For ever."""
        self._tail.open_at_end()
        subscriptions = [
            await self._sys.subscribe("$SYS.SERVER.*.CLIENT.AUTH.ERR", self._login),
            await self._sys.subscribe("$SYS.ACCOUNT.*.DISCONNECT", self._end),
        ]
        try:
            while True:
                await asyncio.sleep(LOOK_S)
                await self._look()
        finally:
            self._tail.close()
            for s in subscriptions:
                await s.unsubscribe()

    async def _login(self, msg: connect.Message) -> None:
        refusal = parse_login(msg.data)
        if refusal is not None:
            self._note(refusal)

    async def _end(self, msg: connect.Message) -> None:
        refusal = parse_end(msg.data)
        if refusal is not None:
            self._note(refusal)

    def _note(self, refusal: Refusal) -> None:
        self._new[refusal] = self._new.get(refusal, 0) + 1
        while len(self._new) > KINDS_MAX:
            self._new.popitem(last=False)

    async def _look(self) -> None:
        skipped = self._tail.skipped
        try:
            for line in self._tail.read():
                refusal = parse_line(line)
                if refusal is not None:
                    self._note(refusal)
        except OSError as e:
            log.warning("refusals.unreadable", reason=str(e))
        if self._tail.skipped != skipped:
            log.warning("refusals.skipped", bytes=self._tail.skipped - skipped)
        now = time.monotonic()
        due: dict[Refusal, int] = {}
        for refusal, count in self._new.items():
            at, since = self._told.get(refusal, (float("-inf"), 0))
            if now - at < QUIET_S:
                self._told[refusal] = (at, since + count)
            else:
                due[refusal] = since + count
        self._new.clear()
        for refusal, (at, since) in list(self._told.items()):
            if now - at >= QUIET_S:
                if since and refusal not in due:
                    due[refusal] = since
                del self._told[refusal]
        for refusal, count in due.items():
            self._told[refusal] = (now, 0)
            await self._tell(refusal, count)
        while len(self._told) > KINDS_MAX:
            self._told.popitem(last=False)

    async def _tell(self, refusal: Refusal, count: int) -> None:
        node = await self._node_of(refusal.public_key)
        name = node or refusal.public_key
        audited = identity.Audited(
            reason=f"{refusal.what}: {refusal.about}", node=node, public_key=refusal.public_key, count=count
        )
        ev = tokens.identity_event(identity.AUDIT_REFUSED, "refused", name, audited.model_dump(), actor="nats-server")
        log.warning("hub.refused", node=node, key=refusal.public_key, what=refusal.what, about=refusal.about, count=count)
        try:
            await self._log.append(subjects.audit("refused", name), ev)
            self.audited += 1
        except buslog.LogError as e:
            log.warning("refusals.not_audited", reason=str(e))
            self._told.pop(refusal, None)
            self._new[refusal] = self._new.get(refusal, 0) + count

    async def _node_of(self, public_key: str) -> str:
        if public_key not in self._names and time.monotonic() - self._names_at > IDENTITY_S_MIN:
            self._names_at = time.monotonic()
            with contextlib.suppress(buslog.LogError):
                self._names = {state.public_key: name for name, state in (await nodes.read_nodes(self._log)).items()}
        return self._names.get(public_key, "")
