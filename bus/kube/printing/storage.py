"""Rows of volumes, claims and storage classes (kubernetes pkg/printers/internalversion)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bus.kube.kinds.base import at
from bus.kube.kinds.storage import DEFAULT_CLASS, class_of
from bus.kube.printing import text
from bus.kube.printing.cells import AGE, NAME, Cell, Look
from bus.kube.storage import Object

_SHORT = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


def _modes(modes: Any) -> str:
    return ",".join(short for mode, short in _SHORT.items() if mode in (modes or []))


def _phase(obj: Object, _: Look) -> str:
    return "Terminating" if obj["metadata"].get("deletionTimestamp") else str(at(obj, "status", "phase") or "")


def _claim(volume: Object, _: Look) -> str:
    ref = at(volume, "spec", "claimRef")
    return f"{ref.get('namespace', '')}/{ref.get('name', '')}" if ref else ""


def _of_bound(*path: str) -> Any:
    return lambda claim, _: at(claim, "status", *path) if at(claim, "spec", "volumeName") else None


def _class_name(storage: Object, _: Look) -> str:
    default = at(storage, "metadata", "annotations", DEFAULT_CLASS) == "true"
    return f"{storage['metadata']['name']}{' (default)' if default else ''}"


_CLASS = (
    Cell("StorageClass", lambda o, _: class_of(o)),
    Cell("VolumeAttributesClass", lambda o, _: at(o, "spec", "volumeAttributesClassName") or text.UNSET),
)
_MODE = Cell("VolumeMode", lambda o, _: at(o, "spec", "volumeMode") or text.UNSET, priority=1)

COLUMNS: dict[tuple[str, str], Sequence[Cell]] = {
    ("", "persistentvolumes"): (
        NAME,
        Cell("Capacity", lambda o, _: at(o, "spec", "capacity", "storage") or "0"),
        Cell("Access Modes", lambda o, _: _modes(at(o, "spec", "accessModes"))),
        Cell("Reclaim Policy", lambda o, _: at(o, "spec", "persistentVolumeReclaimPolicy") or ""),
        Cell("Status", _phase),
        Cell("Claim", _claim),
        *_CLASS,
        Cell("Reason", lambda o, _: at(o, "status", "reason") or ""),
        AGE,
        _MODE,
    ),
    ("", "persistentvolumeclaims"): (
        NAME,
        Cell("Status", _phase),
        Cell("Volume", lambda o, _: at(o, "spec", "volumeName") or ""),
        Cell("Capacity", lambda o, _: _of_bound("capacity", "storage")(o, _) or ""),
        Cell("Access Modes", lambda o, _: _modes(_of_bound("accessModes")(o, _))),
        *_CLASS,
        AGE,
        _MODE,
    ),
    ("storage.k8s.io", "storageclasses"): (
        Cell("Name", _class_name, format="name"),
        Cell("Provisioner", lambda o, _: o.get("provisioner") or ""),
        Cell("ReclaimPolicy", lambda o, _: o.get("reclaimPolicy") or "Delete"),
        Cell("VolumeBindingMode", lambda o, _: o.get("volumeBindingMode") or text.UNSET),
        Cell("AllowVolumeExpansion", lambda o, _: bool(o.get("allowVolumeExpansion"))),
        AGE,
    ),
}
