"""What of an object travels to an edge node, and a short digest to tell whether that changed.

An edge node is the one source of a pod's and a node's status: sending it back would cost a message for each report, on
links that are paid by the byte.  One thing must come back, because a node that lost its disk knows it no more: that a pod
has ended for good (a Succeeded pod isn't run again; Kubernetes, Pod Lifecycle, "Pod phase").
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from schemas.subjects import ObjectKey

FINISHED = ("Succeeded", "Failed")
# Of volumes and claims the status tells a node nothing; the others' comes from there.
_WITHOUT_STATUS = frozenset(
    {
        ("", "pods"),
        ("", "nodes"),
        ("devices.kubeedge.io", "devices"),
        ("", "persistentvolumes"),
        ("", "persistentvolumeclaims"),
    }
)
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_TEXT = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=repr)
DIGEST_BYTES = 16  # one in 2^64 for two versions of one object to look alike by chance


def project(key: ObjectKey, obj: Mapping[str, Any]) -> dict[str, Any]:
    """The object as its nodes get it; shares what it keeps with ``obj``, so neither may be changed."""
    out = dict(obj)
    meta = obj.get("metadata")
    if isinstance(meta, dict):
        out["metadata"] = _project_metadata(meta)
    if (key.group, key.resource) in _WITHOUT_STATUS:
        status = out.pop("status", None)
        phase = status.get("phase") if isinstance(status, dict) else None
        if key.resource == "pods" and phase in FINISHED:
            out["status"] = {"phase": phase}
    return out


def _project_metadata(meta: dict[str, Any]) -> dict[str, Any]:
    """Bookkeeping of writers stays behind; kubectl's copy of a Secret in an annotation above all."""
    out = {k: v for k, v in meta.items() if k not in ("managedFields", "resourceVersion")}
    notes = out.get("annotations")
    if isinstance(notes, dict) and _LAST_APPLIED in notes:
        out["annotations"] = {k: v for k, v in notes.items() if k != _LAST_APPLIED}
        if not out["annotations"]:
            del out["annotations"]
    return out


def digest(data: Mapping[str, Any]) -> bytes:
    """Equal for equal data, whatever the order of its maps; ``repr`` covers what JSON has no word for."""
    return hashlib.blake2b(_TEXT.encode(data).encode(), digest_size=DIGEST_BYTES).digest()
