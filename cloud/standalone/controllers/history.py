"""The versions that a pod template had, as ControllerRevisions: what ``kubectl rollout history`` and ``undo`` read.

A revision's data is a strategic merge patch of its owner, so that ``undo`` needs to know nothing of the kind.  A template
that comes back gets its old revision with a new number.
Source: Kubernetes API reference, ControllerRevision; KEP "controller history"; kubectl's history viewer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cloud.core.writes import Write
from cloud.standalone.controllers import base, claims, selecting
from cloud.standalone.controllers.base import REVISIONS, Object, Seen, View, at
from schemas.subjects import ObjectKey

HASH = "controller-revision-hash"
LIMIT = 10  # revisionHistoryLimit's default (API reference)
_NOT_COPIED = ("kubectl.kubernetes.io/last-applied-configuration",)


@dataclass(frozen=True, slots=True)
class History:
    """``writes`` come before anything else is done: while there are some, ``current`` is not to be relied on."""

    current: str  # its hash
    revisions: Sequence[Seen] = ()  # by number
    writes: list[Write] = field(default_factory=list)


def of(view: View, owner: Seen) -> History:
    writes: list[Write] = []
    known = sorted(claims.claim(view, owner, REVISIONS, writes), key=number)
    template = at(owner.object, "spec", "template") or {}
    data = {"spec": {"template": {**template, "$patch": "replace"}}}
    made = _hash(owner)
    same = [r for r in known if r.object.get("data") == data or _name(owner, made) == r.key.name]
    if base.deleting(owner.object) or writes:
        return History(base.labels(same[-1].object).get(HASH, made) if same else made, known, writes)
    top = number(known[-1]) if known else 0
    if not same:
        return History(made, known, [_create(view, owner, data, made, top + 1)])
    current = same[-1]
    noted = {**base.notes(current.object), **_copied(owner.object)}
    new = base.with_meta(current.object, annotations=noted or None)
    if number(current) < top:
        new = {**new, "revision": top + 1}
    if new != current.object:
        writes = [base.update(current, new, owner)]
    return History(base.labels(current.object).get(HASH, made), known, writes)


def forget(owner: Seen, history: History, used: Iterable[str]) -> list[Write]:
    """Deletes the oldest beyond the limit; never the current one, nor those whose hash a pod still has (``used``)."""
    limit = at(owner.object, "spec", "revisionHistoryLimit")
    kept = {history.current, *used}
    idle = [r for r in history.revisions if base.labels(r.object).get(HASH) not in kept and not base.deleting(r.object)]
    extra = len(idle) - (LIMIT if limit is None else int(limit))
    return [base.delete(r, owner) for r in idle[: max(0, extra)]]


def number(revision: Seen) -> int:
    return int(revision.object.get("revision") or 0)


def template_of(revision: Seen) -> Object:
    """The pod template that a revision keeps."""
    found = at(revision.object, "data", "spec", "template") or {}
    return {k: v for k, v in found.items() if k != "$patch"}


def _hash(owner: Seen) -> str:
    collisions = int(at(owner.object, "status", "collisionCount") or 0)
    return selecting.template_hash(at(owner.object, "spec", "template") or {}, collisions)


def _name(owner: Seen, made: str) -> str:
    return f"{owner.key.name}-{made}"


def _copied(owner: Object) -> dict[str, str]:
    return {k: v for k, v in base.notes(owner).items() if k not in _NOT_COPIED}


def _create(view: View, owner: Seen, data: Object, made: str, revision: int) -> Write:
    key = ObjectKey(*REVISIONS, owner.key.namespace, _name(owner, made))
    if view.get(key) is not None:
        # Another template, or another's revision, has this name: the next hash is made with a higher count.
        count = int(at(owner.object, "status", "collisionCount") or 0) + 1
        status = {**(owner.object.get("status") or {}), "collisionCount": count}
        return base.status(owner, {**owner.object, "status": status})
    labels = base.labels(at(owner.object, "spec", "template") or {})
    new: Object = {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": key.name,
            "namespace": key.namespace,
            "labels": {**labels, HASH: made},
            "annotations": _copied(owner.object),
            "ownerReferences": [base.owner_reference(owner.object)],
        },
        "data": data,
        "revision": revision,
    }
    return base.create(REVISIONS, key.namespace, new, owner)
