"""The join service: turns a token into a node, renews what expires, and writes down every decision.

Stateless beside the log: several instances share the work (queue group), and of two uses of one token at once the log lets
one win.  A use that is repeated by the same node with the same key is answered again: its first answer may have been lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
from dataclasses import dataclass
from typing import Any

import structlog

from bus import connect, stamp, tasks
from bus import log as buslog
from bus.hub import authority, telemetry
from bus.hub.init import Hub
from bus.identity import accounts, jwt, keys, permissions, tokens, trust
from schemas import codec, event, identity, subjects, times
from schemas.joining import JoinAnswer, JoinRequest, NodeIdentity, RenewRequest

log = structlog.get_logger("cloud.joining")

JWT_S_DEFAULT = 24 * 3600
REQUEST_BYTES_MAX = 16 << 10
LABELS_MAX = 64
FORMER_MAX = 16  # keys of a node that are remembered; each was cut off when it was replaced
CONCURRENT_MAX = 64  # requests served at once; the others wait in the subscription
_UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class _Refused(Exception):
    """What the node hears; the same goes to the audit log."""

    reason: str


@dataclass(frozen=True, slots=True)
class _Current:
    """The last event of an IDENTITY subject."""

    seq: int
    event: event.Event | None


class JoinService:
    """Serves ``join.*`` and ``renew.*`` over a CORE connection.

    ``sys``: a SYS connection, to cut off the old key of a node that joins anew."""

    def __init__(
        self,
        connection: connect.Connection,
        store: buslog.Log,
        hub: Hub,
        *,
        sys: connect.Connection | None = None,
        jwt_s: int = JWT_S_DEFAULT,
    ) -> None:
        self._connection, self._log, self._hub, self._sys = connection, store, hub, sys
        self._jwt_s = jwt_s
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(CONCURRENT_MAX)
        self._subscriptions: list[connect.Subscribed] = []
        self._stopped = asyncio.Event()
        self.accepted = 0
        self.refused = 0

    async def start(self) -> None:
        self._subscriptions = [
            await self._connection.subscribe("join.*", self._on_join, queue="joining"),
            await self._connection.subscribe("renew.*", self._on_renew, queue="joining"),
        ]
        await self._connection.flush()

    async def run(self) -> None:
        """Serves until ``stop``."""
        await self.start()
        await self._stopped.wait()

    async def stop(self) -> None:
        self._stopped.set()
        for s in self._subscriptions:
            await s.unsubscribe()
        self._subscriptions.clear()
        for task in list(self._tasks):
            await tasks.end(task)

    # --- requests

    async def _on_join(self, msg: connect.Message) -> None:
        self._spawn(self._serve(msg, self._join))

    async def _on_renew(self, msg: connect.Message) -> None:
        self._spawn(self._serve(msg, self._renew))

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, msg: connect.Message, handle: Any) -> None:
        async with self._slots:
            try:
                answer = JoinAnswer(status="ok", identity=await handle(msg.subject.partition(".")[2], msg.data))
            except _Refused as e:
                self.refused += 1
                answer = JoinAnswer(status="refused", message=e.reason)
            except (subjects.SubjectError, codec.DecodeError) as e:
                log.error("joining.unreadable", subject=msg.subject, reason=str(e))
                answer = JoinAnswer(status="refused", message="the hub can't read what it knows about this; see its log")
            except buslog.LogError as e:
                # Not refused and not told: the node hears a timeout and asks again.
                log.error("joining.log_failed", subject=msg.subject, reason=str(e))
                return
        if msg.reply and self._connection.connected:
            await self._connection.client.publish(msg.reply, codec.encode(answer))

    async def _join(self, token_token: str, data: bytes) -> NodeIdentity:
        token_id = subjects.unescape(token_token)
        try:
            request = codec.decode_as(JoinRequest, data, REQUEST_BYTES_MAX)
        except codec.DecodeError as e:
            raise await self._refuse(identity.Audited(reason=f"the request can't be read: {e}", token=token_id)) from e
        try:
            joined, cause = await self._admit(token_id, request)
        except _Refused as e:
            raise await self._refuse(
                identity.Audited(reason=e.reason, node=request.node, token=token_id, public_key=request.public_key)
            ) from e
        audited = identity.Audited(node=request.node, token=token_id, public_key=request.public_key)
        await self._audit(identity.AUDIT_JOIN_ACCEPTED, "join", request.node, audited, cause)
        self.accepted += 1
        log.info("joining.accepted", node=request.node, token=token_id)
        told = self._identity(request.node, joined)
        await self._trusts(request.node, joined.public_key, told.ca_generation)
        return told

    async def _admit(self, token_id: str, request: JoinRequest) -> tuple[identity.NodeState, event.Event]:
        """Checks everything, then uses the token, then writes the node.  Raises _Refused."""
        token, state = await self._token(token_id, request)
        self._check_request(request)
        repeated = state.used_by == request.node and state.used_key == request.public_key
        if state.used_by is not None and not repeated:
            raise _Refused("the token was used already: a token is for one node, once")
        if state.expires <= stamp.now_us():
            raise _Refused("the token has expired: ask for a new one")
        if state.node is not None and state.node != request.node:
            raise _Refused(f"the token is for another node than {request.node!r}")
        node = await self._last("IDENTITY", subjects.identity_node(request.node))
        known = _data(identity.NodeState, node.event)
        if known is not None and known.public_key != request.public_key and state.node is None:
            raise _Refused(
                f"node {request.node!r} has joined before with another key: choose another name, "
                f"or replace it with a token made for it (`skerry token create --node {request.node}`)"
            )
        if known is not None and known.public_key == request.public_key and known.revoked:
            raise _Refused(f"the key of node {request.node!r} was revoked: remove the node's folder and join anew")
        if not repeated:
            await self._use(token_id, token, state, request)
        if known is not None and known.public_key == request.public_key:
            assert node.event is not None
            return known, node.event
        joined = identity.NodeState(
            public_key=request.public_key, token=token_id, labels=request.labels, former=_former(known, stamp.now_us())
        )
        ev = tokens.identity_event(
            identity.NODE_JOINED, "nodes", request.node, joined.model_dump(), actor=f"token:{token_id}", cause=token.event
        )
        try:
            await self._log.append(subjects.identity_node(request.node), ev, expect=buslog.Expect(node.seq))
        except buslog.WrongSequence as e:
            raise _Refused(f"node {request.node!r} is being joined by somebody else at this moment: try again") from e
        if known is not None:
            await self._cut_off(request.node, known.public_key)
        return joined, ev

    async def _token(self, token_id: str, request: JoinRequest) -> tuple[_Current, identity.TokenState]:
        token = await self._last("IDENTITY", subjects.identity_token(token_id))
        state = _data(identity.TokenState, token.event)
        # The same words whether the token or its secret is wrong.
        if state is None or request.token != token_id:
            raise _Refused("the token is not known here")
        if not hmac.compare_digest(tokens.secret_hash(request.secret), state.secret_sha256):
            raise _Refused("the token is not known here")
        return token, state

    @staticmethod
    def _check_request(request: JoinRequest) -> None:
        try:
            identity.check_node_name(request.node)
            keys.check_public(request.public_key, "user")
        except ValueError as e:
            raise _Refused(str(e)) from e
        if len(request.labels) > LABELS_MAX:
            raise _Refused(f"at most {LABELS_MAX} labels, got {len(request.labels)}")

    async def _use(self, token_id: str, token: _Current, state: identity.TokenState, request: JoinRequest) -> None:
        used = state.model_copy(update={"used_by": request.node, "used_key": request.public_key})
        ev = tokens.identity_event(
            identity.TOKEN_USED, "tokens", token_id, used.model_dump(), actor=f"node:{request.node}", cause=token.event
        )
        try:
            await self._log.append(subjects.identity_token(token_id), ev, expect=buslog.Expect(token.seq))
        except buslog.WrongSequence as e:
            raise _Refused("the token was used already: a token is for one node, once") from e

    async def _renew(self, node_token: str, data: bytes) -> NodeIdentity:
        """The subject is proof enough of who asks: only this node's JWTs (or late JWT) allow it."""
        node = subjects.unescape(node_token)
        key, generation = "", 0
        try:
            try:
                request = codec.decode_as(RenewRequest, data, REQUEST_BYTES_MAX)
                key, generation = request.public_key, request.ca_generation
            except codec.DecodeError as e:
                raise _Refused(f"the request can't be read: {e}") from e
            state = _data(identity.NodeState, (await self._last("IDENTITY", subjects.identity_node(node))).event)
            if state is None:
                raise _Refused(f"node {node!r} is not known here")
            if state.revoked:
                raise _Refused(f"node {node!r} was revoked: {state.reason or 'no reason given'}")
            if state.public_key != key:
                raise _Refused(f"node {node!r} has joined anew with another key; this one is no longer its")
            door = _data(identity.DoorState, (await self._last("IDENTITY", subjects.identity_door(node))).event)
            if door is not None and door.public_key == key and door.until > stamp.now_us():
                # A JWT that is newer than the revocation would open the door.
                raise _Refused(f"node {node!r} is shut out until {times.rfc3339(door.until)}: {door.reason}")
        except _Refused as e:
            audited = identity.Audited(reason=e.reason, node=node, public_key=key)
            await self._audit(identity.AUDIT_RENEW_REFUSED, "renew", node, audited, None)
            raise
        if generation:
            await self._trusts(node, key, min(generation, authority.state(self._hub).generation))
        return self._identity(node, state)

    async def _trusts(self, node: str, key: str, generation: int) -> None:
        """Written when it is another than before: an operator waits for it (bus/hub/authority.py)."""
        last = await self._last("IDENTITY", subjects.identity_trust(node))
        says = identity.TrustState(public_key=key, generation=generation)
        if _data(identity.TrustState, last.event) != says:
            ev = tokens.identity_event(identity.NODE_TRUSTS, "trust", node, says.model_dump(), actor=f"node:{node}")
            await self._log.append(subjects.identity_trust(node), ev)

    # --- what is signed and written

    def _identity(self, node: str, state: identity.NodeState) -> NodeIdentity:
        hub = self._hub
        now_s = stamp.now_us() // 1_000_000
        expires = now_s + self._jwt_s
        late = {**permissions.late_renewal(node), "issuer_account": hub.accounts.join}
        key, ca, generation = state.public_key, hub.ca_path.read_text(), authority.state(hub).generation
        return NodeIdentity(
            node=node,
            hub=hub.id,
            shards=hub.shards,
            jwt=hub.node_signer().sign(node, key, now_s=now_s, expires_s=expires),
            late_jwt=jwt.sign(key, node, late, hub.key("join-signing"), now_s=now_s),
            expires=expires,
            urls=hub.urls,
            leaf_urls=hub.leaf_urls,
            ca=ca,
            ca_generation=generation,
            ca_proof=trust.sign(hub.key("edge"), hub.id, generation, ca),
        )

    async def _refuse(self, audited: identity.Audited) -> _Refused:
        log.warning("joining.refused", node=audited.node, token=audited.token, reason=audited.reason)
        await self._audit(identity.AUDIT_JOIN_REFUSED, "join", audited.node or _UNKNOWN, audited, None)
        return _Refused(audited.reason)

    async def _audit(self, type_: str, what: str, name: str, audited: identity.Audited, cause: event.Event | None) -> None:
        name = name[: identity.NODE_NAME_MAX]
        ev = tokens.identity_event(type_, what, name, audited.model_dump(), actor="cloud/joining", cause=cause)
        await self._log.append(subjects.audit(what, name), ev)

    async def _last(self, stream: str, subject: str) -> _Current:
        record = await self._log.last_of(stream, subject)
        return _Current(0, None) if record is None else _Current(record.seq, record.event())

    async def _cut_off(self, node: str, public_key: str) -> None:
        if self._sys is None:
            return
        with contextlib.suppress(accounts.PushFailed):  # it can't renew any more, and cloud/revoking.py finds it
            await accounts.revoke(self._hub, self._sys, public_key)
            log.info("joining.replaced", node=node)


