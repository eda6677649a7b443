"""The tokens of pods on edge nodes: made before the node hears of its pod, kept fresh, and handed over through the log.

A kubelet asks for an hour and again at 80 % of it; a node behind a cut link can't, and KubeEdge's lose theirs after 48
minutes.  So they live for LIFE_S, whose last fifth, which is what a cut always leaves, is a day.  A token is bound to its
pod, so it ends with the pod at the API, however long it was to live.

What is here is the same for a cluster behind the bridge, which is asked for tokens (cloud/bridge/tokens.py), and for the
standalone API, which makes them (cloud/standalone/pod_tokens.py).  They travel in an object of their own beside the pod, in
the slice of its node alone.
Source: Kubernetes documentation, "Managing Service Accounts" (TokenRequest, bound tokens); kubelet's token manager (80 %).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

from bus import stamp
from bus.kube.storage import AlreadyExists, Conflict, Object, Origin, Storage, Stored, Unavailable
from schemas import pod_tokens, times
from schemas.subjects import ObjectKey

LIFE_S = 5 * 86400  # a fifth of it is the day that a node must live through without a link
REFRESH_SHARE = 0.8  # of a token's life, as the kubelet
SPREAD_SHARE = 0.05  # of its life, earlier by chance of its name: tokens of one start aren't all asked for at once
LOOK_S = 60.0
AT_ONCE = 8  # requests in flight of a look; an API server signs some thousands a second
PAUSE_EVERY = 50  # pods of a look, which mostly finds nothing to do and must not hold up the API beside it
YOUNG_US = 120 * times.US_PER_S  # a request has a minute
PODS = ("", "pods")

Entry = dict[str, Any]  # {"audience", "token", "issued", "expires"}, as schemas/pod_tokens.py has it
Issue = Callable[[ObjectKey, Object, pod_tokens.Asked, int], Awaitable[Entry]]  # pod's key, pod, what it asks, now in us


def due(entry: Entry, now_us: int, name: str) -> bool:
    """Whether a token is to be made again.  Pure."""
    issued, expires = times.micros(entry.get("issued")), times.micros(entry.get("expires"))
    if issued is None or expires is None:
        return True
    luck = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=2).digest()) / 65536
    return now_us >= issued + (expires - issued) * (REFRESH_SHARE - SPREAD_SHARE * luck)


class Keeper:
    """``good``: whether a token that is not due still counts where it was made.  ``young_us``: how long tokens may be
    without their pod, where they are written before it."""

    def __init__(
        self,
        storage: Storage,
        issue: Issue,
        actor: str,
        *,
        good: Callable[[str], bool] = lambda token: True,
        young_us: int = 0,
    ) -> None:
        self._storage, self._issue, self._origin, self._good = storage, issue, Origin(actor), good
        self._young_us = young_us
        self.issued = 0

    async def ensure(self, key: ObjectKey, pod: Object) -> None:
        """The tokens that a pod has none or old ones of.  Raises what ``issue`` raises, Conflict, AlreadyExists,
        Unavailable."""
        spec = pod.get("spec") or {}
        wanted = {a.audience: a for a in pod_tokens.asked_by(spec)}
        if not wanted or _over(pod):
            return
        at = pod_tokens.key(key.namespace, key.name)
        held, now_us = self._storage.get(at), stamp.now_us()
        mine = held is not None and uid(held.object) == uid(pod)
        known = {str(t.get("audience")): t for t in held.object.get("tokens") or []} if held is not None and mine else {}
        tokens = {}
        for audience, asked in wanted.items():
            entry = known.get(audience)
            if entry is None or due(entry, now_us, f"{key}/{audience}") or not self._good(str(entry.get("token"))):
                entry = await self._issue(key, pod, asked, now_us)
                self.issued += 1
            tokens[audience] = entry
        if tokens == known:
            return
        made = times.rfc3339(now_us)
        meta = {"name": key.name, "namespace": key.namespace, "uid": uid(pod), "creationTimestamp": made}
        head = {"apiVersion": f"{pod_tokens.GROUP}/v1", "kind": "ServiceAccountTokens", "metadata": meta}
        obj = {**head, "tokens": list(tokens.values())}
        if held is None:
            await self._storage.create(at, obj, self._origin)
        else:
            await self._storage.replace(at, obj, held.rev, self._origin)

    async def look(self, ensure: Callable[[ObjectKey, Object], Awaitable[None]]) -> None:
        """All pods once, by ``ensure``; tokens of pods that are gone go."""
        pods = {(p.key.namespace, p.key.name): p for p in self._storage.list(*PODS)}
        for held in self._storage.list(pod_tokens.GROUP, pod_tokens.RESOURCE):
            pod = pods.get((held.key.namespace, held.key.name))
            if (pod is None or uid(pod.object) != uid(held.object)) and not self._young(held.object):
                await self._drop(held)
        waiting = iter(pods.values())

        async def each() -> None:
            for n, pod in enumerate(waiting):
                if n % PAUSE_EVERY == 0:
                    await asyncio.sleep(0)
                if (pod.object.get("spec") or {}).get("nodeName"):
                    await ensure(pod.key, pod.object)

        async with asyncio.TaskGroup() as tasks:
            for n in range(AT_ONCE):
                tasks.create_task(each(), name=f"pod tokens {n}")

    def _young(self, obj: Object) -> bool:
        made = times.micros(obj["metadata"].get("creationTimestamp"))
        return made is not None and stamp.now_us() < made + self._young_us

    async def _drop(self, held: Stored) -> None:
        try:
            await self._storage.delete(held.key, held.rev, self._origin)
        except (Conflict, Unavailable):
            return  # the next look's


def entry(audience: str, token: str, now_us: int, expires: str) -> Entry:
    return {"audience": audience, "token": token, "issued": times.rfc3339(now_us), "expires": expires}


def uid(obj: Object) -> str:
    return str(obj["metadata"].get("uid") or "")


def _over(pod: Object) -> bool:
    ended = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    return ended or bool(pod["metadata"].get("deletionTimestamp"))


Races = (Conflict, AlreadyExists, Unavailable)  # of several that look after the same tokens: the next look's
