"""A new certificate authority for a hub that runs, without touching a node.

    stable      ca.pem has one authority.
    announced   ca.pem has the old and a new one; certificates are still of the old one.  Nodes get both with their next
                credentials, which they are asked to fetch now.
    switched    certificates are of the new one, whose key takes the old key's place; ca.pem has the new and the old one.
    stable      the old one is out of ca.pem.

Each step raises the generation of what is trusted, may be the last one before a crash, and can be taken again:

    tls/next/               the new authority, until it is the one in use
    tls/ca.pem, tls/ca.key  the first certificate is the one that the key belongs to
    tls/ca.json             which step it is; written last

Certificates of a hub lead to the first of ca.pem (``tls.good``), so each is made anew after the switch.  A node that was
away from before the first step until after the last one asks over TLS that proves nothing, and believes what is signed by
its account (bus/identity/trust.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import shutil
import ssl
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

import nats.errors
from pydantic import BaseModel, ConfigDict, ValidationError

from bus import connect, stamp
from bus import log as buslog
from bus.hub import init, tls
from bus.identity import keys, trust
from schemas import codec, identity, reports, subjects

DIAL_S = 10.0
ASK_S = 5.0
SERVERS_ANSWER_S = 2.0  # all servers of a cluster; they are on the same network
SERVED_S_MAX = 30.0

Phase = Literal["stable", "announced", "switched"]


class State(BaseModel):
    """``tls/ca.json``.  ``since_s``: seconds since 1970."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    generation: int = 1
    phase: Phase = "stable"
    since_s: int = 0


@dataclass(frozen=True, slots=True)
class Holders:
    """Nodes by what they said that they trust.  ``lacking``: not yet what they should."""

    nodes: int
    lacking: list[str] = field(default_factory=list)


def state(hub: init.Hub) -> State:
    """Raises HubError."""
    path = hub.dir / "tls" / "ca.json"
    try:
        return State.model_validate_json(path.read_bytes()) if path.exists() else State()
    except (OSError, ValidationError) as e:
        raise init.HubError(f"can't read {path}: {e}") from e


def announce(hub: init.Hub) -> State:
    """The new authority is made and told.  Raises HubError, TlsError, OSError."""
    now = state(hub)
    if now.phase != "stable":
        raise init.HubError(f"a new authority is {now.phase} already")
    folder = hub.dir / "tls"
    coming = folder / "next"
    if not (coming / "ca.pem").exists():
        coming.mkdir(mode=0o700, exist_ok=True)
        tls.make_ca(coming, f"{hub.id} {now.generation + 1}", datetime.datetime.now(datetime.UTC))
    old, new = _first(hub), (coming / "ca.pem").read_text()
    return _told(hub, now, "announced", [old, new])


def switch(hub: init.Hub) -> State:
    """Certificates are of the new authority from now on; who serves with them must read them again (``reload``).
    Raises HubError, TlsError, OSError."""
    now = state(hub)
    if now.phase != "announced":
        raise init.HubError(f"no new authority is announced: it is {now.phase}")
    folder = hub.dir / "tls"
    coming = folder / "next"
    try:
        new, key = (coming / "ca.pem").read_text(), (coming / "ca.key").read_text()
    except OSError as e:
        raise init.HubError(f"the new authority in {coming} can't be read: {e}") from e
    olds = [c for c in trust.certificates(hub.ca_path.read_text()) if not trust.share(c, new)]
    keys.write_private(folder / "ca.key", key)
    _write_bundle(hub, [new, *olds])
    init.render(hub, hub.dir)
    told = _told(hub, now, "switched", [new, *olds])
    shutil.rmtree(coming)
    return told


def drop(hub: init.Hub) -> State:
    """The old authority is trusted no longer by who hears of it.  Raises HubError, OSError."""
    now = state(hub)
    if now.phase != "switched":
        raise init.HubError(f"there is no old authority to give up: it is {now.phase}")
    return _told(hub, now, "stable", [_first(hub)])


def _first(hub: init.Hub) -> str:
    found = trust.certificates(hub.ca_path.read_text())
    if not found:
        raise init.HubError(f"{hub.ca_path} holds no certificate")
    return found[0]


