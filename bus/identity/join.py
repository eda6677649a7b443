"""The node's side of joining: from a token to an identity on disk, and keeping it fresh.

The node makes its own key; the seed never leaves it.  In the node's folder, all 0600:

    node.seed       the key, written before anything is asked, so that a repeated join is the same node
    ca.pem          whom to trust; replaced when the hub's authority is (bus/hub/authority.py)
    node.creds      JWT and seed, renewed long before they expire
    direct.creds    the same for a node without a leaf server, which is served by less
    late.creds      may only ask for a new JWT: for a node that was out of reach for longer than its JWT lives
    identity.json   written last: it says that joining is done
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hmac
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import nats.errors
import structlog
from pydantic import ValidationError

from bus import connect
from bus.identity import creds, jwt, keys, permissions, tokens, trust
from schemas import codec, subjects
from schemas.identity import check_node_name
from schemas.joining import JoinAnswer, JoinRequest, NodeIdentity, RenewRequest

log = structlog.get_logger("bus.identity.join")

CONNECT_S_MAX = 30.0
ANSWER_S_MAX = 15.0
RENEW_AT = 2 / 3  # of the JWT's life: a third is left for a hub that is being repaired
RENEW_RETRY_S = 60.0
RENEW_RETRY_S_MAX = 900.0
# A node without a link whose JWT is over can do nothing else: it asks with the late credentials as soon as the hub is there.
LATE_RETRY_S = 2.0
LATE_CONNECT_S_MAX = 8.0  # of one try: in a longer one the kernel repeats its SYN ever more rarely
# ... and one whose clock says that the JWT is still good, too, now and then: a machine without a battery for its clock may
# wake up in the past, and be refused by the hub for hours before it knows why.
UNLINKED_RETRY_S = 300.0
LOOK_S = 2.0
CLOCKS_APART_S = 300  # of two machines with a working NTP
ANSWER_BYTES_MAX = 256 << 10
SPREAD_S = 30.0  # of nodes that are asked together


class JoinError(Exception):
    """Joining or renewing failed; the message says what to do."""


class JoinRefused(JoinError):
    """The hub said no; ``reason`` is its own words."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the hub refused: {reason}")
        self.reason = reason


class HubUnreachable(JoinError):
    """No answer from the hub."""


class HubUntrusted(JoinError):
    """What answers is not the hub that made the token."""


class NotJoined(JoinError):
    """The folder holds no identity."""


def creds_path(directory: Path) -> Path:
    return directory / "node.creds"


def direct_creds_path(directory: Path) -> Path:
    """Of a node without a leaf server; of one that joined before there were such, the same as with one until it renews."""
    path = directory / "direct.creds"
    return path if path.exists() else creds_path(directory)


def late_creds_path(directory: Path) -> Path:
    return directory / "late.creds"


def ca_path(directory: Path) -> Path:
    return directory / "ca.pem"


def public_key(directory: Path) -> str:
    """Raises NotJoined."""
    try:
        return keys.from_seed((directory / "node.seed").read_text(), "user").public
    except (OSError, keys.BadKey) as e:
        raise NotJoined(f"can't read the node's key in {directory}: {e}") from e


def secret_name(directory: Path) -> str:
    """A name that only who has the node's key can tell, the same as long as the key is.  Raises NotJoined."""
    try:
        seed = keys.from_seed((directory / "node.seed").read_text(), "user").seed
    except (OSError, keys.BadKey) as e:
        raise NotJoined(f"can't read the node's key in {directory}: {e}") from e
    return hmac.digest(seed.encode(), b"the name of the node's leaf server", "sha256").hex()[:20]


def load(directory: Path) -> NodeIdentity:
    """The identity that ``join`` left.  Raises NotJoined."""
    try:
        return NodeIdentity.model_validate_json((directory / "identity.json").read_bytes())
    except FileNotFoundError as e:
        raise NotJoined(f"{directory} holds no identity: join with `skerry edge join --token ...`") from e
    except (OSError, ValidationError) as e:
        raise NotJoined(f"the identity in {directory} can't be read ({e}): join again with a token for this node") from e


