"""What every controller here is: which kinds it hears of, which keys a change concerns, and one pure function.

``reconcile(view, key, now_us)`` looks at the world as it is and says what to write next; it is asked again when something
it watches changed, so it needs no memory.  That makes it safe to stop, to run twice, and easy to test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from cloud.core.writes import Write
from schemas.subjects import ObjectKey

if TYPE_CHECKING:
    from cloud.standalone.controllers.census import Census
    from cloud.standalone.controllers.place import Place

Object = dict[str, Any]
Kind = tuple[str, str]  # (group, resource)

NAMESPACES: Kind = ("", "namespaces")
NODES: Kind = ("", "nodes")
PODS: Kind = ("", "pods")
EVENTS: Kind = ("", "events")
SERVICES: Kind = ("", "services")
SERVICEACCOUNTS: Kind = ("", "serviceaccounts")
ENDPOINTS: Kind = ("", "endpoints")
SLICES: Kind = ("discovery.k8s.io", "endpointslices")
DEPLOYMENTS: Kind = ("apps", "deployments")
REPLICASETS: Kind = ("apps", "replicasets")
REPLICATION_CONTROLLERS: Kind = ("", "replicationcontrollers")
DAEMONSETS: Kind = ("apps", "daemonsets")
STATEFULSETS: Kind = ("apps", "statefulsets")
REVISIONS: Kind = ("apps", "controllerrevisions")
JOBS: Kind = ("batch", "jobs")
CRONJOBS: Kind = ("batch", "cronjobs")
BUDGETS: Kind = ("policy", "poddisruptionbudgets")
VOLUMES: Kind = ("", "persistentvolumes")
CLAIMS: Kind = ("", "persistentvolumeclaims")
CLASSES: Kind = ("storage.k8s.io", "storageclasses")
EVERY: Kind = ("*", "*")  # in ``watches``: whatever the API serves


class Seen(Protocol):
    """An object as the API has it.  ``object`` is shared: never changed.  ``event_id`` and ``trace`` name its last event."""

    @property
    def key(self) -> ObjectKey: ...
    @property
    def rev(self) -> int: ...
    @property
    def object(self) -> Object: ...
    @property
    def event_id(self) -> str: ...
    @property
    def trace(self) -> str: ...


class View(Protocol):
    """The world as a controller sees it: never older than its own last write."""

    def get(self, key: ObjectKey) -> Seen | None: ...

    def list(self, kind: Kind, namespace: str | None = None) -> Sequence[Seen]:
        """Sorted by namespace and name."""

    def owned(self, uid: str) -> Sequence[Seen]:
        """Everything that names this uid among its owners."""

    def orphans(self, kind: Kind, namespace: str) -> Sequence[Seen]:
        """Objects of a kind that no controller owns."""

    def labelled(self, kind: Kind, namespace: str, labels: Mapping[str, str]) -> Sequence[Seen]:
        """Objects with all of these labels (at least one).  Only pods are indexed so."""

    def pods_on(self, node: str) -> Sequence[Seen]:
        """Pods bound to a node that may still use it (neither Succeeded nor Failed)."""

    def place(self, node: str) -> Place:
        """A node with what those pods take of it together; raises KeyError for one that there is not."""

    def places(self) -> Sequence[Place]:
        """All nodes so, by name."""

    @property
    def census(self) -> Census:
        """Pods on nodes, counted by what picks them."""

    @property
    def verdicts(self) -> dict[object, str]:
        """Why pods of a shape find no node; emptied when anything happens that could change it."""

    def users(self, namespace: str, claim: str) -> Sequence[Seen]:
        """Pods that mount a claim and are not finished."""

    def ended(self) -> Sequence[Seen]:
        """Pods that are Succeeded or Failed."""

    def unscheduled(self) -> Sequence[Seen]:
        """Pods that are bound to no node."""

    def kinds(self) -> Sequence[Kind]:
        """Everything that is served and can be listed and deleted."""

    def kind_of(self, api_version: str, kind: str) -> tuple[Kind, bool] | None:
        """(group, resource) of an owner reference and whether it is namespaced; None when nobody serves it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Writes in order: after one that fails the rest is dropped and the key is looked at again.
    ``again_us``: look again after this time although nothing changed."""

    writes: list[Write] = field(default_factory=list)
    again_us: int | None = None


@dataclass(frozen=True, slots=True)
class Controller:
    """``concerns(view, seen, old)``: keys to reconcile for a change; ``seen`` is None when the object is gone.
    ``delay_us``: how long after a change its keys are looked at."""

    name: str
    watches: tuple[Kind, ...]
    concerns: Callable[[View, Seen | None, Seen | None], Iterable[ObjectKey]]
    reconcile: Callable[[View, ObjectKey, int], Plan]
    delay_us: int = 0

    @property
    def actor(self) -> str:
        return f"system:controller:{self.name}"


# --- small words that every controller uses --------------------------------------------------------------------------


def meta(obj: Object) -> Object:
    found = obj.get("metadata")
    return found if isinstance(found, dict) else {}


def uid(obj: Object) -> str:
    return str(meta(obj).get("uid") or "")


def labels(obj: Object) -> dict[str, str]:
    return meta(obj).get("labels") or {}


def notes(obj: Object) -> dict[str, str]:
    return meta(obj).get("annotations") or {}


def deleting(obj: Object) -> bool:
    return bool(meta(obj).get("deletionTimestamp"))


def at(obj: Any, *path: str) -> Any:
    """The value at a path of maps, None when a step is missing."""
    for step in path:
        if not isinstance(obj, dict):
            return None
        obj = obj.get(step)
    return obj


def maps(value: object) -> list[Object]:
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def owners(obj: Object) -> list[Object]:
    return maps(meta(obj).get("ownerReferences"))


def controller_of(obj: Object) -> Object | None:
    return next((o for o in owners(obj) if o.get("controller") is True), None)


def owner_reference(owner: Object) -> Object:
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": meta(owner)["name"],
        "uid": uid(owner),
        "controller": True,
        "blockOwnerDeletion": True,
    }


def with_meta(obj: Object, **changed: Any) -> Object:
    """The object with fields of its metadata replaced; None takes one away."""
    new = {**meta(obj), **changed}
    return {**obj, "metadata": {k: v for k, v in new.items() if v is not None}}


def claims(pod: Object) -> list[str]:
    """The persistent volume claims that a pod mounts, by name."""
    found = (at(v, "persistentVolumeClaim", "claimName") for v in maps(at(pod, "spec", "volumes")))
    return [str(name) for name in found if name]


def finished(pod: Object) -> bool:
    return at(pod, "status", "phase") in ("Succeeded", "Failed")


def condition(obj: Object, kind: str) -> Object | None:
    return next((c for c in maps(at(obj, "status", "conditions")) if c.get("type") == kind), None)


def update(seen: Seen, obj: Object, because: Seen | None = None) -> Write:
    return _replace("update", seen, obj, because)


def status(seen: Seen, obj: Object, because: Seen | None = None) -> Write:
    return _replace("status", seen, obj, because)


def _replace(verb: Any, seen: Seen, obj: Object, because: Seen | None) -> Write:
    cause = because or seen
    return Write(verb, seen.key, obj, seen.rev, uid(seen.object), cause.event_id or None, cause.trace or None)


def create(kind: Kind, namespace: str, obj: Object, because: Seen) -> Write:
    key = ObjectKey(*kind, namespace, meta(obj).get("name") or "")
    return Write("create", key, obj, cause=because.event_id or None, trace=because.trace or None)


def delete(seen: Seen, because: Seen | None = None, **how: Any) -> Write:
    cause = because or seen
    return Write("delete", seen.key, None, 0, uid(seen.object), cause.event_id or None, cause.trace or None, **how)