def _write_bundle(hub: init.Hub, bundle: Collection[str]) -> None:
    keys.write_private(hub.ca_path, "".join(f"{c.strip()}\n" for c in bundle))


def _told(hub: init.Hub, now: State, phase: Phase, bundle: Collection[str]) -> State:
    _write_bundle(hub, bundle)
    new = State(generation=now.generation + 1, phase=phase, since_s=stamp.now_us() // 1_000_000)
    keys.write_private(hub.dir / "tls" / "ca.json", new.model_dump_json() + "\n")
    return new


# --- nodes ---------------------------------------------------------------------------------------------------------------


async def holders(store: buslog.Log, generation: int) -> Holders:
    """Which nodes have not said that they trust what is told since that generation.  Raises LogError."""
    keys_: dict[str, str] = {}
    async for name, data in _lasts(store, "identity.nodes.>"):
        state_ = codec.validate(identity.NodeState, data)
        if not state_.revoked:
            keys_[name] = state_.public_key
    has: set[str] = set()
    async for name, data in _lasts(store, "identity.trust.>"):
        trusts = codec.validate(identity.TrustState, data)
        if trusts.generation >= generation and trusts.public_key == keys_.get(name):
            has.add(name)
    return Holders(len(keys_), sorted(set(keys_) - has))


async def _lasts(store: buslog.Log, filter_: str) -> AsyncIterator[tuple[str, dict[str, object]]]:
    async with contextlib.aclosing(store.follow("IDENTITY", [filter_], last_per_subject=True)) as batches:
        async for batch in batches:
            for r in batch.records:
                ev = r.event()
                if ev.data is not None:
                    yield ev.name, ev.data
            if batch.pending == 0:
                return


async def prompt(core: connect.Connection, nodes: Collection[str]) -> None:
    """Asks nodes to fetch their credentials now, and what they should trust with them.  Raises NotConnected."""
    for node in nodes:
        await core.publish(subjects.command(node, "beat"), reports.RENEW)
    await core.flush()


# --- servers -------------------------------------------------------------------------------------------------------------


async def reload(sys: connect.Connection) -> int:
    """Has all servers of the hub that are there read their configuration and certificates again; how many.
    Raises HubError for one that refuses, NotConnected."""
    found: set[str] = set()

    async def take(msg: connect.Message) -> None:
        found.add(str(json.loads(msg.data)["server"]["id"]))

    inbox = sys.client.new_inbox()
    answers = await sys.subscribe(inbox, take)
    try:
        await sys.publish("$SYS.REQ.SERVER.PING", b"", reply=inbox)
        await asyncio.sleep(SERVERS_ANSWER_S)
    finally:
        await answers.unsubscribe()
    for server in found:
        try:
            told = json.loads((await sys.request(f"$SYS.REQ.SERVER.{server}.RELOAD", b"", timeout_s=ASK_S)).data)
        except (nats.errors.Error, TimeoutError) as e:
            raise init.HubError(f"server {server} does not say whether it has read its certificates again: {e!r}") from e
        if told.get("error"):
            raise init.HubError(f"server {server} can't read its configuration again: {told['error']}")
    return len(found)


async def served(hub: init.Hub) -> list[str]:
    """Addresses of servers that show a certificate of another authority than the first of ca.pem, or none."""
    context = ssl.create_default_context(cadata=_first(hub))
    loop = asyncio.get_running_loop()
    until = loop.time() + SERVED_S_MAX
    left = list(hub.urls)
    while left:
        left = [url for url in left if not await _shows(url, context)]
        if loop.time() > until:
            break
        await asyncio.sleep(0.2 if left else 0)
    return left


async def _shows(url: str, context: ssl.SSLContext) -> bool:
    at = urlsplit(url)
    try:
        async with asyncio.timeout(DIAL_S):
            reader, writer = await asyncio.open_connection(at.hostname, at.port)
            try:
                await reader.readline()  # NATS servers greet in the clear
                await writer.start_tls(context, server_hostname=at.hostname)
            finally:
                writer.transport.abort()
    except (OSError, ssl.SSLError, TimeoutError, ValueError):
        return False
    return True
