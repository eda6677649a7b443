"""Resource quotas: nothing is stored that would take a namespace over what it may have.

What an object takes is written into the quota's status before the object is stored, expecting the status that was read.  So
any number of API servers on one log share a quota exactly: of two that take the last place one loses, reads again, and
refuses.  A write that fails after that leaves the quota too full until its controller counts again (reserved.py).
Source: Kubernetes documentation, "Resource Quotas"; kube-apiserver's plugin/pkg/admission/resourcequota (order and words).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bus.kube import errors
from bus.kube.admission import reserved, usage
from bus.kube.admission.base import Plugin
from bus.kube.admission.reserved import Reserved
from bus.kube.admission.usage import Kind, Usage
from bus.kube.errors import StatusError
from bus.kube.kinds.base import at
from bus.kube.storage import Object, Origin, Stored
from bus.kube.targets import Target, Write

if TYPE_CHECKING:
    from bus.kube.registry import Registry

QUOTAS: Kind = ("", "resourcequotas")
ACTOR = "system:admission:quota"
ROUNDS_MAX = 6  # of a registry's own attempts against other servers, with a pause in between
PAUSE_S = 0.05
LOCKS_MAX = 1000
_CHANGED = frozenset({usage.PODS, usage.SERVICES, usage.CLAIMS})  # kinds whose changes may take more


class Quota(Plugin):
    def __init__(self, api: Registry) -> None:
        self._api = api
        self._locks: dict[object, asyncio.Lock] = {}  # requests of this server take their turn instead of racing

    async def admit(self, target: Target, obj: Object, how: Write) -> None:
        await self._check(target, obj, None, how)

    async def admit_update(self, target: Target, new: Object, old: Stored, how: Write) -> None:
        if (target.resource.group, target.resource.resource) in _CHANGED:
            await self._check(target, new, old, how)

    async def _check(self, target: Target, new: Object, old: Stored | None, how: Write) -> None:
        if not target.resource.namespaced:
            return
        quotas = self._api.reader.list(*QUOTAS, target.namespace)
        if not quotas:
            return
        kind = (target.resource.group, target.resource.resource)
        takes = self._takes(kind, new, old)
        concerned = []
        for quota in quotas:
            names = usage.concerned(quota.object, kind, new)
            if not names:
                continue
            if kind == usage.PODS and old is None and (why := usage.unspecified(names, new["spec"])):
                raise self._refusal(target, new, f"failed quota: {quota.key.name}: {why}")
            mine = {n: takes[n] for n in names if n in takes and takes[n].value > 0}
            if mine:
                self._room(target, new, quota.object, mine)  # before anything is written to any of them
                concerned.append((quota, mine))
        if how.dry_run:
            return
        for quota, mine in concerned:
            await self._take(target, new, quota, mine, old.rev if old is not None else 0, how)

    def _takes(self, kind: Kind, new: Object, old: Stored | None) -> Usage:
        now_us = self._api.now_us()
        after = usage.of(kind, new, now_us)
        if old is None:
            return after
        before = usage.of(kind, old.object, now_us)
        return {n: a.minus(before.get(n, usage.NONE)) for n, a in after.items()}

    def _room(self, target: Target, obj: Object, quota: Object, mine: Usage) -> Usage:
        """What is used with ``mine``.  Raises StatusError 403 when there is no room for it."""
        hard, used = usage.amounts(at(quota, "spec", "hard")), self.used(quota)
        after = usage.plus(used, mine)
        over = [n for n in mine if after[n].value > hard[n].value]
        if over:
            name = quota["metadata"]["name"]
            said = f"requested: {usage.text(mine, over)}, used: {usage.text(used, over)}, limited: {usage.text(hard, over)}"
            raise self._refusal(target, obj, f"exceeded quota: {name}, {said}")
        return after

    def used(self, quota: Object) -> Usage:
        """As its status says; what it says nothing of yet is counted here."""
        hard, used = at(quota, "spec", "hard") or {}, usage.amounts(at(quota, "status", "used"))
        unknown = set(hard) - set(used)
        if not unknown:
            return used
        counted = usage.count(quota, unknown, self._list, self._api.now_us())
        return used | {n: counted.get(n, usage.NONE) for n in unknown}

    def _list(self, kind: Kind, namespace: str) -> list[Stored]:
        return self._api.reader.list(*kind, namespace)

    async def _take(self, target: Target, obj: Object, quota: Stored, mine: Usage, before: int, how: Write) -> None:
        res, ver = self._api.resource(*QUOTAS)
        at_quota = Target(res, ver, quota.key.namespace, quota.key.name, "status")
        uid, now_us = obj["metadata"]["uid"], self._api.now_us()
        where = reserved.where((target.resource.group, target.resource.resource), obj["metadata"]["name"])

        def taken(current: Object) -> Object:
            after = self._room(target, obj, current, mine)
            waiting = reserved.unseen(current, self._api.reader.get, now_us)
            if len(waiting) >= reserved.RESERVED_MAX:
                raise errors.too_many(f"quota {quota.key.name} has {len(waiting)} writes under way; try again")
            again = usage.plus(waiting[uid].amounts, mine) if uid in waiting else mine
            waiting[uid] = Reserved(where, before, now_us // 1_000_000 + reserved.WAIT_S, again)
            reserved.write(current, waiting)
            hard = at(current, "spec", "hard") or {}
            current["status"] = {"hard": dict(hard), "used": {n: str(after.get(n, usage.NONE)) for n in hard}}
            return current

        ours = Write(Origin(ACTOR, how.origin.cause, how.origin.trace), manager="kube-apiserver")
        async with self._lock(quota):
            for attempt in range(ROUNDS_MAX):
                try:
                    await self._api.change(at_quota, taken, ours)
                    return
                except StatusError as e:
                    if e.code == 404 and e.details.get("kind") == QUOTAS[1]:
                        return  # the quota went meanwhile
                    if e.code != 409 or attempt == ROUNDS_MAX - 1:
                        raise
                await asyncio.sleep(PAUSE_S * (attempt + 1))

    def _lock(self, quota: Stored) -> asyncio.Lock:
        if len(self._locks) > LOCKS_MAX:
            self._locks = {k: v for k, v in self._locks.items() if v.locked()}
        return self._locks.setdefault(quota.key, asyncio.Lock())

    def _refusal(self, target: Target, obj: Object, why: str) -> StatusError:
        res = target.resource
        return errors.forbidden(res.group, res.resource, obj["metadata"].get("name", ""), why)
