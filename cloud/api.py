"""Does the writes that the cores ask for, by the API's own rules, and sorts the answers by what a core does about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from bus.kube import registry as registries
from bus.kube.deletion import Deleted, DeleteOptions
from bus.kube.errors import StatusError
from bus.kube.storage import Object, Origin, Reader
from cloud.core.writes import Write

RETRY_CODES = frozenset({429, 500, 503, 504, 507})


class Api(Protocol):
    """The part of a Registry that the writes need: ours is one, a cluster behind the bridge is another.  Revisions in what
    comes back are the reader's; each raises StatusError."""

    reader: Reader

    async def get(self, group: str, resource: str, namespace: str, name: str) -> Object: ...

    async def create(
        self,
        group: str,
        resource: str,
        namespace: str,
        obj: Any,
        *,
        how: registries.Write,
        name: str = "",
        subresource: str = "",
    ) -> Object: ...

    async def update(
        self,
        group: str,
        resource: str,
        namespace: str,
        name: str,
        obj: Any,
        *,
        how: registries.Write,
        subresource: str = "",
    ) -> Object: ...

    async def delete(
        self,
        group: str,
        resource: str,
        namespace: str,
        name: str,
        *,
        how: registries.Write,
        options: DeleteOptions | None = None,
    ) -> Deleted: ...


@dataclass(frozen=True, slots=True)
class Done:
    """``object`` as it is now, with its resourceVersion; ``gone``: that is its last state."""

    rev: int
    object: dict[str, Any]
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Stale:
    """The object is not as the write supposed: there already, changed, or gone."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unreachable:
    """No answer, a busy server, a quota that is full now: worth another try.  ``denied``: what admission said."""

    reason: str
    denied: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """Never as it is.  ``denied``: what admission or validation said."""

    reason: str
    denied: str = ""


Outcome = Done | Stale | Unreachable | Refused


async def execute(registry: Api, w: Write, actor: str) -> Outcome:
    how = registries.Write(Origin(actor, w.cause, w.trace), manager=actor)
    k = w.key
    try:
        match w.verb:
            case "create":
                obj = await registry.create(k.group, k.resource, k.namespace, w.object, how=how)
            case "bind":
                args = (k.group, k.resource, k.namespace, w.object)
                await registry.create(*args, how=how, name=k.name, subresource="binding")
                obj = await registry.get(k.group, k.resource, k.namespace, k.name)
            case "delete":
                options = DeleteOptions(w.grace_s, w.propagation, w.uid or None)
                deleted = await registry.delete(k.group, k.resource, k.namespace, k.name, how=how, options=options)
                return Done(_rev(deleted.object), deleted.object, deleted.gone)
            case "update" | "status" | "finalize":
                obj = await registry.update(
                    k.group,
                    k.resource,
                    k.namespace,
                    k.name,
                    _at_revision(w),
                    how=how,
                    subresource="" if w.verb == "update" else w.verb,
                )
    except StatusError as e:
        return _sorted(w, e)
    return Done(_rev(obj), obj)


def _at_revision(w: Write) -> dict[str, Any]:
    assert w.object is not None
    meta = {k: v for k, v in w.object["metadata"].items() if k != "resourceVersion"}
    return {**w.object, "metadata": meta | ({"resourceVersion": str(w.rev)} if w.rev else {})}


def _rev(obj: dict[str, Any]) -> int:
    return int(obj["metadata"]["resourceVersion"])


def _sorted(w: Write, e: StatusError) -> Outcome:
    why = f"{w.verb} {w.key}: {e.code} {e.reason}: {e.message}"
    if e.code == 409 or (e.code == 404 and w.verb != "create"):
        return Stale(why)
    # A quota that is full now has room when something goes: that is worth another try for ever.
    full = e.code == 403 and "exceeded quota: " in e.message
    if e.code in RETRY_CODES:
        return Unreachable(why)
    return Unreachable(why, e.message) if full else Refused(why, e.message if e.code in (403, 422) else "")
