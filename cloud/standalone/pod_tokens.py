"""Tokens of the standalone API's own pods (cloud/pod_tokens.py): made at the moment a pod gets its node, by whichever
process binds it, so that the node has the token before the pod; refreshed by one that leads.

A node whose autonomy somebody has put down (``skerry.io/autonomy``) is expected to be without a link for so long: tokens of
its pods live five times as long, so that the fifth which a cut always leaves is that time.
"""

from __future__ import annotations

import asyncio

import structlog

from bus.kube import times as texts
from bus.kube.admission.accounts import of_pod
from bus.kube.admission.base import Plugin
from bus.kube.auth.account_tokens import LIFE_S_MAX, Issuer
from bus.kube.errors import StatusError, unavailable
from bus.kube.storage import AlreadyExists, Conflict, Object, Storage, StorageError, TooLarge
from bus.kube.targets import Target, Write
from cloud import pod_tokens as keeping
from cloud.standalone.controllers import autonomy, base
from schemas import pod_tokens, times
from schemas.subjects import ObjectKey

logger = structlog.get_logger(__name__)

ACTOR = "system:pod-tokens"
TRIES_MAX = 4  # of one write against the worker or another binder


def life_s(node: Object | None, asked_s: int) -> int:
    """Seconds that a token of a pod on ``node`` shall live.  Pure."""
    said = base.notes(node).get(autonomy.ANNOTATION) if node is not None else None
    if said is None or node is None or autonomy.problem(node):
        return max(keeping.LIFE_S, asked_s)
    alone_us = autonomy.of(node)
    alone_s = LIFE_S_MAX if alone_us is None else alone_us // times.US_PER_S
    return min(LIFE_S_MAX, max(keeping.LIFE_S, asked_s, 5 * alone_s))


class PodTokens(Plugin):
    """Admission of what gets a node, and ``run`` until cancelled for what has one."""

    def __init__(self, storage: Storage, issuer: Issuer) -> None:
        self._storage, self._issuer = storage, issuer
        self.keeper = keeping.Keeper(storage, self._issue, ACTOR, good=issuer.key_counts, young_us=keeping.YOUNG_US)

    async def admit(self, target: Target, obj: Object, how: Write) -> None:
        """A pod that is created on a node."""
        if (target.resource.group, target.resource.resource) != keeping.PODS or how.dry_run:
            return
        key = ObjectKey(*keeping.PODS, target.namespace, obj["metadata"]["name"])
        if obj["spec"].get("nodeName") and self._storage.get(key) is None:
            await self.placed(target, obj, how)

    async def placed(self, target: Target, pod: Object, how: Write) -> None:
        """A pod that is about to get the node it names.  Raises StatusError 503."""
        if how.dry_run:
            return
        key = ObjectKey(*keeping.PODS, target.namespace, pod["metadata"]["name"])
        for _ in range(TRIES_MAX):
            try:
                await self.keeper.ensure(key, pod)
                return
            except (Conflict, AlreadyExists):
                continue
            except StorageError as e:
                raise unavailable(f"the pod's tokens could not be stored: {e}") from e
            except StatusError as e:
                if e.code != 404:
                    raise
                return  # the account went meanwhile: the pod runs without

    async def run(self) -> None:
        while True:
            await self.keeper.look(self._ensure)
            await asyncio.sleep(keeping.LOOK_S)

    async def _ensure(self, key: ObjectKey, pod: Object) -> None:
        try:
            await self.keeper.ensure(key, pod)
        except keeping.Races:
            pass
        except (StatusError, TooLarge) as e:
            if not isinstance(e, StatusError) or e.code != 404:
                logger.warning("pod_tokens.refused", pod=f"{key.namespace}/{key.name}", reason=str(e))

    async def _issue(self, key: ObjectKey, pod: Object, asked: pod_tokens.Asked, now_us: int) -> keeping.Entry:
        account_key = ObjectKey("", "serviceaccounts", key.namespace, of_pod(pod))
        account = self._storage.get(account_key)
        if account is None:
            raise StatusError(404, "NotFound", f'serviceaccounts "{account_key.name}" not found')
        bound = self._issuer.of_pod(pod)
        audiences = [asked.audience] if asked.audience else self._issuer.audiences
        token, ends_s = self._issuer.issue(account.object, audiences, life_s(bound.get("node"), asked.life_s), bound)
        return keeping.entry(asked.audience, token, now_us, texts.of_micros(ends_s * times.US_PER_S))