async def join(token: str, node: str, data_dir: Path, *, labels: Mapping[str, str] | None = None) -> NodeIdentity:
    """Joins as ``node`` and leaves the identity in ``data_dir``.  A node that has joined as ``node`` already stays so.

    Raises tokens.BadToken, ValueError (name), JoinRefused, HubUnreachable, HubUntrusted, JoinError."""
    parsed = tokens.decode(token)
    check_node_name(node)
    with contextlib.suppress(NotJoined):
        known = load(data_dir)
        if known.node == node and trust.share(known.ca, parsed.ca):
            return known
        raise JoinError(
            f"{data_dir} belongs to node {known.node!r} of hub {known.hub}: name another folder or empty this one"
        )
    key = _own_key(data_dir)
    keys.write_private(ca_path(data_dir), parsed.ca)
    request = JoinRequest(token=parsed.id, secret=parsed.secret, node=node, public_key=key.public, labels=dict(labels or {}))
    bootstrap = data_dir / "join.creds"
    creds.Credentials(parsed.jwt, parsed.seed).write(bootstrap)
    try:
        settings = connect.ConnectSettings(
            tuple(parsed.urls),
            f"join {node}",
            credentials=bootstrap,
            ca=ca_path(data_dir),
            inbox=permissions.bootstrap_inbox(parsed.id),
            wait_s=CONNECT_S_MAX,
            refusal_is_final=True,
        )
        identity = await _ask(settings, subjects.join_request(parsed.id), codec.encode(request))
    finally:
        bootstrap.unlink(missing_ok=True)
    if identity.node != node or not trust.share(identity.ca, parsed.ca):
        raise HubUntrusted(f"the answer is for node {identity.node!r}, or from another hub")
    _store(data_dir, identity, key)
    return identity


def _own_key(data_dir: Path) -> keys.Key:
    path = data_dir / "node.seed"
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists():
            return keys.from_seed(path.read_text(), "user")
        key = keys.generate("user")
        keys.write_private(path, key.seed + "\n")
    except (OSError, keys.BadKey) as e:
        raise JoinError(f"can't make the node's key in {data_dir}: {e}") from e
    return key


def _store(data_dir: Path, identity: NodeIdentity, key: keys.Key) -> None:
    try:
        creds.Credentials(identity.jwt, key.seed).write(creds_path(data_dir))
        creds.Credentials(identity.direct_jwt or identity.jwt, key.seed).write(data_dir / "direct.creds")
        creds.Credentials(identity.late_jwt, key.seed).write(late_creds_path(data_dir))
        keys.write_private(ca_path(data_dir), identity.ca)
        keys.write_private(data_dir / "identity.json", identity.model_dump_json(indent=2) + "\n")
    except OSError as e:
        raise JoinError(f"can't store the identity in {data_dir}: {e}; the token can be used again by this node") from e


async def _ask(settings: connect.ConnectSettings, subject: str, payload: bytes) -> NodeIdentity:
    """One question to the join service over a connection of its own."""
    where = ", ".join(settings.urls)
    try:
        connection = await connect.connect(settings)
    except connect.ConnectFailed as e:
        text = str(e).lower()
        if "certificate" in text:
            raise HubUntrusted(f"{where} is not the hub that made this token: {e}") from e
        if "authorization" in text or "authentication" in text:
            raise JoinRefused("the credentials are no longer valid (expired or revoked); ask for a new token") from e
        raise HubUnreachable(f"the hub can't be reached: {e}") from e
    try:
        return _answer((await connection.client.request(subject, payload, timeout=ANSWER_S_MAX)).data)
    except nats.errors.NoRespondersError as e:
        raise HubUnreachable(f"the hub at {where} answers, but its join service does not run") from e
    except (nats.errors.Error, TimeoutError, OSError) as e:
        raise HubUnreachable(f"no answer from the join service at {where}: {type(e).__name__}") from e
    finally:
        await connection.close()


