"""New keys for a hub that runs: those that sign nodes' JWTs, and the users of CORE and SYS.

A signing key is replaced in steps, each of which may be the last one before a crash; beginning again goes on:

    keys/<name>-signing.new.seed    the new key
    keys/scoped.json                that it is bound to the role of a node, when it signs for EDGE
    the servers                     are told to believe both
    keys/rotated.json               until when the old one is believed
    keys/<name>-signing.seed        becomes the new one: whoever signs reads it each time

Nodes notice nothing: their JWTs are believed for the grace, and the next renewal is signed by the new key.  When the grace
is over the servers are told so (cloud/revoking.py, or the next rotation), and what the old key signed opens nothing.
A node that was away for the whole grace has nothing left that is believed, and joins again with a token made for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from bus import connect, stamp
from bus.hub import init, signers
from bus.identity import accounts, creds, keys

GRACE_S_DEFAULT = 30 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Replaced:
    account: str
    old: str
    new: str


async def signing_keys(hub: init.Hub, sys: connect.Connection, *, grace_s: float = GRACE_S_DEFAULT) -> list[Replaced]:
    """Replaces what signs nodes' JWTs and join tokens.  Raises PushFailed, HubError, OSError; then it can be begun again."""
    done = []
    for account in signers.SIGNERS:
        current = hub.dir / "keys" / f"{account}-signing.seed"
        coming = current.with_name(f"{account}-signing.new.seed")
        if not coming.exists():
            keys.write_private(coming, keys.generate("account").seed + "\n")
        old, new = hub.key(f"{account}-signing"), hub.key(f"{account}-signing.new")
        if account == "edge":
            signers.scope(hub.dir, new.public)
        await accounts.change(hub, sys, account, add_signers=[signers.entry(hub.dir, new.public)])
        if old.public != new.public:
            until_s = _now_s() + int(grace_s)
            signers.remember(hub.dir, signers.Rotated(account=account, public=old.public, until_s=until_s))
        coming.replace(current)
        done.append(Replaced(account, old.public, new.public))
    await expire(hub, sys)
    return done


async def expire(hub: init.Hub, sys: connect.Connection) -> bool:
    """Tells the servers which signing keys are no longer believed; whether there were any.  Raises PushFailed, HubError."""
    some = False
    for account in signers.SIGNERS:
        gone = signers.over(hub.dir, account, _now_s()) & set(await accounts.signers(hub, sys, account))
        if gone:
            await accounts.change(hub, sys, account, remove_signers=gone)
            some = True
    return some


async def users(hub: init.Hub, sys: connect.Connection) -> None:
    """New users of CORE and SYS; the old ones are refused from now on.  Who reads the credentials from the hub's folder is
    back within a second; a copy of the folder elsewhere must be copied again.
    Raises PushFailed, ConnectFailed, HubError, OSError."""
    old = {"core": creds.read(hub.core_creds).key.public, "sys": creds.read(hub.sys_creds).key.public}
    init.write_users(hub)
    await accounts.change(hub, sys, "core", add=[old["core"]])
    # As the new one: the old one would not hear the answer.
    fresh = connect.ConnectSettings(tuple(hub.urls), sys.settings.name, credentials=hub.sys_creds, ca=hub.ca_path)
    connection = await connect.connect(fresh)
    try:
        await accounts.change(hub, connection, "sys", add=[old["sys"]])
    finally:
        await connection.close()


def _now_s() -> int:
    return stamp.now_us() // 1_000_000
