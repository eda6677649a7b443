"""Persistent volumes, claims and storage classes (pkg/apis/core, pkg/apis/storage), and the admission that goes with them:
a claim without a class gets the default one, and what is in use can't go (StorageObjectInUseProtection)."""

from __future__ import annotations

from bus.kube import errors, names
from bus.kube.errors import Cause
from bus.kube.kinds.base import Context, Strategy, at
from bus.kube.storage import Object

VOLUME_GUARD, CLAIM_GUARD = "kubernetes.io/pv-protection", "kubernetes.io/pvc-protection"
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
OLD_CLASS = "volume.beta.kubernetes.io/storage-class"  # an annotation that still counts where the field isn't set

MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
VOLUME_MODES = ("Block", "Filesystem")
RECLAIM = ("Delete", "Recycle", "Retain")
_OF_SPEC = (
    *("accessModes", "capacity", "claimRef", "mountOptions", "nodeAffinity", "persistentVolumeReclaimPolicy"),
    *("storageClassName", "volumeAttributesClassName", "volumeMode"),
)


def class_of(obj: Object) -> str:
    """The storage class of a claim or a volume, "" for none."""
    old = at(obj, "metadata", "annotations", OLD_CLASS)
    return str(old if old is not None else at(obj, "spec", "storageClassName") or "")


def sources(spec: Object) -> dict[str, Object]:
    """The volume sources of a PersistentVolume: there must be one."""
    return {k: v for k, v in spec.items() if k not in _OF_SPEC and isinstance(v, dict)}


class Volumes(Strategy):
    returns_deleted = True

    def defaults(self, obj: Object, ctx: Context) -> None:
        spec = obj.setdefault("spec", {})
        spec.setdefault("persistentVolumeReclaimPolicy", "Retain")
        spec.setdefault("volumeMode", "Filesystem")
        if isinstance(spec.get("hostPath"), dict):
            spec["hostPath"].setdefault("type", "")

    def prepare_create(self, obj: Object, ctx: Context) -> None:
        obj["status"] = {"phase": "Pending", "lastPhaseTransitionTime": ctx.now}
        _guard(obj, VOLUME_GUARD)

    def prepare_status(self, obj: Object, old: Object, ctx: Context) -> None:
        super().prepare_status(obj, old, ctx)
        if at(obj, "status", "phase") != at(old, "status", "phase"):
            obj["status"]["lastPhaseTransitionTime"] = ctx.now

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        spec = obj["spec"]
        out = _access_modes(spec.get("accessModes"))
        if not spec.get("capacity"):
            out.append(errors.required("spec.capacity"))
        elif "storage" not in spec["capacity"] or len(spec["capacity"]) > 1:
            out.append(errors.not_supported("spec.capacity", spec["capacity"], ("storage",)))
        found = sources(spec)
        if not found:
            out.append(errors.required("spec", "must specify a volume type"))
        out += [errors.not_permitted(f"spec.{other}", "may not specify more than 1 volume type") for other in [*found][1:]]
        for kind in ("hostPath", "local"):
            path = str(at(found, kind, "path") or "")
            if kind in found and not path:
                out.append(errors.required(f"spec.{kind}.path"))
            elif ".." in path.split("/"):
                out.append(errors.bad_value(f"spec.{kind}.path", path, "must not contain '..'"))
        if "local" in found and at(spec, "nodeAffinity", "required") is None:
            out.append(errors.required("spec.nodeAffinity", "Local volume requires node affinity"))
        if spec["persistentVolumeReclaimPolicy"] not in RECLAIM:
            field = "spec.persistentVolumeReclaimPolicy"
            out.append(errors.not_supported(field, spec["persistentVolumeReclaimPolicy"], RECLAIM))
        return out + _class(spec) + _volume_mode(spec)

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        out = self.validate(obj, ctx)
        if sources(obj["spec"]) != sources(old["spec"]):
            why = "spec.persistentvolumesource is immutable after creation"
            out.append(errors.not_permitted("spec.persistentvolumesource", why))
        for field in ("volumeMode", "nodeAffinity"):
            had = old["spec"].get(field)
            if had is not None and obj["spec"].get(field) != had:
                out.append(errors.bad_value(f"spec.{field}", obj["spec"].get(field), "field is immutable"))
        return out


