"""The end of a CustomResourceDefinition: its objects go first, then its names are free for others that waited for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bus.kube import errors, times
from bus.kube.catalog import CRD_GROUP, CRD_RESOURCE, Resource, of_definition
from bus.kube.decoding import clone
from bus.kube.deletion import Deleted
from bus.kube.errors import StatusError
from bus.kube.kinds import definitions
from bus.kube.storage import Conflict, Object, StorageError
from bus.kube.targets import Target, Write
from schemas.subjects import ObjectKey

if TYPE_CHECKING:
    from bus.kube.registry import Registry

ATTEMPTS_MAX = 8


async def delete(registry: Registry, target: Target, how: Write) -> Deleted:
    """The objects of a definition go with it; while some wait (for a finalizer), the definition waits too."""
    storage = registry.writer(target.resource, "delete")
    for _ in range(ATTEMPTS_MAX):
        stored = registry.stored(target)
        obj = definitions.terminating(clone(stored.object), times.of_micros(registry.now_us()))
        try:
            if obj != stored.object:
                stored = await storage.replace(stored.key, obj, stored.rev, how.origin)
            break
        except Conflict:
            continue
        except StorageError as e:
            raise errors.unavailable(f"the definition can't be marked: {e}") from e
    else:
        raise target.conflict("too many others are changing it; try again")
    shown = registry.present(target.resource, target.version, stored)
    of = of_definition(stored.object)
    if registry.catalog.find(of.group, of.resource) is not None:
        await registry.delete_collection(of.group, of.resource, None, how=how)
    return Deleted(shown, await finish(registry, of, how))


async def finish(registry: Registry, res: Resource, how: Write) -> bool:
    """Remove a deleted definition when nothing of it is left; its names are free then.  True when it is gone."""
    key = ObjectKey(CRD_GROUP, CRD_RESOURCE, "", f"{res.resource}.{res.group}")
    if registry.reader.get(key) is None or not definitions.is_terminating(registry.reader.get(key)):
        return registry.reader.get(key) is None
    if registry.reader.list(res.group, res.resource):
        return False
    crds, ver = registry.resource(CRD_GROUP, CRD_RESOURCE)

    def released(current: Object) -> Object:
        left = [f for f in current["metadata"].get("finalizers", []) if f != definitions.CLEANUP]
        current["metadata"]["finalizers"] = left
        del current["metadata"]["resourceVersion"]
        return current

    try:
        await registry.change(Target(crds, ver, "", key.name), released, how)
    except StatusError as e:
        if e.code != 404:
            raise
    if registry.reader.get(key) is not None:
        return False
    for waiting in registry.reader.list(CRD_GROUP, CRD_RESOURCE):  # for one of its names
        if definitions.refused(waiting.object) and waiting.object["spec"]["group"] == res.group:
            await registry.change(Target(crds, ver, "", waiting.key.name), definitions.again, how)
    return True
