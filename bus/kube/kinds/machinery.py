"""What a cluster's own machinery keeps: runtime classes, CSI drivers and what they say of nodes and volumes
(pkg/apis/node, pkg/apis/storage)."""

from __future__ import annotations

from bus.kube import errors, names, quantity
from bus.kube.errors import Cause
from bus.kube.kinds.base import Context, Strategy, at
from bus.kube.storage import Object

_IMMUTABLE = "field is immutable"
DRIVER_CHARS_MAX = 63
NODE_ID_CHARS_MAX = 256
GROUP_POLICIES = ("File", "None", "ReadWriteOnceWithFSType")


def _changed(obj: Object, old: Object, *fields: str) -> list[Cause]:
    return [errors.bad_value(f, obj.get(f), _IMMUTABLE) for f in fields if obj.get(f) != old.get(f)]


class RuntimeClasses(Strategy):
    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        handler, out = obj.get("handler") or "", []
        if not handler:
            out.append(errors.required("handler"))
        elif problem := names.dns_label(handler):
            out.append(errors.bad_value("handler", handler, problem))
        for name, amount in (at(obj, "overhead", "podFixed") or {}).items():
            if quantity.parse(amount) < 0:
                out.append(errors.bad_value(f"overhead.limits[{name}]", amount, "must be greater than or equal to 0"))
        for key, value in (at(obj, "scheduling", "nodeSelector") or {}).items():
            if problem := names.label_key(key) or names.label_value(value):
                out.append(errors.bad_value("scheduling.nodeSelector", key, problem))
        return out

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        return self.validate(obj, ctx) + _changed(obj, old, "handler")


def _driver(name: str, path: str) -> list[Cause]:
    if not name:
        return [errors.required(path)]
    if len(name) > DRIVER_CHARS_MAX:
        why = f"Too long: may not be more than {DRIVER_CHARS_MAX} bytes"
        return [Cause(path, "FieldValueTooLong", why)]
    problem = names.dns_subdomain(name.lower())
    return [errors.bad_value(path, name, problem)] if problem else []


class Drivers(Strategy):
    returns_deleted = True
    unconditional_update = False
    generation = True

    def defaults(self, obj: Object, ctx: Context) -> None:
        spec = obj.setdefault("spec", {})
        spec.setdefault("attachRequired", True)
        for field in ("podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"):
            spec.setdefault(field, False)
        spec.setdefault("fsGroupPolicy", "ReadWriteOnceWithFSType")
        if not spec.get("volumeLifecycleModes"):
            spec["volumeLifecycleModes"] = ["Persistent"]

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        spec = obj["spec"]
        out = _driver(obj["metadata"]["name"], "metadata.name")
        if spec["fsGroupPolicy"] not in GROUP_POLICIES:
            out.append(errors.not_supported("spec.fsGroupPolicy", spec["fsGroupPolicy"], GROUP_POLICIES))
        for mode in spec["volumeLifecycleModes"]:
            if mode not in ("Ephemeral", "Persistent"):
                out.append(errors.not_supported("spec.volumeLifecycleModes", mode, ("Ephemeral", "Persistent")))
        seen: set[str] = set()
        for i, request in enumerate(spec.get("tokenRequests") or []):
            if request.get("audience", "") in seen:
                out.append(errors.duplicate(f"spec.tokenRequests[{i}].audience", request.get("audience", "")))
            seen.add(request.get("audience", ""))
        return out

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        out = self.validate(obj, ctx)
        for field, named in (("attachRequired", "attachedRequired"), ("volumeLifecycleModes", "volumeLifecycleModes")):
            if obj["spec"].get(field) != at(old, "spec", field):
                out.append(errors.bad_value(f"spec.{named}", obj["spec"].get(field), _IMMUTABLE))
        return out


class DriverNodes(Strategy):
    returns_deleted = True
    unconditional_update = False

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        out: list[Cause] = []
        seen: set[str] = set()
        for i, driver in enumerate(at(obj, "spec", "drivers") or []):
            path, name, node = f"spec.drivers[{i}]", driver.get("name") or "", driver.get("nodeID") or ""
            out += _driver(name, f"{path}.name")
            if not node:
                out.append(errors.required(f"{path}.nodeID"))
            elif len(node) > NODE_ID_CHARS_MAX:
                out.append(errors.bad_value(f"{path}.nodeID", node, f"must be {NODE_ID_CHARS_MAX} characters or less"))
            if name in seen:
                out.append(errors.duplicate(f"{path}.name", name))
            seen.add(name)
            count = at(driver, "allocatable", "count")
            if count is not None and count < 0:
                out.append(errors.bad_value(f"{path}.allocatable.count", count, "must be greater than or equal to 0"))
        return out

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        out = self.validate(obj, ctx)
        before = {d.get("name"): d for d in at(old, "spec", "drivers") or []}
        for driver in at(obj, "spec", "drivers") or []:
            had = before.get(driver.get("name"))
            if had is not None and had != driver:
                out.append(errors.bad_value("CSINode.spec.drivers", driver.get("name"), _IMMUTABLE))
        return out


class Capacities(Strategy):
    unconditional_update = False

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        name, out = obj.get("storageClassName") or "", []
        if not name:
            out.append(errors.required("storageClassName"))
        elif problem := names.dns_subdomain(name):
            out.append(errors.bad_value("storageClassName", name, problem))
        for field in ("capacity", "maximumVolumeSize"):
            if obj.get(field) is not None and quantity.parse(obj[field]) < 0:
                out.append(errors.bad_value(field, obj[field], "must be greater than or equal to 0"))
        return out

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        return self.validate(obj, ctx) + _changed(obj, old, "nodeTopology", "storageClassName")


class Attachments(Strategy):
    returns_deleted = True
    unconditional_update = False

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        spec = obj.get("spec") or {}
        out = _driver(spec.get("attacher") or "", "spec.attacher")
        source = spec.get("source") or {}
        inline, name = source.get("inlineVolumeSpec"), source.get("persistentVolumeName")
        if inline is None and name is None:
            why = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
            out.append(errors.required("spec.source", why))
        elif inline is not None and name is not None:
            why = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
            out.append(errors.not_permitted("spec.source", why))
        if problem := names.dns_subdomain(spec.get("nodeName") or ""):
            out.append(errors.bad_value("spec.nodeName", spec.get("nodeName") or "", problem))
        return out

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        out = self.validate(obj, ctx)
        return out + _changed(obj, old, "spec")


class AttributesClasses(Strategy):
    returns_deleted = True

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        out = _driver(obj.get("driverName") or "", "driverName")
        if not obj.get("parameters"):
            out.append(errors.required("parameters", "must contain at least one key/value pair"))
        return out

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        return self.validate(obj, ctx) + _changed(obj, old, "driverName", "parameters")
