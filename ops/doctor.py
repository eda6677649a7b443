"""What must be true for Skerry to work on this machine, looked at one by one.  Each check says what it saw and what to do.

Checks look, they change nothing.  What is not set up here (no hub, no node) is not checked.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bus import connect, log
from bus.hub import init, room, streams, supervise
from bus.identity import join
from bus.stores import base, lmdb_store
from ops import engine, engine_api
from schemas import node_status, times

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

Level = Literal["ok", "warn", "fail"]

DISK_FREE_MIN = 200 << 20  # below it a database grows into the wall within a day
DISK_FREE_LOW = 2 << 30
CERTIFICATE_LOW = timedelta(days=30)
SKEW_LOW_S, SKEW_MAX_S = 1.0, 60.0  # a story reads oddly above the first; JWTs and certificates fail above the second
JWT_LOW = 1 / 6  # of its life left: it is renewed at a third, so something has kept it from that
CLOCK_SANE = datetime(2026, 1, 1, tzinfo=UTC)
OUTBOX_LOW = 1000


@dataclass(frozen=True, slots=True)
class Check:
    """``do`` is what the reader should do; "" when nothing."""

    name: str
    level: Level
    saw: str
    do: str = ""


def machine(folders: list[Path]) -> Iterator[Check]:
    now = datetime.now(UTC)
    sane = now > CLOCK_SANE
    yield Check(
        "clock", "ok" if sane else "fail", f"{now:%Y-%m-%d %H:%M} UTC", "" if sane else "set the clock (timedatectl, NTP)"
    )
    try:
        yield Check("nats-server", "ok", str(supervise.find_binary()))
    except supervise.ServerError as e:
        yield Check("nats-server", "fail", str(e), "install the locked requirements again")
    for folder in folders:
        yield disk(folder)


def disk(folder: Path) -> Check:
    there = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free
    level: Level = "fail" if free < DISK_FREE_MIN else "warn" if free < DISK_FREE_LOW else "ok"
    do = "" if level == "ok" else "free some space: events are kept, and nothing can be written when it is full"
    return Check(f"disk {folder}", level, f"{free >> 20} MB free", do)


def container_engine() -> Check:
    try:
        host = engine.find()
        if host is None:
            raise engine_api.EngineError("no Docker or Podman engine answers")
        about = engine_api.version(host)
    except engine_api.EngineError as e:
        return Check("engine", "fail", str(e), "start Docker or Podman, or set DOCKER_HOST")
    return Check("engine", "ok", f"{host}: {about.get('Version')} (API {about.get('ApiVersion')})")


# --- hub ------------------------------------------------------------------------------------------------------------


def certificate(name: str, pem: Path) -> Check:
    from cryptography import x509

    try:
        found: Certificate = x509.load_pem_x509_certificate(pem.read_bytes())
    except (OSError, ValueError) as e:
        return Check(name, "fail", f"{pem}: {e}", "restore it from a backup, or run `skerry hub init` again")
    left = found.not_valid_after_utc - datetime.now(UTC)
    ends = f"valid until {found.not_valid_after_utc:%Y-%m-%d}"
    if left < timedelta():
        return Check(name, "fail", ends, "run `skerry hub init` again: it issues what has expired, and restart the hub")
    return Check(
        name,
        "warn" if left < CERTIFICATE_LOW else "ok",
        ends,
        "restart the hub: it issues a new one" if left < CERTIFICATE_LOW else "",
    )


async def hub(folder: Path, wait_s: float) -> AsyncIterator[Check]:
    try:
        found = init.load_hub(folder)
    except init.HubError as e:
        yield Check("hub", "fail", str(e), "see the message")
        return
    for path in sorted((folder / "tls").glob("*.pem")):
        if "BEGIN CERTIFICATE" in path.read_text():
            yield certificate(f"TLS {path.name}", path)
    settings = connect.ConnectSettings(
        urls=tuple(found.urls), name="skerry doctor", credentials=found.core_creds, ca=found.ca_path, wait_s=wait_s
    )
    try:
        connection = await connect.connect(settings)
    except connect.ConnectFailed as e:
        yield Check("hub", "fail", str(e), "start it: skerry hub run (or systemctl start skerry-hub)")
        return
    try:
        yield Check("hub", "ok", f"{found.id} answers at {', '.join(found.urls)}")
        store = log.Log(connection)
        try:
            async for check in _hub_log(store, found):
                yield check
        except log.LogError as e:
            yield Check("log", "fail", str(e), "look into the hub's log folder")
        finally:
            await store.close()
    finally:
        await connection.close()


async def _hub_log(store: log.Log, found: init.Hub) -> AsyncIterator[Check]:
    wrong = await streams.differences(store, shards=found.shards, limits=streams.limits_of(found.replicas))
    count = len(streams.wanted(found.shards))
    if wrong:
        text = "; ".join(f"{name}: {', '.join(what)}" for name, what in wrong.items())
        yield Check("streams", "fail", text[:1000], "restart `skerry hub run`: it makes and changes streams as needed")
    else:
        yield Check("streams", "ok", f"{count} streams, as they should be")
    level_of_room = await room.told(store)
    yield Check(
        "room for the log",
        {"ok": "ok", "tight": "warn", "full": "fail"}[level_of_room],  # type: ignore[arg-type]
        room.WORDS[level_of_room],
        "" if level_of_room == "ok" else "a larger disk, `skerry hub compact`, or delete what else is on it",
    )
    asked = time.time()
    answer = await store.request("STREAM.INFO.CLUSTER")
    took = time.time() - asked
    theirs = times.micros(answer.get("ts"))
    if theirs is not None:
        skew = abs(theirs / 1e6 - asked - took / 2)
        level: Level = "fail" if skew > SKEW_MAX_S else "warn" if skew > SKEW_LOW_S + took else "ok"
        yield Check(
            "clock of the hub", level, f"{skew:.3f} s from ours", "" if level == "ok" else "use NTP on both machines"
        )


# --- node -----------------------------------------------------------------------------------------------------------


def identity(folder: Path) -> Check:
    try:
        found = join.load(folder)
    except join.NotJoined as e:
        return Check("identity", "fail", str(e), "join: skerry edge join TOKEN --node NAME")
    left_s = found.expires - time.time()
    saw = f"{found.node} of hub {found.hub}, credentials valid for {timedelta(seconds=max(0, int(left_s)))}"
    if left_s <= 0:
        return Check("identity", "fail", saw, "they are renewed when the hub can be reached: check the link")
    from bus.identity import jwt

    life_s = found.expires - int(jwt.claims_of(found.jwt).get("iat", 0))
    if left_s < JWT_LOW * life_s:
        return Check("identity", "warn", saw, "they should have been renewed: check the link, and the daemon's log")
    return Check("identity", "ok", saw)


def store(folder: Path) -> Check:
    path = folder / "store"
    if not (path / "data.mdb").exists():
        return Check("store", "warn", f"{path} is not there yet", "it is made when the daemon starts for the first time")
    try:
        opened = lmdb_store.LmdbStore(path, read_only=True)
    except base.StoreError as e:
        return Check("store", "fail", str(e), "restart the daemon: it sets a damaged store aside and syncs again")
    try:
        return Check("store", "ok", f"{opened.count('objects')} objects, {opened.count('outbox')} reports waiting")
    except base.StoreError as e:
        return Check("store", "fail", str(e), "restart the daemon: it sets a damaged store aside and syncs again")
    finally:
        opened.close()


def daemon(said: node_status.DaemonStatus | None) -> Iterator[Check]:
    """``said``: what the daemon answered, None when it did not."""
    if said is None:
        yield Check("daemon", "fail", "does not answer", "start it: systemctl start skerry-edge (or skerry edge run)")
        return
    yield Check("daemon", "ok", f"version {said.version}, process {said.pid}")
    since = times.rfc3339(said.link_since)
    up = said.link == "up"
    yield Check(
        "link", "ok" if up else "fail", f"{said.link} since {since}", "" if up else "can this machine reach the hub's ports?"
    )
    if said.runtime_ready:
        yield Check("runtime", "ok", "the daemon reaches its engine")
    else:
        yield Check("runtime", "fail", said.runtime_reason, "start the engine; the daemon finds it by itself")
    r = said.replica
    if r.trouble:
        yield Check("replica", "fail", r.trouble, "see the message; containers go on meanwhile")
    elif r.refused:
        yield Check(
            "replica", "warn", f"{r.refused} events refused, the last: {r.last_refused}", "somebody writes what is no event"
        )
    else:
        yield Check("replica", "ok" if r.synced else "warn", "in sync" if r.synced else "not in sync (yet)")
    low = said.outbox_pending > OUTBOX_LOW
    yield Check(
        "outbox",
        "warn" if low else "ok",
        f"{said.outbox_pending} reports waiting",
        "they go when the link is up" if low else "",
    )
