"""Which volume is for which claim: the rules, of objects alone.

Source: Kubernetes documentation, "Persistent Volumes" (binding, access modes, class, selector, node affinity).
"""

from __future__ import annotations

from collections.abc import Iterable

from cloud.standalone.controllers import base, resources, selecting
from cloud.standalone.controllers.base import CLASSES, VOLUMES, Object, Seen, View, at
from schemas import local_volumes
from schemas.subjects import ObjectKey

SELECTED = "volume.kubernetes.io/selected-node"
BOUND_BY_US = "pv.kubernetes.io/bound-by-controller"
COMPLETED = "pv.kubernetes.io/bind-completed"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
STATIC = "kubernetes.io/no-provisioner"
_OLD_CLASS = "volume.beta.kubernetes.io/storage-class"


def class_of(obj: Object) -> str:
    """The storage class of a claim or a volume, "" for none."""
    return str(base.notes(obj).get(_OLD_CLASS) or at(obj, "spec", "storageClassName") or "")


def waits_for_pod(view: View, claim: Object) -> bool:
    """Whether its class binds only when it is known where the first pod runs."""
    found = view.get(ObjectKey(*CLASSES, "", class_of(claim)))
    return found is not None and found.object.get("volumeBindingMode") == "WaitForFirstConsumer"


def provisioner_of(view: View, claim: Object) -> str:
    """Who would make a volume for it; "" for nobody."""
    found = view.get(ObjectKey(*CLASSES, "", class_of(claim)))
    name = str(found.object.get("provisioner") or "") if found is not None else ""
    return "" if name == STATIC else name


def bound_to(view: View, claim: Object) -> Seen | None:
    """The volume of a claim that is bound: each names the other."""
    name = str(at(claim, "spec", "volumeName") or "")
    volume = view.get(ObjectKey(*VOLUMES, "", name)) if name else None
    return volume if volume is not None and is_for(volume.object, claim) else None


def is_for(volume: Object, claim: Object) -> bool:
    """Whether a volume is reserved for this claim; a reference without uid means whichever claim has the name."""
    ref = at(volume, "spec", "claimRef")
    if not isinstance(ref, dict):
        return False
    meta = base.meta(claim)
    same = ref.get("namespace") == meta.get("namespace") and ref.get("name") == meta.get("name")
    return same and (not ref.get("uid") or ref.get("uid") == meta.get("uid"))


def on(volume: Object, node: Object) -> bool:
    """Whether a node can have the volume."""
    required = at(volume, "spec", "nodeAffinity", "required")
    return required is None or any(selecting.term_matches(t, node) for t in base.maps(at(required, "nodeSelectorTerms")))


def candidates(view: View, claim: Object) -> list[Seen]:
    """Free volumes that would do, the smallest first; one that is reserved for the claim is the only one."""
    found = [v for v in view.list(VOLUMES) if not base.deleting(v.object) and _would_do(v.object, claim)]
    reserved = [v for v in found if is_for(v.object, claim)]
    return reserved or sorted((v for v in found if not at(v.object, "spec", "claimRef")), key=_size)


def _size(volume: Seen) -> tuple[int, str]:
    return capacity(volume.object), volume.key.name


def capacity(volume: Object) -> int:
    return resources.quantity(at(volume, "spec", "capacity", "storage") or 0)


def _would_do(volume: Object, claim: Object) -> bool:
    wanted = resources.quantity(at(claim, "spec", "resources", "requests", "storage") or 0)
    selector = at(claim, "spec", "selector")
    return (
        class_of(volume) == class_of(claim)
        and frozenset(_modes(claim)) <= frozenset(_modes(volume))
        and (at(volume, "spec", "volumeMode") or "Filesystem") == (at(claim, "spec", "volumeMode") or "Filesystem")
        and capacity(volume) >= wanted
        and (selector is None or selecting.selects(selector, base.labels(volume)))
    )


def _modes(obj: Object) -> Iterable[str]:
    return at(obj, "spec", "accessModes") or []


def local_class() -> Object:
    """The class that is there from the start, and for claims that name none."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": local_volumes.CLASS,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": local_volumes.DRIVER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
    }


def made_for(claim: Seen, node: Object, kind: Object) -> Object:
    """A volume on a node's own disk, for a claim of the class ``kind``."""
    name = f"pvc-{base.uid(claim.object)}"
    where = base.labels(node).get("kubernetes.io/hostname") or str(base.meta(node).get("name"))
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [where]}]}
    spec = claim.object.get("spec") or {}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": name,
            "annotations": {PROVISIONED_BY: local_volumes.DRIVER},
            "finalizers": [local_volumes.DRIVER],
        },
        "spec": {
            "capacity": {"storage": at(spec, "resources", "requests", "storage")},
            "accessModes": spec.get("accessModes"),
            "volumeMode": spec.get("volumeMode") or "Filesystem",
            "persistentVolumeReclaimPolicy": kind.get("reclaimPolicy") or "Delete",
            "storageClassName": class_of(claim.object),
            "claimRef": reference(claim),
            "csi": {
                "driver": local_volumes.DRIVER,
                "volumeHandle": name,
                "volumeAttributes": {local_volumes.NODE: str(base.meta(node).get("name"))},
            },
            "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
        },
    }


def reference(claim: Seen) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": claim.key.namespace,
        "name": claim.key.name,
        "uid": base.uid(claim.object),
    }
