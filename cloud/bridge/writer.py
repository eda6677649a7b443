"""A cluster as the cloud's cores write to it: the part of a Registry that they use, with the same errors.

They read CLUSTER and name its sequences as resourceVersions; here a sequence becomes the resourceVersion that the cluster
knows, and the cluster's answer goes back into CLUSTER, with the report as its cause, before the write counts as done.  So
one reads one's own writes, a conflict at the cluster is a conflict here, and the story of a status goes on into the log.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from bus.kube import errors
from bus.kube.decoding import clone
from bus.kube.deletion import Deleted, DeleteOptions
from bus.kube.errors import StatusError
from bus.kube.storage import Expired, Object, Origin, Reader, Stored
from bus.kube.targets import Write
from cloud.bridge import kinds
from cloud.bridge.client import Client, Unreachable
from cloud.bridge.mirror import Mirror
from cloud.standalone.storage import ClusterStorage
from schemas.subjects import ObjectKey

GONE_WAIT_S = 10.0  # for the watch to tell of a deletion; longer, and the delete is asked again (404 then)


class ClusterApi:
    """Implements ``cloud.api.Api``.  Every method raises StatusError."""

    def __init__(
        self, client: Client, storage: ClusterStorage, mirror: Mirror, *, leads: Callable[[], bool] = lambda: True
    ) -> None:
        self._client, self._storage, self._mirror, self._leads = client, storage, mirror, leads
        self.reader: Reader = storage

    async def get(self, group: str, resource: str, namespace: str, name: str) -> Object:
        """As CLUSTER has it."""
        stored = self._storage.get(ObjectKey(group, resource, namespace, name))
        if stored is None:
            raise errors.not_found(group, resource, name)
        return _present(stored)

    async def create(
        self, group: str, resource: str, namespace: str, obj: Any, *, how: Write, name: str = "", subresource: str = ""
    ) -> Object:
        if subresource:
            raise errors.method_not_allowed(group, f"{resource}/{subresource}", "create")  # the cluster has a scheduler
        kind = self._writable(group, resource)
        body = clone(obj)
        body["metadata"].pop("resourceVersion", None)
        answer = await self._client.create(kinds.path(kind, namespace), body, manager=how.manager)
        return await self._observed(kind, answer, how)

    async def update(
        self, group: str, resource: str, namespace: str, name: str, obj: Any, *, how: Write, subresource: str = ""
    ) -> Object:
        kind = self._writable(group, resource)
        body = clone(obj)
        asked = body["metadata"].pop("resourceVersion", "")
        if asked:
            held = self._storage.get(ObjectKey(group, resource, namespace, name))
            if held is None:
                raise errors.not_found(group, resource, name)
            if str(held.rev) != asked:
                raise errors.conflict(group, resource, name)
            body["metadata"]["resourceVersion"] = str(held.source_rev)
        path = kinds.path(kind, namespace)
        answer = await self._client.update(path, name, body, subresource=subresource, manager=how.manager)
        return await self._observed(kind, answer, how)

    async def delete(
        self, group: str, resource: str, namespace: str, name: str, *, how: Write, options: DeleteOptions | None = None
    ) -> Deleted:
        """Done when CLUSTER knows it: the watch tells, in the order of everything else."""
        kind, opts = self._writable(group, resource), options or DeleteOptions()
        key = ObjectKey(group, resource, namespace, name)
        start, before = self._storage.revision(), self._storage.get(key)
        with self._mirror.because(key, how.origin):
            answer = await self._client.delete(kinds.path(kind, namespace), name, _options(opts))
            if not _over(answer, opts):
                return Deleted(await self._observed(kind, answer, how), False)
            if before is None:
                return Deleted({"metadata": {"name": name, "resourceVersion": str(start)}}, True)
            try:
                async with asyncio.timeout(GONE_WAIT_S):
                    seq = await self._gone(before, start)
            except TimeoutError as e:
                raise Unreachable(f"{key} is deleted, but its watch has not told of it") from e
            except Expired as e:
                raise Unreachable(f"{key} is deleted; CLUSTER began anew meanwhile") from e
        return Deleted(_present(replace(before, rev=seq)), True)

    async def _gone(self, before: Stored, start: int) -> int:
        """The sequence of the tombstone, or of what came in its place."""
        key = before.key
        async with contextlib.aclosing(
            self._storage.cache.watch(key.group, key.resource, key.namespace or None, after=start)
        ) as changes:
            async for change in changes:
                now = change.stored
                if now is not None and now.key == key and (change.type == "DELETED" or _uid(now) != _uid(before)):
                    return change.rev
        raise AssertionError("a watch has no end")

    def _writable(self, group: str, resource: str) -> kinds.Kind:
        if not self._leads():
            raise errors.unavailable("another process leads the bridge")
        if (group, resource) not in kinds.KNOWN:
            raise StatusError(404, "NotFound", f"{errors.qualified(group, resource)} is not known to the bridge")
        return group, resource

    async def _observed(self, kind: kinds.Kind, answer: Object, how: Write) -> Object:
        key = kinds.key_of(kind, answer)
        if key is None:
            raise Unreachable(f"the API server answered a write with a {str(answer.get('kind'))[:40]}")
        origin = Origin(how.origin.actor, how.origin.cause, how.origin.trace)
        return _present(await self._mirror.observe(key, answer, origin))


def _present(stored: Stored) -> Object:
    obj: Object = clone(stored.object)
    obj["metadata"]["resourceVersion"] = str(stored.rev)
    return obj


def _uid(stored: Stored) -> str:
    return str(stored.object["metadata"].get("uid", ""))


def _options(opts: DeleteOptions) -> Object:
    preconditions = {k: v for k, v in (("uid", opts.uid), ("resourceVersion", opts.revision)) if v is not None}
    raw = {
        "gracePeriodSeconds": opts.grace_s,
        "propagationPolicy": opts.propagation,
        "preconditions": preconditions or None,
    }
    return {k: v for k, v in raw.items() if v is not None}


def _over(answer: Object, opts: DeleteOptions) -> bool:
    """Whether nothing keeps the object: a Status says so; of an object, that nobody has a say any more."""
    if answer.get("kind") == "Status":
        return True
    meta = answer.get("metadata")
    meta = meta if isinstance(meta, dict) else {}
    grace = meta.get("deletionGracePeriodSeconds") or 0
    return not meta.get("finalizers") and (opts.grace_s == 0 or not (meta.get("deletionTimestamp") and grace))
