"""The standalone API in virtual time: its real rules (Registry) over the model's CLUSTER stream.

The registry is written with ``await``, but over this storage nothing ever waits, so a call runs to its end at once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from bus import log
from bus.kube import registry as registries
from bus.kube.deletion import DeleteOptions
from bus.kube.errors import StatusError
from bus.kube.storage import AlreadyExists, Change, Conflict, Listing, Object, Origin, Stored
from ops.sim.hub import Hub
from ops.sim.world import World
from schemas import event, subjects
from schemas.subjects import ObjectKey

T = TypeVar("T")


def run_now(coro: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never really waits."""
    try:
        coro.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    coro.close()
    raise AssertionError("this coroutine waits for something that the simulation doesn't have")


class SimStorage:
    """Implements ``Storage``, without watches."""

    def __init__(self, hub: Hub, world: World) -> None:
        self._hub, self._world = hub, world
        self._objects: dict[ObjectKey, Stored] = {}
        self._gone: dict[ObjectKey, int] = {}

    def revision(self) -> int:
        return self._hub.streams["CLUSTER"].seq

    def get(self, key: ObjectKey) -> Stored | None:
        return self._objects.get(key)

    def list(self, group: str, resource: str, namespace: str | None = None) -> Listing:
        found = [s for k, s in self._objects.items() if (k.group, k.resource) == (group, resource)]
        return sorted((s for s in found if namespace in (None, s.key.namespace)), key=lambda s: s.key)

    def list_at(self, group: str, resource: str, namespace: str | None, rev: int) -> Listing:
        return self.list(group, resource, namespace)

    def watch(self, group: str, resource: str, namespace: str | None = None, *, after: int) -> AsyncIterator[Change]:
        raise NotImplementedError("nobody watches in the simulation: the processes follow the stream")

    async def create(self, key: ObjectKey, obj: Object, origin: Origin) -> Stored:
        if key in self._objects:
            raise AlreadyExists(str(key))
        return self._write(key, obj, self._gone.get(key, 0), origin)

    async def replace(self, key: ObjectKey, obj: Object, expect: int, origin: Origin) -> Stored:
        return self._write(key, obj, expect, origin)

    async def delete(self, key: ObjectKey, expect: int, origin: Origin) -> Stored:
        return self._write(key, None, expect, origin)

    def _write(self, key: ObjectKey, obj: Object | None, expect: int, origin: Origin) -> Stored:
        old = self._objects.get(key)
        ident = self._world.new_id()
        ev = event.Event(
            id=ident,
            type=event.OBJECT_DELETED if obj is None else event.OBJECT_APPLIED,
            group=key.group,
            resource=key.resource,
            namespace=key.namespace,
            name=key.name,
            uid=str((obj or (old.object if old else {})).get("metadata", {}).get("uid", "")),
            time=self._world.now_us,
            source="sim/api",
            actor=origin.actor,
            cause=origin.cause,
            trace=origin.trace or ident,
            data=obj,
        )
        try:
            seq = self._hub.append(subjects.cluster(key), ev, log.Expect(expect))
        except log.WrongSequence as e:
            raise Conflict(str(e), old.rev if old else None) from e
        if obj is None:
            assert old is not None
            del self._objects[key]
            self._gone[key] = seq
            return Stored(key, seq, old.object, ev.id, ev.trace)
        self._gone.pop(key, None)
        self._objects[key] = Stored(key, seq, obj, ev.id, ev.trace)
        return self._objects[key]


class Api:
    """What users and processes call."""

    def __init__(self, hub: Hub, world: World) -> None:
        self.world = world
        self.storage = SimStorage(hub, world)
        self.registry = registries.Registry(
            self.storage, clock=lambda: world.now_us, random=lambda n: world.rng.randbytes(n)
        )
        self.create("", "namespaces", {"metadata": {"name": "default"}}, "")

    @property
    def how(self) -> registries.Write:
        return registries.Write(Origin("user"))

    def create(self, group: str, resource: str, obj: Object, namespace: str = "default") -> bool:
        return self._try(self.registry.create(group, resource, namespace, obj, how=self.how))

    def patch(self, group: str, resource: str, name: str, patch: Object) -> bool:
        return self._try(self.registry.patch(group, resource, "default", name, patch, kind="merge", how=self.how))

    def delete(self, group: str, resource: str, name: str, *, grace_s: int | None = None) -> bool:
        options = DeleteOptions(grace_s)
        return self._try(self.registry.delete(group, resource, "default", name, how=self.how, options=options))

    def _try(self, coro: Coroutine[Any, Any, Any]) -> bool:
        """Users do things that are refused; whether this was."""
        try:
            run_now(coro)
        except StatusError as e:
            self.world.note("user", f"refused: {e.message}")
            return False
        return True

    def objects(self, resource: str, group: str = "") -> list[Stored]:
        return list(self.storage.list(group, resource))
