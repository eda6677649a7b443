"""A node changes only what is its own: its Node, its lease, its pods (Kubernetes "Admission Control", NodeRestriction).

Only users who are nodes are asked (``auth/node_rights.py``); whether they may write at all was decided before.  So a node
whose credentials were stolen can't draw pods with secrets to itself by labels, nor speak for another node.
Words and order from kube-apiserver's plugin/pkg/admission/noderestriction/admission.go.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from bus.kube import errors, pod_references
from bus.kube.admission.base import Plugin
from bus.kube.auth import node_rights
from bus.kube.auth.users import User
from bus.kube.errors import StatusError
from bus.kube.kinds.base import at
from bus.kube.storage import Object, Reader
from bus.kube.targets import Target, Write
from schemas.subjects import ObjectKey

_UNNAMED = {"secrets": "secrets", "configmaps": "configmaps", "persistentvolumeclaims": "persistentvolumeclaims"}


class NodeRestriction(Plugin):
    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    # --- moments of a write

    async def admit(self, target: Target, obj: Object, how: Write) -> None:
        if (node := _asks(target, how.user)) is None:
            return
        name, refuse = obj["metadata"].get("name", ""), _refuser(target, obj["metadata"].get("name", ""))
        match (target.resource.group, target.resource.resource):
            case ("", "pods"):
                self._new_pod(node, obj, refuse)
            case ("", "nodes"):
                if bad := node_rights.labels_refused(obj["metadata"].get("labels") or {}):
                    raise refuse(f'node "{node}" is not allowed to set the following labels: {", ".join(bad)}')
                _same_node(node, name, refuse)
            case ("coordination.k8s.io", "leases"):
                self._lease(node, target, name, refuse)
            case ("storage.k8s.io", "csinodes") if name != node:
                raise refuse(f"can only access CSINode with the same name as the requesting node, {name} is not {node}")

    def update(self, target: Target, new: Object, old: Object, how: Write) -> None:
        if (node := _asks(target, how.user)) is None:
            return
        name, refuse = target.name, _refuser(target, target.name)
        match (target.resource.group, target.resource.resource):
            case ("", "pods"):
                raise refuse(f'unexpected operation "UPDATE", node "{node}" can only create and delete mirror pods')
            case ("", "nodes"):
                self._changed_node(node, new, old, refuse)
                _same_node(node, name, refuse)
            case ("coordination.k8s.io", "leases"):
                self._lease(node, target, name, refuse)

    def status(self, target: Target, new: Object, old: Object, how: Write) -> None:
        if (node := _asks(target, how.user)) is None:
            return
        refuse = _refuser(target, target.name)
        match (target.resource.group, target.resource.resource):
            case ("", "nodes"):
                _same_node(node, target.name, refuse)
            case ("", "pods"):
                if at(old, "spec", "nodeName") != node:
                    raise refuse(f'node "{node}" can only update pod status for pods with spec.nodeName set to itself')
                if (new["metadata"].get("labels") or {}) != (old["metadata"].get("labels") or {}):
                    raise refuse(f'node "{node}" cannot update labels through pod status')

    def remove(self, target: Target, old: Object, how: Write) -> None:
        if (node := _asks(target, how.user)) is None:
            return
        refuse = _refuser(target, target.name)
        match (target.resource.group, target.resource.resource):
            case ("", "pods") if at(old, "spec", "nodeName") != node:
                done = "evict" if target.subresource == "eviction" else "delete"
                raise refuse(f'node "{node}" can only {done} pods with spec.nodeName set to itself')
            case ("", "nodes"):
                _same_node(node, target.name, refuse)

    def token(self, target: Target, spec: Object, how: Write) -> None:
        """Only of a pod that is on the node."""
        if (node := _asks(target, how.user)) is None:
            return
        refuse, ref = _refuser(target, target.name), spec.get("boundObjectRef") or {}
        if not ref:
            raise refuse("node requested token not bound to a pod")
        if (ref.get("apiVersion"), ref.get("kind")) != ("v1", "Pod"):
            raise refuse("node requested token not bound to a pod")
        if not ref.get("uid"):
            raise refuse("node requested token with a pod binding without a uid")
        pod = self._reader.get(ObjectKey("", "pods", target.namespace, str(ref.get("name") or "")))
        if pod is None:
            raise errors.not_found("", "pods", str(ref.get("name") or ""))
        uid = pod.object["metadata"].get("uid")
        if ref["uid"] != uid:
            raise refuse(f"the UID in the bound object reference ({ref['uid']}) does not match the UID in record ({uid})")
        if at(pod.object, "spec", "nodeName") != node:
            raise refuse("node requested token bound to a pod scheduled on a different node")

    # --- rules

    def _new_pod(self, node: str, pod: Object, refuse: Callable[[str], StatusError]) -> None:
        meta, spec = pod["metadata"], pod["spec"]
        if not pod_references.mirrors(pod):
            raise refuse(
                f'pod does not have "{pod_references.MIRROR}" annotation, node "{node}" can only create mirror pods'
            )
        if spec.get("nodeName") != node:
            raise refuse(f'node "{node}" can only create pods with spec.nodeName set to itself')
        owners = meta.get("ownerReferences") or []
        if len(owners) > 1:
            raise refuse(f'node "{node}" can only create pods with a single owner reference set to itself')
        owner = owners[0] if owners else {}
        if (owner.get("apiVersion"), owner.get("kind"), owner.get("name")) != ("v1", "Node", node):
            raise refuse(f'node "{node}" can only create pods with an owner reference set to itself')
        if not owner.get("controller"):
            raise refuse(f'node "{node}" can only create pods with a controller owner reference set to itself')
        if owner.get("blockOwnerDeletion"):
            raise refuse(f'node "{node}" must not set blockOwnerDeletion on an owner reference')
        stored = self._reader.get(ObjectKey("", "nodes", "", node))
        uid = stored.object["metadata"].get("uid") if stored is not None else ""
        if stored is None:
            raise errors.not_found("", "nodes", node)
        if owner.get("uid") != uid:
            raise refuse(f"node {node} UID mismatch: expected {uid} got {owner.get('uid')}")
        if spec.get("serviceAccountName"):
            raise refuse(f'node "{node}" can not create pods that reference a service account')
        for resource, _ in sorted(pod_references.of(pod)):
            raise refuse(f'node "{node}" can not create pods that reference {_UNNAMED.get(resource, resource)}')

    def _changed_node(self, node: str, new: Object, old: Object, refuse: Callable[[str], StatusError]) -> None:
        if (at(new, "spec", "taints") or []) != (at(old, "spec", "taints") or []):
            raise refuse(f'node "{node}" is not allowed to modify taints')
        now, before = (o["metadata"].get("labels") or {} for o in (new, old))
        changed = [k for k in {**now, **before} if now.get(k) != before.get(k)]
        if bad := node_rights.labels_refused(changed):
            raise refuse(f'node "{node}" is not allowed to modify labels: {", ".join(bad)}')
        if (new["metadata"].get("ownerReferences") or []) != (old["metadata"].get("ownerReferences") or []):
            raise refuse(f'node "{node}" is not allowed to modify ownerReferences')

    def _lease(self, node: str, target: Target, name: str, refuse: Callable[[str], StatusError]) -> None:
        if target.namespace != node_rights.LEASES_IN:
            raise refuse(f'can only access leases in the "{node_rights.LEASES_IN}" system namespace')
        if name != node:
            raise refuse("can only access node lease with the same name as the requesting node")


def _asks(target: Target, user: User | None) -> str | None:
    """The node that asks, None when it is somebody else.  Raises StatusError 403 for a node without a name."""
    node = node_rights.node_of(user) if user is not None else None
    if node == "":
        assert user is not None
        raise _refuser(target, target.name)(f"could not determine node from user {json.dumps(user.name)}")
    return node


def _refuser(target: Target, name: str) -> Callable[[str], StatusError]:
    return lambda why: errors.forbidden(target.resource.group, target.resource.resource, name, why)


def _same_node(node: str, name: str, refuse: Callable[[str], StatusError]) -> None:
    if name != node:
        raise refuse(f'node "{node}" is not allowed to modify node "{name}"')
