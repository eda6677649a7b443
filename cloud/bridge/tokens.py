"""Service account tokens for pods on edge nodes: asked of the cluster, kept fresh, and handed to the node through the log.

A kubelet asks for an hour and again at 80 % of it; a node behind a cut link can't, and KubeEdge's lose theirs after 48
minutes.  So more is asked for: LIFE_S, whose last fifth, which is what a cut always leaves, is a day.  The cluster may
give less (``--service-account-max-token-expiration``).  Each token is bound to its pod, so it ends with the pod at the
cluster, however long it was to live.
Source: Kubernetes documentation, "Managing Service Accounts" (TokenRequest, bound tokens); kubelet's token manager (80 %).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any

import structlog

from bus import stamp
from bus.kube.errors import StatusError
from bus.kube.storage import AlreadyExists, Conflict, Object, Origin, Stored, Unavailable
from cloud.bridge import kinds
from cloud.bridge.client import Client, Unreachable
from cloud.bridge.client import Object as Answer
from cloud.standalone.storage import ClusterStorage
from schemas import pod_tokens, times
from schemas.subjects import ObjectKey

logger = structlog.get_logger(__name__)

ACTOR = "system:bridge"
LIFE_S = 5 * 86400  # a fifth of it is the day that a node must live through without a link
REFRESH_SHARE = 0.8  # of a token's life, as the kubelet
SPREAD_SHARE = 0.05  # of its life, earlier by chance of its name: tokens of one start aren't all asked for at once
LOOK_S = 60.0
AT_ONCE = 8  # requests in flight of a look; a cluster's API server signs some thousands a second


def due(entry: dict[str, Any], now_us: int, name: str) -> bool:
    """Whether a token is to be asked for again.  Pure."""
    issued, expires = times.micros(entry.get("issued")), times.micros(entry.get("expires"))
    if issued is None or expires is None:
        return True
    luck = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=2).digest()) / 65536
    return now_us >= issued + (expires - issued) * (REFRESH_SHARE - SPREAD_SHARE * luck)


def request(pod: Object, asked: pod_tokens.Asked) -> Object:
    """The TokenRequest for a pod's token."""
    meta = pod["metadata"]
    bound = {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]}
    audiences = {"audiences": [asked.audience]} if asked.audience else {}
    spec = {**audiences, "expirationSeconds": max(LIFE_S, asked.life_s), "boundObjectRef": bound}
    return {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}


class Tokens:
    """``ensure`` before a pod is told of, ``run`` until cancelled."""

    def __init__(self, client: Client, storage: ClusterStorage, *, leads: Callable[[], bool] = lambda: True) -> None:
        self._client, self._storage, self._leads = client, storage, leads
        self._failing = False
        self.issued = 0

    async def ensure(self, key: ObjectKey, pod: Object) -> None:
        """The tokens that a pod has none or old ones of.  A cluster that gives none is said once: pods run without."""
        try:
            await self._ensure(key, pod)
            self._failing = False
        except StatusError as e:
            if not self._failing:
                self._failing = True
                logger.warning("bridge.token.refused", pod=f"{key.namespace}/{key.name}", reason=f"{e.code} {e.message}")
        except (Conflict, AlreadyExists, Unavailable):
            pass  # another replica's, or the next look's

    async def run(self) -> None:
        while True:
            pods = {(p.key.namespace, p.key.name): p for p in self._storage.list(*kinds.PODS)}
            for held in self._storage.list(pod_tokens.GROUP, pod_tokens.RESOURCE):
                pod = pods.get((held.key.namespace, held.key.name))
                if pod is None or _uid(pod.object) != _uid(held.object):
                    await self._drop(held)
            waiting = iter(pods.values())
            async with asyncio.TaskGroup() as tasks:
                for n in range(AT_ONCE):
                    tasks.create_task(self._each(waiting), name=f"bridge.tokens.{n}")
            await asyncio.sleep(LOOK_S)

    async def _each(self, pods: Any) -> None:
        for pod in pods:
            await self.ensure(pod.key, pod.object)

    async def _drop(self, held: Stored) -> None:
        if self._leads():
            try:
                await self._storage.delete(held.key, held.rev, Origin(ACTOR))
            except (Conflict, Unavailable):
                return  # the next look's

    async def _ensure(self, key: ObjectKey, pod: Object) -> None:
        spec = pod.get("spec") or {}
        wanted = {a.audience: a for a in pod_tokens.asked_by(spec)}
        over = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed") or pod["metadata"].get("deletionTimestamp")
        if not wanted or over or not self._leads():
            return
        at = pod_tokens.key(key.namespace, key.name)
        held, now_us = self._storage.get(at), stamp.now_us()
        mine = held is not None and _uid(held.object) == _uid(pod)
        known = {t["audience"]: t for t in held.object["tokens"]} if held is not None and mine else {}
        tokens = {}
        for audience, asked in wanted.items():
            entry = known.get(audience)
            if entry is None or due(entry, now_us, f"{key}/{audience}"):
                path = kinds.path(("", "serviceaccounts"), key.namespace)
                account = str(spec.get("serviceAccountName") or "default")
                answer = await self._client.create(path, request(pod, asked), name=account, subresource="token")
                entry = _entry(audience, answer, now_us)
                self.issued += 1
            tokens[audience] = entry
        if tokens == known:
            return
        meta = {"name": key.name, "namespace": key.namespace, "uid": _uid(pod)}
        head = {"apiVersion": f"{pod_tokens.GROUP}/v1", "kind": "ServiceAccountTokens", "metadata": meta}
        obj = {**head, "tokens": list(tokens.values())}
        if held is None:
            await self._storage.create(at, obj, Origin(ACTOR))
        else:
            await self._storage.replace(at, obj, held.rev, Origin(ACTOR))


def _entry(audience: str, answer: Answer, now_us: int) -> dict[str, Any]:
    status = answer.get("status")
    status = status if isinstance(status, dict) else {}
    token, expires = status.get("token"), status.get("expirationTimestamp")
    if not isinstance(token, str) or not token or times.micros(expires) is None:
        raise Unreachable("the API server answered a TokenRequest without a token")
    return {"audience": audience, "token": token, "issued": times.rfc3339(now_us), "expires": expires}


def _uid(obj: Object) -> str:
    return str(obj["metadata"].get("uid") or "")
