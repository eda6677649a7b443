"""What is mirrored, and how it is asked for.

Whole kinds are watched over the whole cluster, narrowed by a selector where the API server can.  What pods name is watched
in the namespaces that have edge pods, as metadata only: a change of something wanted is then fetched by name, so the content
of a secret that no edge needs never comes here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cloud.bridge.client import Path, Selection
from schemas import kinds
from schemas.subjects import ObjectKey

Kind = tuple[str, str]
DEVICES = "devices.kubeedge.io"
EDGE_LABEL = "node-role.kubernetes.io/edge"
EVENT_COMPONENT = "skerry-edge"  # of Events that are written for nodes (cloud/core/status.py)

NODES: Kind = ("", "nodes")
PODS: Kind = ("", "pods")
DEVICE: Kind = (DEVICES, "devices")


@dataclass(frozen=True, slots=True)
class Source:
    """One list and watch.  ``namespace`` "" is the whole cluster; ``fetched``: what it tells is only a hint."""

    kind: Kind
    namespace: str = ""
    what: Selection = field(default_factory=Selection)

    @property
    def fetched(self) -> bool:
        return self.what.metadata

    @property
    def path(self) -> Path:
        return path(self.kind, self.namespace)

    def __str__(self) -> str:
        return f"{self.kind[1]}{f' of {self.namespace}' if self.namespace else ''}"


NODE_SOURCE = Source(NODES, what=Selection(labels=EDGE_LABEL))
REFERRERS = (Source(PODS, what=Selection(fields="spec.nodeName!=")), Source(DEVICE))
OTHERS = (
    Source((DEVICES, "devicemodels")),
    Source((DEVICES, "devicestatuses")),
    Source(("", "events"), what=Selection(fields=f"source={EVENT_COMPONENT}")),
)
CLUSTER_WIDE = (NODE_SOURCE, *REFERRERS, *OTHERS)


def of_namespace(namespace: str) -> tuple[Source, ...]:
    """What is watched in a namespace with edge pods."""
    hint = Selection(metadata=True)
    named = (Source(("", "configmaps"), namespace, hint), Source(("", "secrets"), namespace, hint))
    return (*named, Source(("", "services"), namespace))


MIRRORED: frozenset[Kind] = frozenset({s.kind for s in (*CLUSTER_WIDE, *of_namespace("x"))})


def path(kind: Kind, namespace: str = "") -> Path:
    return Path(kind[0], kinds.BY_RESOURCE[kind].version, kind[1], namespace)


def key_of(kind: Kind, obj: dict[str, Any]) -> ObjectKey | None:
    """None for what has no name."""
    meta = obj.get("metadata")
    if not isinstance(meta, dict) or not isinstance(meta.get("name"), str) or not meta["name"]:
        return None
    namespaced = kinds.BY_RESOURCE[kind].namespaced
    return ObjectKey(kind[0], kind[1], str(meta.get("namespace") or "") if namespaced else "", meta["name"])


def stored_form(kind: Kind, obj: dict[str, Any]) -> dict[str, Any]:
    """An object as CLUSTER keeps it: with its type (items of a list have none), without the resourceVersion, which is the
    event's, and without managedFields, which no edge reads (a PUT without them leaves them alone)."""
    known = kinds.BY_RESOURCE[kind]
    meta = {k: v for k, v in obj["metadata"].items() if k not in ("resourceVersion", "managedFields")}
    return {"apiVersion": known.api_version, "kind": known.kind, **obj, "metadata": meta}
