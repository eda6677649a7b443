"""What the bridge may do in a cluster: what it asks for, and nothing beside it.

``tests/contract/install`` runs a bridge with these rights alone and writes down what it asks: a right that is missing or one
that is never used fails there.  Source: Kubernetes documentation, "Using RBAC Authorization".
"""

from __future__ import annotations

from typing import Any

from cloud.bridge import election, kinds
from cloud.kubelet import serving_cert

Rule = dict[str, Any]
LOOK = ("list", "watch")


def rule(group: str, resources: list[str], *verbs: str) -> Rule:
    return {"apiGroups": [group], "resources": resources, "verbs": list(verbs)}


def of_the_bridge() -> list[Rule]:
    """Of the ClusterRole."""
    fleet: dict[str, list[str]] = {}
    for k in kinds.FLEET:
        fleet.setdefault(k.group, []).append(k.resource)
    return [
        rule("", ["nodes"], *LOOK, "create", "update"),
        rule("", ["nodes/status", "pods/status"], "update"),
        rule("", ["pods"], *LOOK, "patch", "delete"),
        rule("", ["events"], *LOOK, "create", "update"),
        # Told of by metadata alone, then fetched by name if an edge needs it.
        rule("", ["configmaps", "secrets", "serviceaccounts", "persistentvolumeclaims", "persistentvolumes"], *LOOK, "get"),
        rule("", ["serviceaccounts/token"], "create"),
        rule("", ["services"], *LOOK),
        rule("discovery.k8s.io", ["endpointslices"], *LOOK),
        rule("node.k8s.io", ["runtimeclasses"], *LOOK),
        rule("coordination.k8s.io", ["leases"], "create", "patch"),
        rule(kinds.DEVICES, ["devices"], *LOOK),
        rule(kinds.DEVICES, ["devicemodels", "devicestatuses"], *LOOK, "get"),
        rule(kinds.DEVICES, ["devicestatuses"], "create", "update"),
        *(rule(group, sorted(names), *LOOK) for group, names in sorted(fleet.items())),
    ]


def of_the_certificate() -> list[Rule]:
    """Of the ClusterRole that asking for the kubelets' certificate needs."""
    return [rule("certificates.k8s.io", ["certificatesigningrequests"], "create", "get")]


def of_the_approver() -> list[Rule]:
    """Of the ClusterRole with which it is approved as well: any request to this signer, so it is given only where wanted."""
    group = "certificates.k8s.io"
    signer = {**rule(group, ["signers"], "approve"), "resourceNames": [serving_cert.SIGNER]}
    return [rule(group, ["certificatesigningrequests/approval"], "update"), signer]


def of_the_leader() -> list[Rule]:
    """Of the Role in the bridge's own namespace: the Lease by which it leads (cloud/bridge/election.py)."""
    group, names = "coordination.k8s.io", [election.NAME]
    return [rule(group, ["leases"], "create"), {**rule(group, ["leases"], "get", "update"), "resourceNames": names}]