class Claims(Strategy):
    returns_deleted = True

    def defaults(self, obj: Object, ctx: Context) -> None:
        spec = obj.setdefault("spec", {})
        spec.setdefault("volumeMode", "Filesystem")

    def prepare_create(self, obj: Object, ctx: Context) -> None:
        obj["status"] = {"phase": "Pending"}
        spec = obj["spec"]
        named = OLD_CLASS in (obj["metadata"].get("annotations") or {})
        if spec.get("storageClassName") is None and not named and (found := _default_class(ctx)):
            spec["storageClassName"] = found
        _guard(obj, CLAIM_GUARD)

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        spec = obj["spec"]
        out = _access_modes(spec.get("accessModes"))
        if "storage" not in (at(spec, "resources", "requests") or {}):
            out.append(errors.required("spec.resources[storage]"))
        return out + _class(spec) + _volume_mode(spec)

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        out = self.validate(obj, ctx)
        if _fixed(obj["spec"], old["spec"]) != old["spec"]:
            why = "is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
            out.append(errors.not_permitted("spec", why))
        return out


def _fixed(new: Object, old: Object) -> Object:
    """``new`` with what may change put back: a volume and a class once, when there is none; the size asked for."""
    out = dict(new)
    for field in ("volumeName", "storageClassName"):
        if not old.get(field):
            out.pop(field, None)
            out |= {field: old[field]} if field in old else {}
    if "resources" in old:
        out["resources"] = old["resources"]
    return out


class Classes(Strategy):
    returns_deleted = True

    def defaults(self, obj: Object, ctx: Context) -> None:
        obj.setdefault("reclaimPolicy", "Delete")
        obj.setdefault("volumeBindingMode", "Immediate")

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        out = [] if obj.get("provisioner") else [errors.required("provisioner")]
        if obj["reclaimPolicy"] not in ("Delete", "Retain"):
            out.append(errors.not_supported("reclaimPolicy", obj["reclaimPolicy"], ("Delete", "Retain")))
        modes = ("Immediate", "WaitForFirstConsumer")
        if obj["volumeBindingMode"] not in modes:
            out.append(errors.not_supported("volumeBindingMode", obj["volumeBindingMode"], modes))
        return out

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        out = self.validate(obj, ctx)
        for field in ("parameters", "provisioner"):
            if obj.get(field) != old.get(field):
                out.append(errors.not_permitted(field, f"updates to {field} are forbidden."))
        for field in ("reclaimPolicy", "volumeBindingMode"):
            if obj.get(field) != old.get(field):
                out.append(errors.bad_value(field, obj.get(field), "field is immutable"))
        return out


def _guard(obj: Object, finalizer: str) -> None:
    meta = obj["metadata"]
    meta["finalizers"] = list(dict.fromkeys([*(meta.get("finalizers") or []), finalizer]))


def _default_class(ctx: Context) -> str:
    """The youngest of those that say so."""
    found = [
        (str(at(s.object, "metadata", "creationTimestamp") or ""), s.key.name)
        for s in ctx.reader.list("storage.k8s.io", "storageclasses")
        if at(s.object, "metadata", "annotations", DEFAULT_CLASS) == "true"
    ]
    return max(found)[1] if found else ""


def _access_modes(modes: object) -> list[Cause]:
    if not isinstance(modes, list) or not modes:
        return [errors.required("spec.accessModes", "at least 1 access mode is required")]
    out = [errors.not_supported("spec.accessModes", m, MODES) for m in modes if m not in MODES]
    if "ReadWriteOncePod" in modes and len(modes) > 1:
        why = "may not use ReadWriteOncePod with other access modes"
        out.append(errors.not_permitted("spec.accessModes", why))
    return out


def _class(spec: Object) -> list[Cause]:
    name = spec.get("storageClassName")
    problem = names.dns_subdomain(name) if name else ""
    return [errors.bad_value("spec.storageClassName", name, problem)] if problem else []


def _volume_mode(spec: Object) -> list[Cause]:
    mode = spec.get("volumeMode")
    return [] if mode in VOLUME_MODES else [errors.not_supported("spec.volumeMode", mode, VOLUME_MODES)]
