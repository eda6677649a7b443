"""Volumes that a node makes on its own disk: what the cloud writes into them and the node reads out of them.

The storage class ``skerry-local`` (provisioner ``skerry.io/local``) gives a claim a folder under the data folder of the
daemon on the node where its first pod runs.  The volume is a PersistentVolume whose CSI driver is named so; nothing of CSI
is spoken.  Which folders a node has is told where kubelets tell which volumes are in use (Node ``status.volumesInUse``): a
volume's data is removed by the node, and only then does its object go.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

DRIVER = "skerry.io/local"  # the provisioner of the class too, and the finalizer that waits for the node
NODE = "skerry.io/node"  # in volumeAttributes: where the folder is
CLASS = "skerry-local"

_IN_USE = f"kubernetes.io/csi/{DRIVER}^"
_HANDLE = re.compile(r"[a-z0-9][a-z0-9.-]{0,252}\Z")


def in_use(handle: str) -> str:
    """How a node says that it has the folder (the attach-detach controller's unique volume name)."""
    return f"{_IN_USE}{handle}"


def of(volume: Mapping[str, Any]) -> tuple[str, str] | None:
    """(handle, node) of a PersistentVolume of this kind; None for any other, or one whose handle is no plain name."""
    spec = volume.get("spec")
    csi = spec.get("csi") if isinstance(spec, dict) else None
    if not isinstance(csi, dict) or csi.get("driver") != DRIVER:
        return None
    handle, attributes = csi.get("volumeHandle"), csi.get("volumeAttributes")
    node = attributes.get(NODE) if isinstance(attributes, dict) else None
    if not isinstance(handle, str) or not _HANDLE.match(handle) or not isinstance(node, str) or not node:
        return None
    return handle, node


def goes_with_claim(volume: Mapping[str, Any]) -> bool:
    """Whether its data is to be removed with it (reclaim policy Delete)."""
    spec = volume.get("spec")
    return isinstance(spec, dict) and spec.get("persistentVolumeReclaimPolicy") == "Delete"