def _answer(data: bytes) -> NodeIdentity:
    try:
        answer = codec.decode_as(JoinAnswer, data, ANSWER_BYTES_MAX)
    except codec.DecodeError as e:
        raise JoinError(f"the join service's answer can't be read: {e}") from e
    if answer.status != "ok" or answer.identity is None:
        raise JoinRefused(answer.message or "no reason given")
    return answer.identity


async def renew(
    data_dir: Path, connection: connect.Connection | None = None, *, wait_s: float | None = None
) -> NodeIdentity:
    """A fresh JWT, asked for over ``connection`` (the node's own) or, without or failing that, directly with the late
    credentials, for which the hub is waited for ``wait_s`` [CONNECT_S_MAX].  The files are replaced; a leaf server reads
    them when it reconnects, but for whom to trust, which it reads when it is told to.  The hub is told when that is new.
    Raises JoinError."""
    known = load(data_dir)
    identity = await _renew(data_dir, known, connection, wait_s)
    if identity.ca_generation != known.ca_generation:
        with contextlib.suppress(JoinError):  # it is told with the next one
            identity = await _renew(data_dir, identity, connection, wait_s)
    return identity


async def _renew(
    data_dir: Path, known: NodeIdentity, connection: connect.Connection | None, wait_s: float | None
) -> NodeIdentity:
    key = _own_key(data_dir)
    subject = subjects.renew_request(known.node)
    payload = codec.encode(RenewRequest(public_key=key.public, ca_generation=known.ca_generation))
    identity: NodeIdentity | None = None
    if connection is not None and connection.connected:
        with contextlib.suppress(nats.errors.Error, TimeoutError, OSError):
            identity = _answer((await connection.client.request(subject, payload, timeout=ANSWER_S_MAX)).data)
    if identity is None:
        settings = connect.ConnectSettings(
            tuple(known.urls),
            f"renew {known.node}",
            credentials=late_creds_path(data_dir),
            ca=ca_path(data_dir),
            inbox=subjects.inbox(known.node),
            wait_s=CONNECT_S_MAX if wait_s is None else wait_s,
            refusal_is_final=True,
        )
        try:
            identity = await _ask(settings, subject, payload)
        except HubUntrusted as e:
            await _recover(data_dir, known, settings, payload, e)
            identity = await _ask(settings, subject, payload)
    if identity.node != known.node or identity.hub != known.hub:
        raise HubUntrusted(f"the answer is for node {identity.node!r} of hub {identity.hub}, not for this one")
    _store(data_dir, identity, key)
    return identity


async def _recover(
    data_dir: Path, known: NodeIdentity, settings: connect.ConnectSettings, payload: bytes, why: HubUntrusted
) -> None:
    """Whom to trust, from whoever answers at the hub's address, if the node's account has signed it since.  The late
    credentials open nothing but this question.  Raises HubUntrusted."""
    proven: NodeIdentity | None = None
    with contextlib.suppress(JoinError):
        asking = dataclasses.replace(settings, ca=None, unverified=True)
        proven = await _ask(asking, subjects.renew_request(known.node), payload)
    if proven is None or not trust.proves(proven, known):
        raise HubUntrusted(
            f"{', '.join(known.urls)} shows a certificate of an authority that this node does not trust, and no proof that "
            f"it is hub {known.hub} (if it is, join again with a token for this node): {why}"
        ) from why
    log.warning("identity.trust_recovered", generation=proven.ca_generation, before=known.ca_generation)
    keys.write_private(ca_path(data_dir), proven.ca)  # nothing else of that answer is believed


