"""Persistent volumes and their claims: brings the two together, makes local ones, and lets go of them in the right order.

A claim whose class waits for its first pod is bound when the scheduler has chosen a node (its annotation), or when a pod
that uses it names its node by itself.  What is used by a pod doesn't go, nor a volume that is bound, nor one whose
folder its node still has.
Source: Kubernetes documentation, "Persistent Volumes" (lifecycle, reclaiming, storage object in use protection), "Storage
Classes"; the events and words are kube-controller-manager's.
"""

from __future__ import annotations

from collections.abc import Iterable

from cloud.core.writes import Write
from cloud.standalone.controllers import base, binding, events
from cloud.standalone.controllers.base import (
    CLAIMS,
    CLASSES,
    NODES,
    PODS,
    VOLUMES,
    Controller,
    Object,
    Plan,
    Seen,
    View,
    at,
)
from schemas import local_volumes
from schemas.subjects import ObjectKey

NAME = "persistentvolume-controller"
VOLUME_GUARD, CLAIM_GUARD = "kubernetes.io/pv-protection", "kubernetes.io/pvc-protection"


def concerns(view: View, seen: Seen | None, old: Seen | None) -> Iterable[ObjectKey]:
    s = seen or old
    assert s is not None
    match (s.key.group, s.key.resource):
        case ("", "persistentvolumeclaims"):
            yield s.key
            for known in (seen, old):
                if known is not None and (name := at(known.object, "spec", "volumeName")):
                    yield ObjectKey(*VOLUMES, "", str(name))
        case ("", "persistentvolumes"):
            yield s.key
            ref = at(s.object, "spec", "claimRef")
            if isinstance(ref, dict):
                yield ObjectKey(*CLAIMS, str(ref.get("namespace")), str(ref.get("name")))
            elif seen is not None:
                yield from (c.key for c in _pending(view, binding.class_of(seen.object)))
        case ("storage.k8s.io", "storageclasses"):
            yield from (c.key for c in _pending(view, s.key.name))
        case ("", "pods"):
            yield from _of_pod(view, seen, old)
        case ("", "nodes"):
            if seen is None or old is None or _folders(seen.object) != _folders(old.object):
                yield from (v.key for v in view.list(VOLUMES) if base.deleting(v.object))


def _pending(view: View, of_class: str) -> Iterable[Seen]:
    return (
        c for c in view.list(CLAIMS) if not at(c.object, "spec", "volumeName") and binding.class_of(c.object) == of_class
    )


def _of_pod(view: View, seen: Seen | None, old: Seen | None) -> Iterable[ObjectKey]:
    """A pod that came to a node, or doesn't need its claims any more."""
    before, now = (_use(p.object) if p is not None else None for p in (old, seen))
    if before == now:
        return
    for pod in (seen, old):
        if pod is not None:
            yield from (ObjectKey(*CLAIMS, pod.key.namespace, name) for name in base.claims(pod.object))


def _use(pod: Object) -> object:
    return base.uid(pod), at(pod, "spec", "nodeName"), base.finished(pod)


def _folders(node: Object) -> object:
    return at(node, "status", "volumesInUse") or []


def reconcile(view: View, key: ObjectKey, now_us: int) -> Plan:
    found = view.get(key)
    if found is None:
        return Plan()
    return _claim(view, found, now_us) if key.resource == CLAIMS[1] else Plan(_volume(view, found, now_us))


CONTROLLER = Controller("persistentvolume-binder", (CLAIMS, VOLUMES, CLASSES, PODS, NODES), concerns, reconcile)


# --- claims ----------------------------------------------------------------------------------------------------------


def _claim(view: View, claim: Seen, now_us: int) -> Plan:
    if base.deleting(claim.object):
        used = any(True for _ in view.users(claim.key.namespace, claim.key.name))
        return Plan([] if used else _without(claim, CLAIM_GUARD))
    if at(claim.object, "spec", "volumeName"):
        return Plan(_named(view, claim, now_us))
    return Plan(_unbound(view, claim, now_us))