def _former(known: identity.NodeState | None, now_us: int) -> dict[str, int]:
    """Keys that are no longer a node's: what cuts them off (cloud/revoking.py) must not miss one."""
    if known is None:
        return {}
    kept_us = accounts.REVOCATION_KEPT_S * times.US_PER_S
    kept = {k: at for k, at in known.former.items() if now_us - at < kept_us}
    return {**dict(list(kept.items())[1 - FORMER_MAX :]), known.public_key: now_us}


def _data(model: Any, ev: event.Event | None) -> Any:
    return None if ev is None or ev.data is None else codec.validate(model, ev.data)


async def revoke_node(
    store: buslog.Log, hub: Hub, sys: connect.Connection, node: str, *, reason: str, actor: str = ""
) -> None:
    """Takes a node's access away, now: its connections end, its key is refused for ever.

    Raises LookupError (no such node), LogError, PushFailed (then it can no longer renew, but its JWT lives on)."""
    record = await store.last_of("IDENTITY", subjects.identity_node(node))
    if record is None:
        raise LookupError(f"node {node!r} has never joined")
    cause = record.event()
    state = codec.validate(identity.NodeState, cause.data or {}).model_copy(update={"revoked": True, "reason": reason})
    ev = tokens.identity_event(identity.NODE_REVOKED, "nodes", node, state.model_dump(), actor=actor, cause=cause)
    await store.append(subjects.identity_node(node), ev, expect=buslog.Expect(record.seq))
    audited = identity.Audited(reason=reason, node=node, public_key=state.public_key)
    done = tokens.identity_event(identity.AUDIT_REVOKED, "revoke", node, audited.model_dump(), actor=actor, cause=ev)
    await store.append(subjects.audit("revoke", node), done)
    await accounts.revoke(hub, sys, state.public_key)
    await telemetry.remove_telemetry_source(store, node)