class Renewer:
    """Keeps a node's JWT fresh, and whom it trusts, for as long as ``run`` runs.  ``linked``: whether the cloud answers over
    the node's own link; what it asks the hub itself is only asked when it does not.  ``on_trust`` is awaited when the node
    trusts others than before."""

    def __init__(
        self,
        data_dir: Path,
        connection: connect.Connection | None = None,
        *,
        linked: Callable[[], bool] = lambda: True,
        on_trust: Callable[[], Awaitable[None]] | None = None,
        look_s: float = LOOK_S,
        spread_s: float = SPREAD_S,
        unlinked_s: float | None = None,
    ) -> None:
        self._dir, self._connection, self._linked, self._look_s = data_dir, connection, linked, look_s
        self._on_trust, self._spread_s, self._unlinked_s = on_trust, spread_s, unlinked_s
        self._asked = asyncio.Event()
        self._over_at: float | None = None  # by the monotonic clock, of a JWT that came while we ran
        self.last_error = ""

    def now(self) -> None:
        """The cloud wants it done within seconds; not by all nodes at once."""
        self._asked.set()

    async def run(self) -> None:
        failures = 0
        wait_s = self.due_s()
        while True:
            await self._wait(wait_s)
            linked = self._linked()
            try:
                before = load(self._dir).ca_generation
                if linked:
                    got = await renew(self._dir, self._connection)
                else:
                    got = await renew(self._dir, wait_s=LATE_CONNECT_S_MAX)
                if got.ca_generation != before and self._on_trust is not None:
                    await self._on_trust()
            except JoinError as e:
                failures += 1
                if failures == 1:
                    log.warning("identity.renew_failed", reason=str(e))
                self.last_error = str(e)
                wait_s = self._retry_s(failures)
                if isinstance(e, HubUnreachable) and self._over():
                    wait_s = LATE_RETRY_S * random.uniform(0.5, 1.0)
            else:
                if failures or not linked:
                    log.info("identity.renewed", linked=linked)
                failures, self.last_error = 0, ""
                issued, expires = _life(got)
                self._over_at = time.monotonic() + expires - issued
                wait_s = (expires - issued) * RENEW_AT * random.uniform(0.95, 1.0)  # whatever our clock says

    async def _wait(self, wait_s: float) -> None:
        """So long, or until the JWT is over, or the cloud asks, or there was no link for long."""
        now = unlinked = time.monotonic()
        until = now + wait_s
        while now < until:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(self._look_s, until - now)):
                    await self._asked.wait()
            if self._asked.is_set():
                self._asked.clear()
                await asyncio.sleep(random.uniform(0, self._spread_s))
                return
            now = time.monotonic()
            if self._linked():
                unlinked = now
            elif now - unlinked >= (LATE_RETRY_S if self._over() else self._unlinked_s or UNLINKED_RETRY_S):
                return

    def _over(self) -> bool:
        """By this machine's clocks: the wall clock may be wrong, and then a JWT from the future is as good as one that has
        ended; the other one stands still while a machine sleeps."""
        issued, expires = _life(load(self._dir))
        mono = self._over_at is not None and time.monotonic() >= self._over_at
        return mono or not issued - CLOCKS_APART_S <= time.time() < expires

    def due_s(self) -> float:
        """Seconds until the JWT of a node that was just started should be renewed; 0 when it is over."""
        issued, expires = _life(load(self._dir))
        if self._over():
            return 0.0
        due = issued + (expires - issued) * RENEW_AT
        return max(0.0, due - time.time()) * random.uniform(0.95, 1.0)

    @staticmethod
    def _retry_s(failures: int) -> float:
        return float(min(RENEW_RETRY_S_MAX, RENEW_RETRY_S * 2 ** min(failures - 1, 8)) * random.uniform(0.5, 1.0))


def _life(identity: NodeIdentity) -> tuple[int, int]:
    """When its JWT was issued, and when it ends, by the hub's clock."""
    return int(jwt.claims_of(identity.jwt).get("iat", 0)), identity.expires
