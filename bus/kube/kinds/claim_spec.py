"""What is invalid in the specification of a claim, of a claim itself and of what claims are made from: ephemeral volumes
and templates of stateful sets (pkg/apis/core/validation, ValidatePersistentVolumeClaimSpec)."""

from __future__ import annotations

from bus.kube import errors, names, quantity
from bus.kube.errors import Cause
from bus.kube.kinds import checks
from bus.kube.storage import Object

ACCESS_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
VOLUME_MODES = ("Block", "Filesystem")


def defaults(spec: Object) -> None:
    spec.setdefault("volumeMode", "Filesystem")


def rules(spec: Object, path: str) -> list[Cause]:
    modes, out = spec.get("accessModes") or [], []
    if not modes:
        out.append(errors.required(f"{path}.accessModes", "at least 1 access mode is required"))
    out += checks.label_selector(f"{path}.selector", spec.get("selector"))
    for mode in modes:
        out += checks.listed(f"{path}.accessModes", mode, ACCESS_MODES)
    if "ReadWriteOncePod" in modes and any(m in ACCESS_MODES and m != "ReadWriteOncePod" for m in modes):
        why = "may not use ReadWriteOncePod with other access modes"
        out.append(errors.not_permitted(f"{path}.accessModes", why))
    out += _size(((spec.get("resources") or {}).get("requests") or {}).get("storage"), f"{path}.resources[storage]")
    if spec.get("storageClassName"):
        out += checks.text(f"{path}.storageClassName", spec["storageClassName"], names.dns_subdomain)
    if spec.get("volumeMode") is not None:
        out += checks.listed(f"{path}.volumeMode", spec["volumeMode"], VOLUME_MODES)
    for field in ("dataSource", "dataSourceRef"):
        if spec.get(field) is not None:
            out += _source(spec[field], f"{path}.{field}")
    if spec.get("volumeAttributesClassName"):
        out += checks.text(f"{path}.volumeAttributesClassName", spec["volumeAttributesClassName"], names.dns_subdomain)
    return out


def _size(size: str | None, path: str) -> list[Cause]:
    if size is None:
        return [errors.required(path)]
    return [errors.bad_value(path, size, "must be greater than zero")] if quantity.parse(size) <= 0 else []


def _source(source: Object, path: str) -> list[Cause]:
    out = [errors.required(f"{path}.{f}") for f in ("name", "kind") if not source.get(f)]
    group = source.get("apiGroup") or ""
    if not group and source.get("kind") != "PersistentVolumeClaim":
        why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup"
        out.append(errors.bad_value(path, source.get("kind") or "", why))
    if group:
        out += checks.text(f"{path}.apiGroup", group, names.dns_subdomain)
    return out
