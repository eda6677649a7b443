"""Who may be a node: decisions about tokens, joins, renewals and revocations, each written down before it counts.

The log decides between two at once: a token is used by an event that expects the one before it.  A use that is repeated by
the same node with the same key is answered again: its first answer may have been lost.  Signing JWTs, serving requests and
telling the servers are others' (joining.py).
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from bus import log as buslog
from bus import stamp
from bus.identity import accounts, keys, tokens
from schemas import codec, event, identity, subjects, times
from schemas.joining import JoinRequest, RenewRequest

REQUEST_BYTES_MAX = 16 << 10
LABELS_MAX = 64
FORMER_MAX = 16  # keys of a node that are remembered; each was cut off when it was replaced
_UNKNOWN = "unknown"

CutOff = Callable[[str, str], Awaitable[None]]  # (node, public key that it has no longer)


@dataclass(frozen=True, slots=True)
class Refused(Exception):
    """What the node hears; the same goes to the audit log."""

    reason: str


@dataclass(frozen=True, slots=True)
class _Current:
    """The last event of an IDENTITY subject."""

    seq: int
    event: event.Event | None


class Admitting:
    """``cut_off`` is told of a key that another took the place of; it may fail, cloud/revoking.py finds what is missing."""

    def __init__(self, store: buslog.Log, cut_off: CutOff, *, stamps: stamp.Stamps = stamp.HOST) -> None:
        self._log, self._cut_off, self._stamps = store, cut_off, stamps

    # --- joining

    async def join(self, token_id: str, data: bytes) -> tuple[JoinRequest, identity.NodeState]:
        """``data``: a JoinRequest as it came.  Raises Refused, and what the log raises."""
        try:
            request = codec.decode_as(JoinRequest, data, REQUEST_BYTES_MAX)
        except codec.DecodeError as e:
            raise await self._refuse(identity.Audited(reason=f"the request can't be read: {e}", token=token_id)) from e
        try:
            joined, cause = await self._admit(token_id, request)
        except Refused as e:
            raise await self._refuse(
                identity.Audited(reason=e.reason, node=request.node, token=token_id, public_key=request.public_key)
            ) from e
        audited = identity.Audited(node=request.node, token=token_id, public_key=request.public_key)
        await self._audit(identity.AUDIT_JOIN_ACCEPTED, "join", request.node, audited, cause)
        return request, joined

    async def _admit(self, token_id: str, request: JoinRequest) -> tuple[identity.NodeState, event.Event]:
        """Checks everything, then uses the token, then writes the node.  Raises Refused."""
        token, state = await self._token(token_id, request)
        self._check_request(request)
        repeated = state.used_by == request.node and state.used_key == request.public_key
        if state.used_by is not None and not repeated:
            raise Refused("the token was used already: a token is for one node, once")
        if state.expires <= self._stamps.now_us():
            raise Refused("the token has expired: ask for a new one")
        if state.node is not None and state.node != request.node:
            raise Refused(f"the token is for another node than {request.node!r}")
        node = await self._last("IDENTITY", subjects.identity_node(request.node))
        known = _data(identity.NodeState, node.event)
        if known is not None and known.public_key != request.public_key and state.node is None:
            raise Refused(
                f"node {request.node!r} has joined before with another key: choose another name, "
                f"or replace it with a token made for it (`skerry token create --node {request.node}`)"
            )
        if known is not None and known.public_key == request.public_key and known.revoked:
            raise Refused(f"the key of node {request.node!r} was revoked: remove the node's folder and join anew")
        if known is not None and request.public_key in known.former:
            raise Refused(f"the key of node {request.node!r} was replaced: remove the node's folder and join anew")
        if not repeated:
            await self._use(token_id, token, state, request)
        if known is not None and known.public_key == request.public_key:
            assert node.event is not None
            return known, node.event
        former = _former(known, self._stamps.now_us())
        joined = identity.NodeState(public_key=request.public_key, token=token_id, labels=request.labels, former=former)
        ev = self._event(identity.NODE_JOINED, "nodes", request.node, joined, f"token:{token_id}", token.event)
        try:
            await self._log.append(subjects.identity_node(request.node), ev, expect=buslog.Expect(node.seq))
        except buslog.WrongSequence as e:
            raise Refused(f"node {request.node!r} is being joined by somebody else at this moment: try again") from e
        if known is not None:
            await self._cut_off(request.node, known.public_key)
        return joined, ev

    async def _token(self, token_id: str, request: JoinRequest) -> tuple[_Current, identity.TokenState]:
        token = await self._last("IDENTITY", subjects.identity_token(token_id))
        state = _data(identity.TokenState, token.event)
        # The same words whether the token or its secret is wrong.
        if state is None or request.token != token_id:
            raise Refused("the token is not known here")
        if not hmac.compare_digest(tokens.secret_hash(request.secret), state.secret_sha256):
            raise Refused("the token is not known here")
        return token, state

    @staticmethod
    def _check_request(request: JoinRequest) -> None:
        try:
            identity.check_node_name(request.node)
            keys.check_public(request.public_key, "user")
        except ValueError as e:
            raise Refused(str(e)) from e
        if len(request.labels) > LABELS_MAX:
            raise Refused(f"at most {LABELS_MAX} labels, got {len(request.labels)}")

    async def _use(self, token_id: str, token: _Current, state: identity.TokenState, request: JoinRequest) -> None:
        used = state.model_copy(update={"used_by": request.node, "used_key": request.public_key})
        ev = self._event(identity.TOKEN_USED, "tokens", token_id, used, f"node:{request.node}", token.event)
        try:
            await self._log.append(subjects.identity_token(token_id), ev, expect=buslog.Expect(token.seq))
        except buslog.WrongSequence as e:
            raise Refused("the token was used already: a token is for one node, once") from e

    # --- renewing

    async def renew(self, node: str, data: bytes) -> tuple[RenewRequest, identity.NodeState]:
        """``data``: a RenewRequest as it came.  The subject is proof enough of who asks: only this node's JWTs (or late JWT)
        allow it.  Raises Refused, and what the log raises."""
        key = ""
        try:
            try:
                request = codec.decode_as(RenewRequest, data, REQUEST_BYTES_MAX)
            except codec.DecodeError as e:
                raise Refused(f"the request can't be read: {e}") from e
            key = request.public_key
            return request, await self._renewed(node, key)
        except Refused as e:
            audited = identity.Audited(reason=e.reason, node=node, public_key=key)
            await self._audit(identity.AUDIT_RENEW_REFUSED, "renew", node, audited, None)
            raise

    async def trusts(self, node: str, key: str, generation: int) -> None:
        """Written when it is another than before: an operator waits for it (bus/hub/authority.py)."""
        last = await self._last("IDENTITY", subjects.identity_trust(node))
        says = identity.TrustState(public_key=key, generation=generation)
        if _data(identity.TrustState, last.event) != says:
            ev = self._event(identity.NODE_TRUSTS, "trust", node, says, f"node:{node}", None)
            await self._log.append(subjects.identity_trust(node), ev)

    async def _renewed(self, node: str, key: str) -> identity.NodeState:
        state: identity.NodeState | None = _data(
            identity.NodeState, (await self._last("IDENTITY", subjects.identity_node(node))).event
        )
        if state is None:
            raise Refused(f"node {node!r} is not known here")
        if state.revoked:
            raise Refused(f"node {node!r} was revoked: {state.reason or 'no reason given'}")
        if state.public_key != key:
            raise Refused(f"node {node!r} has joined anew with another key; this one is no longer its")
        door = _data(identity.DoorState, (await self._last("IDENTITY", subjects.identity_door(node))).event)
        if door is not None and door.public_key == key and door.until > self._stamps.now_us():
            # A JWT that is newer than the revocation would open the door.
            raise Refused(f"node {node!r} is shut out until {times.rfc3339(door.until)}: {door.reason}")
        return state

    # --- revoking

    async def revoke(self, node: str, *, reason: str, actor: str) -> identity.NodeState:
        """Writes down that a node's key is no longer to be let in; who calls tells the servers.  Raises LookupError (no such
        node), and what the log raises."""
        last = await self._last("IDENTITY", subjects.identity_node(node))
        if last.event is None:
            raise LookupError(f"node {node!r} has never joined")
        known = codec.validate(identity.NodeState, last.event.data or {})
        state = known.model_copy(update={"revoked": True, "reason": reason})
        ev = self._event(identity.NODE_REVOKED, "nodes", node, state, actor, last.event)
        await self._log.append(subjects.identity_node(node), ev, expect=buslog.Expect(last.seq))
        audited = identity.Audited(reason=reason, node=node, public_key=state.public_key)
        done = self._event(identity.AUDIT_REVOKED, "revoke", node, audited, actor, ev)
        await self._log.append(subjects.audit("revoke", node), done)
        return state

    # --- writing down

    async def _refuse(self, audited: identity.Audited) -> Refused:
        await self._audit(identity.AUDIT_JOIN_REFUSED, "join", audited.node or _UNKNOWN, audited, None)
        return Refused(audited.reason)

    async def _audit(self, type_: str, what: str, name: str, audited: identity.Audited, cause: event.Event | None) -> None:
        name = name[: identity.NODE_NAME_MAX]
        ev = self._event(type_, what, name, audited, "cloud/joining", cause)
        await self._log.append(subjects.audit(what, name), ev)

    def _event(
        self, type_: str, resource: str, name: str, data: identity.Model, actor: str, cause: event.Event | None
    ) -> event.Event:
        return tokens.identity_event(type_, resource, name, data.model_dump(), actor=actor, cause=cause, stamps=self._stamps)

    async def _last(self, stream: str, subject: str) -> _Current:
        record = await self._log.last_of(stream, subject)
        return _Current(0, None) if record is None else _Current(record.seq, record.event())


def _former(known: identity.NodeState | None, now_us: int) -> dict[str, int]:
    """Keys that are no longer a node's: what cuts them off (cloud/revoking.py) must not miss one."""
    if known is None:
        return {}
    kept_us = accounts.REVOCATION_KEPT_S * times.US_PER_S
    kept = {k: at for k, at in known.former.items() if now_us - at < kept_us}
    return {**dict(list(kept.items())[1 - FORMER_MAX :]), known.public_key: now_us}


def _data(model: Any, ev: event.Event | None) -> Any:
    return None if ev is None or ev.data is None else codec.validate(model, ev.data)
