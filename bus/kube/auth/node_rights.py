"""What a node may do: the node authorizer (Kubernetes "Using Node Authorization").

A user ``system:node:NAME`` in the group ``system:nodes`` reads only what the pods on that node name, its own Node and its
own pods; what else it may do to its Node, its lease and its pods is narrowed by ``admission/node_restriction.py``.
A right that this doesn't give is asked for among roles and bindings, as for anybody.

Each question looks at the pods of one namespace in the API's cache: kubelets ask seldom, and no graph has to be kept.
Words and order from kube-apiserver's plugin/pkg/auth/authorizer/node/node_authorizer.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from bus.kube import pod_references
from bus.kube.auth import policy, rules
from bus.kube.auth.rules import Rule
from bus.kube.auth.users import Attributes, Decision, User
from bus.kube.kinds.base import at
from bus.kube.storage import Object, Reader
from schemas.subjects import ObjectKey

PREFIX, GROUP = "system:node:", "system:nodes"
LEASES_IN = "kube-node-lease"
_READ = ("get", "list", "watch")
_OWN = ("get", "create", "update", "patch", "delete")
_YES = Decision(True)


class Judge(Protocol):
    """Roles and bindings (rbac.Rbac), or what asks them last."""

    def authorize(self, wanted: Attributes) -> Decision: ...
    def rules_for(self, user: User, namespace: str) -> tuple[list[Rule], list[str]]: ...


def node_of(user: User) -> str | None:
    """The node that a user is; None for everybody else."""
    return user.name.removeprefix(PREFIX) if user.name.startswith(PREFIX) and GROUP in user.groups else None


class NodeRights:
    """Implements ``Judge``; ``others`` is asked for what nodes have no right to as nodes."""

    def __init__(self, reader: Reader, others: Judge) -> None:
        self._reader, self._others = reader, others

    def rules_for(self, user: User, namespace: str) -> tuple[list[Rule], list[str]]:
        found, failed = self._others.rules_for(user, namespace)
        if node_of(user) is not None:
            failed = [*failed, "node authorizer does not support user rule resolution"]
        return found, failed

    def authorize(self, wanted: Attributes) -> Decision:
        node = node_of(wanted.user)
        if node is None:
            return self._others.authorize(wanted)
        mine = self._judge(node, wanted) if node else _no(f'unknown node for user "{wanted.user.name}"')
        if mine.allowed:
            return mine
        others = self._others.authorize(wanted)
        if others.allowed:
            return others
        return Decision(False, ", ".join(r for r in (mine.reason, others.reason) if r))

    def _judge(self, node: str, w: Attributes) -> Decision:
        match (w.group, w.resource):
            case ("", "secrets" | "configmaps") if not w.path:
                return self._read(node, w)
            case ("", "persistentvolumeclaims") if w.subresource == "status":
                can = w.verb in ("update", "patch")
                return self._related(node, w) if can else _no("can only update status of persistent volume claims")
            case ("", "persistentvolumeclaims" | "persistentvolumes") | ("storage.k8s.io", "volumeattachments"):
                return self._get(node, w)
            case ("", "serviceaccounts") if w.subresource:
                return self._token(node, w)
            case ("coordination.k8s.io", "leases"):
                return _lease(node, w)
            case ("storage.k8s.io", "csinodes"):
                return _csi(node, w)
            case ("", "nodes"):
                return _node(node, w)
            case ("", "pods"):
                return self._pod(node, w)
        return Decision(any(rules.allows(rule, w) for rule in policy.NODE))

    # --- by what the node's pods name

    def _read(self, node: str, w: Attributes) -> Decision:
        if w.verb not in _READ:
            return _no("can only read resources of this type")
        if w.subresource:
            return _no("cannot read subresource")
        if not w.namespace:
            return _no("can only read namespaced object of this type")
        return self._related(node, w)

    def _get(self, node: str, w: Attributes) -> Decision:
        if w.verb != "get":
            return _no("can only get individual resources of this type")
        if w.subresource:
            return _no("cannot get subresource")
        return self._related(node, w)

    def _token(self, node: str, w: Attributes) -> Decision:
        if w.verb != "create" or not w.name:
            return _no("can only create tokens for individual service accounts")
        if w.subresource != "token":
            return _no("can only create token subresource of serviceaccount")
        return self._related(node, w)

    def _pod(self, node: str, w: Attributes) -> Decision:
        match (w.subresource, w.verb):
            case ("", "get"):
                return self._get(node, w)
            case ("", "list" | "watch"):
                if f"spec.nodeName={node}" in w.fields.replace("==", "=").replace(" ", "").split(","):
                    return _YES
                return (
                    self._related(node, w) if w.name else _no("can only list/watch pods with spec.nodeName field selector")
                )
            case ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create"):
                return _YES  # of its own only: admission
        return _no("")

    def _related(self, node: str, w: Attributes) -> Decision:
        if not w.name:
            return _no("No Object name found")
        if self._leads_to(node, w.resource, w.namespace, w.name):
            return _YES
        return _no(f"no relationship found between node '{node}' and this object")

    def _leads_to(self, node: str, resource: str, namespace: str, name: str) -> bool:
        match resource:
            case "pods":
                stored = self._reader.get(ObjectKey("", "pods", namespace, name))
                return stored is not None and at(stored.object, "spec", "nodeName") == node
            case "persistentvolumes":
                volume = self._reader.get(ObjectKey("", "persistentvolumes", "", name))
                return volume is not None and self._claims(node, volume.object)
            case "volumeattachments":
                attached = self._reader.get(ObjectKey("storage.k8s.io", "volumeattachments", "", name))
                return attached is not None and at(attached.object, "spec", "nodeName") == node
        if any((resource, name) in pod_references.of(pod) for pod in self._pods(node, namespace)):
            return True
        if resource != "secrets":
            return False
        volumes = (s.object for s in self._reader.list("", "persistentvolumes"))
        return any((namespace, name) in pod_references.of_volume(v) and self._claims(node, v) for v in volumes)

    def _claims(self, node: str, volume: Object) -> bool:
        """Whether a pod of the node uses the claim that a volume is bound to."""
        claim = at(volume, "spec", "claimRef") or {}
        wanted = ("persistentvolumeclaims", claim.get("name"))
        return any(wanted in pod_references.of(pod) for pod in self._pods(node, claim.get("namespace") or ""))

    def _pods(self, node: str, namespace: str) -> Iterator[Object]:
        if namespace:
            for stored in self._reader.list("", "pods", namespace):
                pod = stored.object
                if pod["spec"].get("nodeName") == node and not pod_references.mirrors(pod):
                    yield pod  # what a node made itself gives it no rights


# --- the node's own ----------------------------------------------------------------------------------------------------


def _lease(node: str, w: Attributes) -> Decision:
    if w.verb not in _OWN:
        return _no("can only get, create, update, patch, or delete a node lease")
    if w.namespace != LEASES_IN:
        return _no(f'can only access leases in the "{LEASES_IN}" system namespace')
    if w.verb != "create" and w.name != node:
        return _no("can only access node lease with the same name as the requesting node")
    return _YES


def _csi(node: str, w: Attributes) -> Decision:
    if w.verb not in _OWN:
        return _no("can only get, create, update, patch, or delete a CSINode")
    if w.subresource:
        return _no("cannot authorize CSINode subresources")
    if w.verb != "create" and w.name != node:
        return _no("can only access CSINode with the same name as the requesting node")
    return _YES


def _node(node: str, w: Attributes) -> Decision:
    match (w.subresource, w.verb):
        case ("", "create" | "update" | "patch") | ("status", "update" | "patch"):
            return _YES  # its own only: admission
        case ("", "get" | "list" | "watch"):
            if w.name == node:
                return _YES
            what = f"'{w.name}'" if w.name else "all nodes"
            return _no(f"node '{node}' cannot read {what}, only its own Node object")
    return _no("")


def _no(reason: str) -> Decision:
    return Decision(False, reason)


def labels_refused(labels: Iterable[str]) -> list[str]:
    """Those that a node may not give itself, sorted: of ``node-restriction.kubernetes.io``, which pods rely on, and all of
    Kubernetes' own but those that a kubelet is known to set."""
    return sorted(k for k in labels if _restricted(k))


_KUBELETS = frozenset(
    {
        "kubernetes.io/hostname",
        "kubernetes.io/arch",
        "kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "failure-domain.beta.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.kubernetes.io/region",
        "failure-domain.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
    }
)
_KUBELET_SPACES = ("kubelet.kubernetes.io", "node.kubernetes.io")


def _restricted(label: str) -> bool:
    space, slash, _ = label.partition("/")
    if not slash:
        return False

    def within(*spaces: str) -> bool:
        return any(space == s or space.endswith(f".{s}") for s in spaces)

    if within("node-restriction.kubernetes.io"):
        return True
    return within("kubernetes.io", "k8s.io") and label not in _KUBELETS and not within(*_KUBELET_SPACES)
