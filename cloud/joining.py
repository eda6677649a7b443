"""The join service: turns a token into a node and renews what expires.

Stateless beside the log: several instances share the work (queue group).  What is decided: admitting.py.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import structlog

from bus import connect, stamp, tasks
from bus import log as buslog
from bus.hub import authority, telemetry
from bus.hub.init import Hub
from bus.identity import accounts, jwt, permissions, trust
from cloud.admitting import Admitting, Refused
from schemas import codec, identity, subjects
from schemas.joining import JoinAnswer, NodeIdentity

log = structlog.get_logger("cloud.joining")

JWT_S_DEFAULT = 24 * 3600
CONCURRENT_MAX = 64  # requests served at once; the others wait in the subscription


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
        self._admitting = Admitting(store, self._cut_off)
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
            except Refused as e:
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
            request, joined = await self._admitting.join(token_id, data)
        except Refused as e:
            log.warning("joining.refused", token=token_id, reason=e.reason)
            raise
        self.accepted += 1
        log.info("joining.accepted", node=request.node, token=token_id)
        told = self._identity(request.node, joined)
        await self._admitting.trusts(request.node, joined.public_key, told.ca_generation)
        return told

    async def _renew(self, node_token: str, data: bytes) -> NodeIdentity:
        node = subjects.unescape(node_token)
        request, state = await self._admitting.renew(node, data)
        if request.ca_generation:
            generation = min(request.ca_generation, authority.state(self._hub).generation)
            await self._admitting.trusts(node, request.public_key, generation)
        return self._identity(node, state)

    # --- what is signed

    def _identity(self, node: str, state: identity.NodeState) -> NodeIdentity:
        hub = self._hub
        now_s = stamp.now_us() // 1_000_000
        expires = now_s + self._jwt_s
        late = {**permissions.late_renewal(node), "issuer_account": hub.accounts.join}
        key, ca, generation = state.public_key, hub.ca_path.read_text(), authority.state(hub).generation
        signer = hub.node_signer()
        return NodeIdentity(
            node=node,
            hub=hub.id,
            shards=hub.shards,
            jwt=signer.sign(node, key, now_s=now_s, expires_s=expires),
            direct_jwt=signer.sign(node, key, now_s=now_s, expires_s=expires, leaf=False),
            late_jwt=jwt.sign(key, node, late, hub.key("join-signing"), now_s=now_s),
            expires=expires,
            urls=hub.urls,
            leaf_urls=hub.leaf_urls,
            ca=ca,
            ca_generation=generation,
            ca_proof=trust.sign(hub.key("edge"), hub.id, generation, ca),
        )

    async def _cut_off(self, node: str, public_key: str) -> None:
        if self._sys is None:
            return
        with contextlib.suppress(accounts.PushFailed):  # it can't renew any more, and cloud/revoking.py finds it
            await accounts.revoke(self._hub, self._sys, public_key)
            log.info("joining.replaced", node=node)


async def revoke_node(
    store: buslog.Log, hub: Hub, sys: connect.Connection, node: str, *, reason: str, actor: str = ""
) -> None:
    """Takes a node's access away, now: its connections end, its key is refused for ever.

    Raises LookupError (no such node), LogError, PushFailed (then it can no longer renew, but its JWT lives on)."""
    state = await Admitting(store, _nobody).revoke(node, reason=reason, actor=actor)
    await accounts.revoke(hub, sys, state.public_key)
    await telemetry.remove_telemetry_source(store, node)


async def _nobody(*_: str) -> None:
    """A revocation takes no key's place."""
