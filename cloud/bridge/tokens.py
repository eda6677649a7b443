"""Service account tokens of a cluster's pods on edge nodes: asked of the cluster by TokenRequest (cloud/pod_tokens.py).

The cluster may give a shorter life than is asked (``--service-account-max-token-expiration``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from bus.kube.errors import StatusError
from bus.kube.storage import Object
from cloud import pod_tokens as keeping
from cloud.bridge import kinds
from cloud.bridge.client import Client, Unreachable
from cloud.standalone.storage import ClusterStorage
from schemas import pod_tokens, times
from schemas.subjects import ObjectKey

logger = structlog.get_logger(__name__)

ACTOR = "system:bridge"
LIFE_S = keeping.LIFE_S


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
        self._client, self._leads = client, leads
        self._keeper = keeping.Keeper(storage, self._ask, ACTOR)
        self._failing = False

    async def ensure(self, key: ObjectKey, pod: Object) -> None:
        """The tokens that a pod has none or old ones of.  A cluster that gives none is said once: pods run without."""
        if not self._leads():
            return
        try:
            await self._keeper.ensure(key, pod)
            self._failing = False
        except StatusError as e:
            if not self._failing:
                self._failing = True
                logger.warning("bridge.token.refused", pod=f"{key.namespace}/{key.name}", reason=f"{e.code} {e.message}")
        except keeping.Races:
            pass  # another replica's, or the next look's

    async def run(self) -> None:
        while True:
            if self._leads():
                await self._keeper.look(self.ensure)
            await asyncio.sleep(keeping.LOOK_S)

    async def _ask(self, key: ObjectKey, pod: Object, asked: pod_tokens.Asked, now_us: int) -> keeping.Entry:
        path = kinds.path(("", "serviceaccounts"), key.namespace)
        account = str((pod.get("spec") or {}).get("serviceAccountName") or "default")
        answer = await self._client.create(path, request(pod, asked), name=account, subresource="token")
        status = answer.get("status")
        status = status if isinstance(status, dict) else {}
        token, expires = status.get("token"), status.get("expirationTimestamp")
        if not isinstance(token, str) or not token or not isinstance(expires, str) or times.micros(expires) is None:
            raise Unreachable("the API server answered a TokenRequest without a token")
        return keeping.entry(asked.audience, token, now_us, expires)
