"""Persistent volumes, claims and storage classes (pkg/apis/core, pkg/apis/storage), and the admission that goes with them:
a claim without a class gets the default one, and what is in use can't go (StorageObjectInUseProtection)."""

from __future__ import annotations

from bus.kube import errors, names, quantity
from bus.kube.errors import Cause
from bus.kube.kinds import checks, claim_spec
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
        amounts = spec.get("capacity")
        if not amounts:
            out.append(errors.required("spec.capacity"))
        if "storage" not in (amounts or {}) or len(amounts or {}) > 1:
            out.append(errors.not_supported("spec.capacity", amounts, ("storage",)))
        out += _capacity(amounts or {})
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
        out += _sources(found)
        if "local" in found and at(spec, "nodeAffinity", "required") is None:
            out.append(errors.required("spec.nodeAffinity", "Local volume requires node affinity"))
        field, policy = "spec.persistentVolumeReclaimPolicy", spec["persistentVolumeReclaimPolicy"]
        out += checks.listed(field, policy, RECLAIM)
        if policy == "Recycle" and at(found, "hostPath", "path") == "/":
            out.append(errors.not_permitted(field, "may not be 'recycle' for a hostPath mount of '/'"))
        terms = at(spec, "nodeAffinity", "required")
        if terms is not None and not terms.get("nodeSelectorTerms"):
            why = "must have at least one node selector term"
            out.append(errors.required("spec.nodeAffinity.required.nodeSelectorTerms", why))
        return out + _class(spec) + _volume_mode(spec)

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        out = self.validate(obj, ctx)
        if sources(obj["spec"]) != sources(old["spec"]):
            why = "spec.persistentvolumesource is immutable after creation"
            out.append(errors.not_permitted("spec.persistentvolumesource", why))
        for field in ("volumeMode", "nodeAffinity"):
            had = old["spec"].get(field)
            if had is not None and obj["spec"].get(field) != had:
                named = field if field == "volumeMode" else f"spec.{field}"
                out.append(errors.bad_value(named, obj["spec"].get(field), "field is immutable"))
        return out


class Claims(Strategy):
    returns_deleted = True

    def defaults(self, obj: Object, ctx: Context) -> None:
        spec = obj.setdefault("spec", {})
        spec.setdefault("volumeMode", "Filesystem")
        if (ref := spec.get("dataSourceRef")) and not spec.get("dataSource") and not ref.get("namespace"):
            spec["dataSource"] = dict(ref)

    def prepare_create(self, obj: Object, ctx: Context) -> None:
        obj["status"] = {"phase": "Pending"}
        spec = obj["spec"]
        source = spec.get("dataSource")
        if source is not None and not source.get("apiGroup") and source.get("kind") != "PersistentVolumeClaim":
            del spec["dataSource"]  # nothing that fills a volume, and it never did harm
        elif source is not None:
            source.setdefault("apiGroup", None)
            spec.setdefault("dataSourceRef", dict(source))
        named = OLD_CLASS in (obj["metadata"].get("annotations") or {})
        if spec.get("storageClassName") is None and not named and (found := _default_class(ctx)):
            spec["storageClassName"] = found
        _guard(obj, CLAIM_GUARD)

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        spec = obj["spec"]
        return claim_spec.rules(spec, "spec")

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        out = self.validate(obj, ctx)
        bound = at(old, "status", "phase") == "Bound"
        if _fixed(obj["spec"], old["spec"], bound) != old["spec"]:
            why = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
            out.append(errors.not_permitted("spec", why))
        return out


def _fixed(new: Object, old: Object, bound: bool) -> Object:
    """``new`` with what may change put back: a volume and a class once, when there is none; a bound one's size."""
    out = dict(new)
    for field in ("volumeName", "storageClassName"):
        if not old.get(field):
            out.pop(field, None)
            out |= {field: old[field]} if field in old else {}
    if "resources" in old and bound:
        out["resources"] = old["resources"]
    return out


class Classes(Strategy):
    returns_deleted = True

    def defaults(self, obj: Object, ctx: Context) -> None:
        obj.setdefault("reclaimPolicy", "Delete")
        obj.setdefault("volumeBindingMode", "Immediate")

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        given, out = obj.get("provisioner") or "", []
        if not given:
            out.append(errors.required("provisioner"))
        else:
            out += checks.text("provisioner", given.lower(), names.label_key)
        if "" in (obj.get("parameters") or {}):
            out.append(errors.bad_value("parameters", "", "field can not be empty."))
        if obj["reclaimPolicy"] not in ("Delete", "Retain"):
            out.append(errors.not_supported("reclaimPolicy", obj["reclaimPolicy"], ("Delete", "Retain")))
        modes = ("Immediate", "WaitForFirstConsumer")
        if obj["volumeBindingMode"] not in modes:
            out.append(errors.not_supported("volumeBindingMode", obj["volumeBindingMode"], modes))
        return out + _topologies(obj.get("allowedTopologies") or [])

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        out = self.validate(obj, ctx)
        for field in ("parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"):
            if obj.get(field) != old.get(field):
                out.append(errors.bad_value(field, obj.get(field), "field is immutable"))
        return out


HOST_PATHS = ("", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket")


def _capacity(amounts: Object) -> list[Cause]:
    out = []
    for name, text in amounts.items():
        path, value = f"spec.capacity[{name}]", quantity.parse(text)
        if value < 0:
            out.append(Cause(path, "FieldValueInvalid", f"Invalid value: {text}: must be a valid resource quantity"))
        if value <= 0:
            out.append(errors.bad_value(path, text, "must be greater than zero"))
    return out


def _sources(found: dict[str, Object]) -> list[Cause]:
    """What each kind of volume needs."""
    out: list[Cause] = []
    if "hostPath" in found:
        out += checks.listed("spec.hostPath.type", found["hostPath"].get("type") or "", HOST_PATHS)
    if "nfs" in found:
        server, path = found["nfs"].get("server"), found["nfs"].get("path") or ""
        out += [] if server else [errors.required("spec.nfs.server")]
        if not path:
            out.append(errors.required("spec.nfs.path"))
        elif not path.startswith("/"):
            out.append(errors.bad_value("spec.nfs.path", path, "must be an absolute path"))
    if "csi" in found:
        out += [errors.required(f"spec.csi.{f}") for f in ("driver", "volumeHandle") if not found["csi"].get(f)]
    return out


def _topologies(terms: list[Object]) -> list[Cause]:
    out: list[Cause] = []
    known: list[dict[str, frozenset[str]]] = []
    for i, term in enumerate(terms):
        path, seen = f"allowedTopologies[{i}].matchLabelExpressions", dict[str, frozenset[str]]()
        for j, wanted in enumerate(term.get("matchLabelExpressions") or []):
            key, values = wanted.get("key") or "", wanted.get("values") or []
            out += [] if values else [errors.required(f"{path}[{j}].values")]
            for k, value in enumerate(values):
                if value in values[:k]:
                    out.append(errors.duplicate(f"{path}[{j}].values[{k}]", value))
            out += checks.text(f"{path}[{j}].key", key, names.label_key)
            if key in seen:
                out.append(errors.duplicate(f"{path}[{j}].key", key))
            seen[key] = frozenset(values)
        if seen in known or not seen:
            out.append(errors.duplicate(path, ""))
        known.append(seen)
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
        return [errors.required("spec.accessModes")]
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
