"""What is mirrored, and how it is asked for.

Whole kinds are watched over the whole cluster, narrowed by a selector where the API server can.  What pods name is watched
in the namespaces that have edge pods, as metadata only: a change of something wanted is then fetched by name, so the content
of a secret that no edge needs never comes here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cloud.bridge.client import Path, Selection
from cloud.core import needs
from schemas import kinds as known
from schemas.kinds import Kind as Known
from schemas.subjects import ObjectKey

Kind = tuple[str, str]
DEVICES = "devices.kubeedge.io"
EDGE_LABEL = "node-role.kubernetes.io/edge"
EVENT_COMPONENT = "skerry-edge"  # of Events that are written for nodes (cloud/core/status.py)

NODES: Kind = ("", "nodes")
CLAIMS: Kind = ("", "persistentvolumeclaims")
VOLUMES: Kind = ("", "persistentvolumes")
RUNTIMES: Kind = ("node.k8s.io", "runtimeclasses")
SLICES: Kind = ("discovery.k8s.io", "endpointslices")
SERVICES: Kind = ("", "services")
PODS: Kind = ("", "pods")
DEVICE: Kind = (DEVICES, "devices")


# Resources of the whole fleet, few and small: all of them are mirrored.
FLEET = (
    Known("apps.kubeedge.io", "v1alpha1", "nodegroups", "NodeGroup", False),
    Known("apps.kubeedge.io", "v1alpha1", "edgeapplications", "EdgeApplication"),
    Known("rules.kubeedge.io", "v1", "rules", "Rule"),
    Known("rules.kubeedge.io", "v1", "ruleendpoints", "RuleEndpoint"),
    Known("operations.kubeedge.io", "v1alpha2", "imageprepulljobs", "ImagePrePullJob", False),
    Known("operations.kubeedge.io", "v1alpha2", "nodeupgradejobs", "NodeUpgradeJob", False),
    Known("operations.kubeedge.io", "v1alpha2", "configupdatejobs", "ConfigUpdateJob", False),
    Known("policy.kubeedge.io", "v1alpha1", "serviceaccountaccesses", "ServiceAccountAccess"),
)
_RUNTIME_CLASS = Known("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass", False)
# What a cluster has beyond the kinds that the standalone API serves.
KNOWN: dict[Kind, Known] = {(k.group, k.resource): k for k in (*FLEET, _RUNTIME_CLASS)} | known.BY_RESOURCE


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
HINT = Selection(metadata=True)
OTHERS = (
    Source(RUNTIMES),
    Source(VOLUMES, what=HINT),
    *(Source((k.group, k.resource)) for k in FLEET),
    Source((DEVICES, "devicemodels")),
    Source((DEVICES, "devicestatuses")),
    Source(SERVICES, needs.API.namespace),  # pods everywhere ask where the API is (edge/core/env.py)
    Source(("", "events"), what=Selection(fields=f"source={EVENT_COMPONENT}")),
)
CLUSTER_WIDE = (NODE_SOURCE, *REFERRERS, *OTHERS)


def of_namespace(namespace: str) -> tuple[Source, ...]:
    """What is watched in a namespace with edge pods."""
    named = (("", "configmaps"), ("", "secrets"), ("", "serviceaccounts"), CLAIMS)
    return (*(Source(k, namespace, HINT) for k in named), Source(SERVICES, namespace), Source(SLICES, namespace))


MIRRORED: frozenset[Kind] = frozenset({s.kind for s in (*CLUSTER_WIDE, *of_namespace("x"))})


def path(kind: Kind, namespace: str = "") -> Path:
    return Path(kind[0], KNOWN[kind].version, kind[1], namespace)


def key_of(kind: Kind, obj: dict[str, Any]) -> ObjectKey | None:
    """None for what has no name."""
    meta = obj.get("metadata")
    if not isinstance(meta, dict) or not isinstance(meta.get("name"), str) or not meta["name"]:
        return None
    namespaced = KNOWN[kind].namespaced
    return ObjectKey(kind[0], kind[1], str(meta.get("namespace") or "") if namespaced else "", meta["name"])


def stored_form(kind: Kind, obj: dict[str, Any]) -> dict[str, Any]:
    """An object as CLUSTER keeps it: with its type (items of a list have none), without the resourceVersion, which is the
    event's, and without managedFields, which no edge reads (a PUT without them leaves them alone)."""
    of = KNOWN[kind]
    meta = {k: v for k, v in obj["metadata"].items() if k not in ("resourceVersion", "managedFields")}
    return {"apiVersion": of.api_version, "kind": of.kind, **obj, "metadata": meta}
