"""Garbage collection by owner: what is owned goes when its last owner is gone; before its owner, or not at all, if asked.

It never judges what it can't know: an owner of a kind that nobody serves (yet), or of a namespaced kind named by an object
without namespace, keeps what it owns.  An owner in another namespace is no owner: it is looked for beside what it owns.
A change costs what it concerns (the view finds dependents by their owner's uid), however many objects there are.
Source: Kubernetes documentation, "Garbage Collection" (background, foreground and orphan deletion), "Owners and Dependents".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from cloud.core.writes import Write
from cloud.standalone.controllers import base
from cloud.standalone.controllers.base import EVERY, Controller, Object, Plan, Seen, View
from schemas.subjects import ObjectKey

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
DEPENDENTS_MAX = 500  # dealt with in one go; the rest follows with the next look

Found = Literal["there", "waiting", "gone", "unknown"]


def concerns(view: View, seen: Seen | None, old: Seen | None) -> Iterable[ObjectKey]:
    s = seen or old
    assert s is not None
    if seen is None or base.uid(seen.object) != base.uid((old or seen).object) or _waiting(seen.object):
        gone = old if old is not None else s
        yield from (d.key for d in view.owned(base.uid(gone.object)))
    if seen is not None and (base.owners(seen.object) or _waiting(seen.object)):
        yield seen.key
    for known in (seen, old):  # whoever waits for this one to go, or to let go
        for ref in base.owners(known.object) if known is not None else []:
            owner = _owner(view, known.key.namespace, ref) if known is not None else None
            if owner is not None and _waiting(owner.object):
                yield owner.key


def reconcile(view: View, key: ObjectKey, now_us: int) -> Plan:
    seen = view.get(key)
    if seen is None:
        return Plan()
    if base.deleting(seen.object):
        waits = base.meta(seen.object).get("finalizers") or []
        if ORPHAN in waits:
            return Plan(_let_go(view, seen))
        if FOREGROUND in waits:
            return Plan(_take_along(view, seen))
        return Plan()
    return Plan(_outlived(view, seen))


CONTROLLER = Controller("garbage", (EVERY,), concerns, reconcile)


def _waiting(obj: Object) -> bool:
    return base.deleting(obj) and any(f in (FOREGROUND, ORPHAN) for f in base.meta(obj).get("finalizers") or [])


def _outlived(view: View, seen: Seen) -> list[Write]:
    """An object lives while one of its owners does."""
    refs = base.owners(seen.object)
    found = [(ref, _look(view, seen.key.namespace, ref)) for ref in refs]
    if not refs or all(state in ("there", "unknown") for _, state in found):
        return []
    if any(state in ("there", "unknown") for _, state in found):
        kept = [ref for ref, state in found if state in ("there", "unknown")]
        return [base.update(seen, base.with_meta(seen.object, ownerReferences=kept))]
    if any(state == "waiting" for _, state in found) and view.owned(base.uid(seen.object)):
        return [base.delete(seen, propagation="Foreground")]
    return [base.delete(seen, propagation=_chosen(seen))]


def _chosen(seen: Seen) -> Literal["Background", "Foreground", "Orphan"]:
    """An object can say itself how it wants to go."""
    finalizers = base.meta(seen.object).get("finalizers") or []
    if ORPHAN in finalizers:
        return "Orphan"
    return "Foreground" if FOREGROUND in finalizers else "Background"


def _look(view: View, namespace: str, ref: Object) -> Found:
    served = view.kind_of(str(ref.get("apiVersion")), str(ref.get("kind")))
    if served is None:
        return "unknown"  # nobody serves this kind (yet): not ours to judge
    if served[1] and not namespace:
        return "unknown"  # in which namespace?  Kubernetes never collects these either
    owner = _owner(view, namespace, ref)
    if owner is None:
        return "gone"
    waits = base.meta(owner.object).get("finalizers") or []
    return "waiting" if base.deleting(owner.object) and FOREGROUND in waits else "there"


def _owner(view: View, namespace: str, ref: Object) -> Seen | None:
    served = view.kind_of(str(ref.get("apiVersion")), str(ref.get("kind")))
    if served is None:
        return None
    kind, namespaced = served
    owner = view.get(ObjectKey(*kind, namespace if namespaced else "", str(ref.get("name"))))
    return owner if owner is not None and base.uid(owner.object) == ref.get("uid") else None


def _take_along(view: View, seen: Seen) -> list[Write]:
    """Foreground: what is owned first; when nothing that blocks is left, the owner may go."""
    mine = base.uid(seen.object)
    dependents = view.owned(mine)
    blocking = [
        d for d in dependents if any(o.get("uid") == mine and o.get("blockOwnerDeletion") for o in base.owners(d.object))
    ]
    if not blocking:
        return [_without(seen, FOREGROUND)]
    here = [d for d in dependents if not base.deleting(d.object)]
    return [w for d in here[:DEPENDENTS_MAX] for w in _outlived(view, d)]


def _let_go(view: View, seen: Seen) -> list[Write]:
    """Orphan: what is owned forgets its owner, then the owner may go."""
    mine = base.uid(seen.object)
    writes = []
    dependents = view.owned(mine)
    for d in dependents[:DEPENDENTS_MAX]:
        left = [o for o in base.owners(d.object) if o.get("uid") != mine]
        writes.append(base.update(d, base.with_meta(d.object, ownerReferences=left or None), seen))
    if len(dependents) <= DEPENDENTS_MAX:
        writes.append(_without(seen, ORPHAN))
    return writes


def _without(seen: Seen, finalizer: str) -> Write:
    left = [f for f in base.meta(seen.object).get("finalizers") or [] if f != finalizer]
    return base.update(seen, base.with_meta(seen.object, finalizers=left or None))
