"""What an API needs beside requests: a first content, and namespaces that empty themselves."""

from __future__ import annotations

from typing import Any

from bus.kube.catalog import CRD_GROUP, CRD_RESOURCE, shipped_definitions
from bus.kube.decoding import clone
from bus.kube.errors import StatusError
from bus.kube.kinds.base import at
from bus.kube.kinds.policies import system_classes
from bus.kube.registry import Registry
from bus.kube.storage import Origin
from bus.kube.targets import Write
from schemas.subjects import ObjectKey

SYSTEM_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")


async def bootstrap(registry: Registry, origin: Origin) -> None:
    """What a new log needs before anybody can work: the system namespaces with their accounts, priority classes of
    the system, KubeEdge's definitions.

    Can be repeated."""
    wanted: list[tuple[str, str, str, Any]] = []
    for name in SYSTEM_NAMESPACES:
        wanted.append(("", "namespaces", "", {"metadata": {"name": name}}))
        wanted.append(("", "serviceaccounts", name, {"metadata": {"name": "default"}}))
    wanted += [("scheduling.k8s.io", "priorityclasses", "", c) for c in system_classes()]
    wanted += [(CRD_GROUP, CRD_RESOURCE, "", d) for d in shipped_definitions()]
    for group, resource, space, obj in wanted:
        if registry.reader.get(ObjectKey(group, resource, space, obj["metadata"]["name"])) is None:
            try:
                await registry.create(group, resource, space, clone(obj), how=Write(origin))
            except StatusError as e:
                # Another server was faster; or somebody is just deleting a system namespace, which is theirs to do.
                if e.reason != "AlreadyExists" and not (space and e.code in (403, 404)):
                    raise


async def empty_namespace(registry: Registry, name: str, *, how: Write) -> bool:
    """One step of a namespace controller: delete everything in a terminating namespace; True when it is gone.

    Call it again when something that stayed (a pod with grace, a finalizer) has gone."""
    space = registry.reader.get(ObjectKey("", "namespaces", "", name))
    if space is None:
        return True
    if not space.object["metadata"].get("deletionTimestamp"):
        return False
    left = 0
    for res in registry.catalog.all():
        if res.namespaced and res.stored:
            await registry.delete_collection(res.group, res.resource, name, how=how)
            left += len(registry.reader.list(*res.place, name))
    if left:
        return False
    body = await registry.get("", "namespaces", "", name)
    body["spec"] = {"finalizers": [f for f in at(body, "spec", "finalizers") or [] if f != "kubernetes"]}
    del body["metadata"]["resourceVersion"]
    await registry.update("", "namespaces", "", name, body, how=how, subresource="finalize")
    return registry.reader.get(space.key) is None
