"""What becomes of a stateful set's claims when it is scaled down or deleted: who owns them decides, and garbage collection
does the rest.  Nobody (Retain): they stay.  The set: they go with it.  The pod whose number is not wanted: with that.

Source: Kubernetes documentation, "StatefulSets" (PersistentVolumeClaim retention).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cloud.core.writes import Write
from cloud.standalone.controllers import base
from cloud.standalone.controllers.base import CLAIMS, Object, Seen, View, at
from schemas.subjects import ObjectKey


def claim_name(template: Object, pod: str) -> str:
    return f"{base.meta(template).get('name')}-{pod}"


def writes(view: View, owner: Seen, pods: Mapping[int, Seen], numbers: range) -> list[Write]:
    """Claims of the pods that there are, owned by whom they should be.  Before pods go: afterwards nobody would know."""
    policy = at(owner.object, "spec", "persistentVolumeClaimRetentionPolicy") or {}
    templates = base.maps(at(owner.object, "spec", "volumeClaimTemplates"))
    out: list[Write] = []
    for n, pod in sorted(pods.items()):
        scaled = n not in numbers and policy.get("whenScaled") == "Delete"
        wanted = pod if scaled else owner if policy.get("whenDeleted") == "Delete" else None
        ours = frozenset([base.uid(owner.object), *(base.uid(p.object) for p in pods.values())])
        for claim in _claims(view, templates, pod):
            had = base.owners(claim.object)
            kept = [o for o in had if o.get("uid") not in ours]
            now = [*kept, _reference(wanted.object)] if wanted is not None else kept
            if [o.get("uid") for o in now] != [o.get("uid") for o in had]:
                out.append(base.update(claim, base.with_meta(claim.object, ownerReferences=now or None), owner))
    return out


def _claims(view: View, templates: list[Object], pod: Seen) -> Iterable[Seen]:
    for template in templates:
        claim = view.get(ObjectKey(*CLAIMS, pod.key.namespace, claim_name(template, pod.key.name)))
        if claim is not None and not base.deleting(claim.object):
            yield claim


def _reference(owner: Object) -> Object:
    """Not as its controller: a claim has none."""
    return {k: v for k, v in base.owner_reference(owner).items() if k in ("apiVersion", "kind", "name", "uid")}
