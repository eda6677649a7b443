"""What belongs to an owner: what it made, what nobody owns and its selector picks, and never what belongs to others.

Every controller with a selector follows the same rule, or two of them would fight over one pod.
Source: Kubernetes documentation, "Owners and Dependents"; the rule of client-go's ControllerRefManager.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cloud.core.writes import Write
from cloud.standalone.controllers import base, selecting
from cloud.standalone.controllers.base import Kind, Object, Seen, View, at
from schemas.subjects import ObjectKey


def claim(
    view: View, owner: Seen, kind: Kind, writes: list[Write], adopts: Callable[[Object], bool] = lambda _: True
) -> list[Seen]:
    """Objects of a kind that are the owner's.  Adds the writes that take in orphans (those that ``adopts`` wants too) and
    let go of what the selector doesn't pick any more; an owner that is being deleted does neither."""
    selector = selector_of(owner.object)
    leaving = base.deleting(owner.object)
    mine: list[Seen] = []
    for found in view.owned(base.uid(owner.object)):
        ref = base.controller_of(found.object)
        if (found.key.group, found.key.resource) != kind or ref is None or ref.get("uid") != base.uid(owner.object):
            continue
        if selecting.selects(selector, base.labels(found.object)):
            mine.append(found)
        elif not leaving:
            left = [o for o in base.owners(found.object) if o is not ref]
            writes.append(base.update(found, base.with_meta(found.object, ownerReferences=left or None), owner))
    if leaving:
        return mine
    for found in view.orphans(kind, owner.key.namespace):
        picked = selecting.selects(selector, base.labels(found.object))
        if picked and not base.deleting(found.object) and adopts(found.object):
            refs = [*base.owners(found.object), base.owner_reference(owner.object)]
            writes.append(base.update(found, base.with_meta(found.object, ownerReferences=refs), owner))
            mine.append(found)
    return mine


def concerned(view: View, s: Seen, kind: Kind, name: str, *, adopts: bool) -> Iterable[ObjectKey]:
    """Whom a change of something that can be owned concerns: its controller, if that is of this kind (``name`` as owner
    references write it); of an orphan, if ``adopts``, whoever's selector picks it."""
    owner = base.controller_of(s.object)
    if owner is not None:
        if owner.get("kind") == name and str(owner.get("apiVersion")).rpartition("/")[0] == kind[0]:
            yield ObjectKey(*kind, s.key.namespace, str(owner.get("name")))
    elif adopts:
        for candidate in view.list(kind, s.key.namespace):
            if selecting.selects(selector_of(candidate.object), base.labels(s.object)):
                yield candidate.key


def selector_of(owner: Object) -> object:
    """As a label selector, which a replication controller's isn't yet."""
    selector = at(owner, "spec", "selector")
    return {"matchLabels": selector} if owner.get("kind") == "ReplicationController" else selector


def unmoved(seen: Seen | None, old: Seen | None) -> bool:
    """Whether a pod's change means nothing to who counts it: nodes say much more often how containers are than that."""
    return seen is not None and old is not None and _face(seen.object) == _face(old.object)


def _face(pod: Object) -> tuple[object, ...]:
    meta, restarts = base.meta(pod), [c.get("restartCount") for c in base.maps(at(pod, "status", "containerStatuses"))]
    fields = [meta.get(f) for f in ("uid", "labels", "annotations", "ownerReferences", "finalizers", "deletionTimestamp")]
    phase, node = at(pod, "status", "phase"), at(pod, "spec", "nodeName")
    return fields, phase, node, base.condition(pod, "Ready"), restarts


def running(pods: Iterable[Seen]) -> list[Seen]:
    return [p for p in pods if not base.finished(p.object) and not base.deleting(p.object)]


def new_pod(owner: Object, template: Object, **labels: str) -> Object:
    """A pod of a template, for this owner, with labels beside the template's.  Its name is made by the API."""
    meta = base.meta(template)
    own = {f: meta[f] for f in ("labels", "annotations", "finalizers") if meta.get(f)}
    if labels:
        own["labels"] = {**(meta.get("labels") or {}), **labels}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": f"{base.meta(owner)['name']}-",
            **own,
            "ownerReferences": [base.owner_reference(owner)],
        },
        "spec": template.get("spec") or {},
    }