def _named(view: View, claim: Seen, now_us: int) -> list[Write]:
    """It names a volume: by our hand, or by that of who made it."""
    name = str(claim.object["spec"]["volumeName"])
    volume = view.get(ObjectKey(*VOLUMES, "", name))
    if volume is None:
        if binding.COMPLETED not in base.notes(claim.object):
            return []  # it may still come
        told = "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
        return [*_status(claim, {"phase": "Lost"}), *events.tell(view, claim, "ClaimLost", told, now_us, NAME)]
    if at(volume.object, "spec", "claimRef") and not binding.is_for(volume.object, claim.object):
        told = f'volume "{name}" already bound to a different claim.'
        return events.tell(view, claim, "FailedBinding", told, now_us, NAME)
    writes = _tie(claim, volume)
    if writes:
        return writes  # the status when both are seen to name each other
    bound = {
        "phase": "Bound",
        "accessModes": at(volume.object, "spec", "accessModes"),
        "capacity": at(volume.object, "spec", "capacity"),
    }
    return _status(claim, bound)


def _tie(claim: Seen, volume: Seen) -> list[Write]:
    """Each names the other; the volume first, so that it is nobody else's."""
    writes: list[Write] = []
    ref, noted = binding.reference(claim), base.notes(volume.object)
    had = at(volume.object, "spec", "claimRef")
    if not isinstance(had, dict) or had.get("uid") != ref["uid"]:
        ours = {} if isinstance(had, dict) else {binding.BOUND_BY_US: "yes"}
        tied = base.with_meta(volume.object, annotations={**noted, **ours} or None)
        writes.append(base.update(volume, {**tied, "spec": {**tied["spec"], "claimRef": {**(had or {}), **ref}}}, claim))
    spec, notes = claim.object["spec"], base.notes(claim.object)
    if spec.get("volumeName") != volume.key.name or binding.COMPLETED not in notes:
        ours = {} if spec.get("volumeName") else {binding.BOUND_BY_US: "yes"}
        tied = base.with_meta(claim.object, annotations={**notes, binding.COMPLETED: "yes", **ours})
        writes.append(base.update(claim, {**tied, "spec": {**spec, "volumeName": volume.key.name}}))
    return writes


def _unbound(view: View, claim: Seen, now_us: int) -> list[Write]:
    node = _where(view, claim)
    found = binding.candidates(view, claim.object)
    if not (found and binding.is_for(found[0].object, claim.object)) and binding.waits_for_pod(view, claim.object):
        if node is None:
            told = "waiting for first consumer to be created before binding"
            return events.tell(view, claim, "WaitForFirstConsumer", told, now_us, NAME, kind="Normal")
        found = [v for v in found if binding.on(v.object, node.object)]
    if found:
        return _tie(claim, found[0])
    return _provision(view, claim, node, now_us)


def _where(view: View, claim: Seen) -> Seen | None:
    """The node of its first pod: as the scheduler chose it, or as a pod says itself."""
    chosen = base.notes(claim.object).get(binding.SELECTED)
    if not chosen:
        users = view.users(claim.key.namespace, claim.key.name)
        chosen = next((n for p in users if (n := str(at(p.object, "spec", "nodeName") or ""))), "")
    return view.get(ObjectKey(*NODES, "", chosen)) if chosen else None


def _provision(view: View, claim: Seen, node: Seen | None, now_us: int) -> list[Write]:
    name = binding.class_of(claim.object)
    kind = view.get(ObjectKey(*CLASSES, "", name)) if name else None
    if kind is None or kind.object.get("provisioner") == binding.STATIC:
        if name and kind is None:
            told = f'storageclass.storage.k8s.io "{name}" not found'
            return events.tell(view, claim, "ProvisioningFailed", told, now_us, NAME)
        told = "no persistent volumes available for this claim and no storage class is set"
        if name:
            told = f'no volume plugin matched name: {binding.STATIC}: the class "{name}" needs volumes made by hand'
        return events.tell(view, claim, "FailedBinding", told, now_us, NAME, kind="Normal")
    provisioner = str(kind.object.get("provisioner"))
    if provisioner != local_volumes.DRIVER:
        told = (
            f"Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the "
            "system administrator. If volume creation is delayed, please verify that the provisioner is running and "
            "correctly registered."
        )
        return events.tell(view, claim, "ExternalProvisioning", told, now_us, NAME, kind="Normal")
    problem = ""
    if at(claim.object, "spec", "volumeMode") == "Block":
        problem = f"{provisioner} makes folders, no block devices"
    elif node is None:
        problem = f'the class "{name}" has to have volumeBindingMode WaitForFirstConsumer: a folder is on some node'
    if problem or node is None:
        return events.tell(view, claim, "ProvisioningFailed", problem, now_us, NAME)
    volume = binding.made_for(claim, node.object, kind.object)
    if view.get(ObjectKey(*VOLUMES, "", volume["metadata"]["name"])) is not None:
        return []  # made before, and reserved for somebody else by now
    told = f"Successfully provisioned volume {volume['metadata']['name']}"
    said = events.tell(view, claim, "ProvisioningSucceeded", told, now_us, NAME, kind="Normal")
    return [base.create(VOLUMES, "", volume, claim), *said]


# --- volumes ---------------------------------------------------------------------------------------------------------


def _volume(view: View, volume: Seen, now_us: int) -> list[Write]:
    claim = _claimant(view, volume.object)
    bound = claim is not None and at(claim.object, "spec", "volumeName") == volume.key.name
    if base.deleting(volume.object):
        if bound:
            return []
        guards = [VOLUME_GUARD]
        if _removed(view, volume.object):
            guards.append(local_volumes.DRIVER)
        return _without(volume, *guards)
    if bound:
        return _status(volume, {"phase": "Bound"})
    ref = at(volume.object, "spec", "claimRef")
    if not isinstance(ref, dict) or not ref.get("uid"):
        return _status(volume, {"phase": "Available"})
    if claim is not None:
        return _status(volume, {"phase": "Available"})  # reserved; its claim is on the way to it
    return _released(view, volume, now_us)


def _claimant(view: View, volume: Object) -> Seen | None:
    ref = at(volume, "spec", "claimRef")
    if not isinstance(ref, dict):
        return None
    claim = view.get(ObjectKey(*CLAIMS, str(ref.get("namespace")), str(ref.get("name"))))
    return claim if claim is not None and binding.is_for(volume, claim.object) else None


def _released(view: View, volume: Seen, now_us: int) -> list[Write]:
    """Its claim is gone: the data stays (Retain), or goes with it (Delete)."""
    if at(volume.object, "spec", "persistentVolumeReclaimPolicy") != "Delete":
        return _status(volume, {"phase": "Released"})
    if local_volumes.of(volume.object) is None:
        told = f'error getting deleter volume plugin for volume "{volume.key.name}": no deletable volume plugin matched'
        said = events.tell(view, volume, "VolumeFailedDelete", told, now_us, NAME)
        return [*_status(volume, {"phase": "Failed", "message": told}), *said]
    return _status(volume, {"phase": "Released"}) or [base.delete(volume)]


def _removed(view: View, volume: Object) -> bool:
    """Whether nothing of the data is left where somebody could remove it."""
    local = local_volumes.of(volume)
    if local is None or not local_volumes.goes_with_claim(volume):
        return True  # not ours to remove
    handle, name = local
    node = view.get(ObjectKey(*NODES, "", name))
    return node is None or local_volumes.in_use(handle) not in (at(node.object, "status", "volumesInUse") or [])


def _status(of: Seen, status: Object) -> list[Write]:
    old = of.object.get("status") or {}
    kept = {k: old[k] for k in ("lastPhaseTransitionTime",) if k in old}
    new = {**kept, **{k: v for k, v in status.items() if v is not None}}
    return [] if new == old else [base.status(of, {**of.object, "status": new})]


def _without(of: Seen, *finalizers: str) -> list[Write]:
    had = base.meta(of.object).get("finalizers") or []
    left = [f for f in had if f not in finalizers]
    return [] if left == had else [base.update(of, base.with_meta(of.object, finalizers=left or None))]
