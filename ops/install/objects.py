"""Everything that an installation is made of, in the order in which it is made.

One pod holds the hub and the cloud beside it, on one volume: the log is one nats-server, and two pods of a rolling update
must never have it at once (so the Deployment is recreated, not rolled).  Source: Kubernetes API reference, "Pod Security
Standards" (restricted), "Recommended Labels".
"""

from __future__ import annotations

import copy
from typing import Any

from bus.kube import catalog
from bus.stamp import VERSION
from cloud.bridge import kinds
from ops.install import rights
from ops.install.values import Values

Object = dict[str, Any]

NAME = "skerry"
BRIDGE_ROLE = "skerry-bridge"
CSR_ROLE, APPROVER_ROLE = "skerry-kubelet-csr", "skerry-kubelet-approver"  # where the values want them
SELECTOR = {"app.kubernetes.io/name": NAME}
MANAGED_BY = "app.kubernetes.io/managed-by"
LABELS = {**SELECTOR, "app.kubernetes.io/version": VERSION, MANAGED_BY: "skerry"}
DATA = "/var/lib/skerry"
HUB_DIR = f"{DATA}/hub"  # not the mount itself: a hub is made beside its place and moved there as a whole
USER = 10001
KUBELET_PORT = 10250
PORTS = {"client": 4222, "leaf": 7422, "websocket": 8443}


# The hub serves the edges: on one of them it would be cut off with it.
_NO_EDGE: Object = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": kinds.EDGE_LABEL, "operator": "DoesNotExist"}]}]
        }
    }
}


def definitions() -> list[Object]:
    """KubeEdge's resource definitions, which are ours."""
    found: list[Object] = copy.deepcopy(catalog.shipped_definitions())
    for definition in found:
        definition["metadata"]["labels"] = dict(LABELS)
    return found


def objects(v: Values) -> list[Object]:
    """Without the definitions."""
    return [_namespace(v), _account(v), *_rights(v), _claim(v), _service(v), _deployment(v)]


def _meta(name: str, namespace: str = "") -> Object:
    return {"name": name, **({"namespace": namespace} if namespace else {}), "labels": dict(LABELS)}


def _namespace(v: Values) -> Object:
    meta = _meta(v.namespace)
    meta["labels"] |= {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": meta}


def _account(v: Values) -> Object:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _meta(NAME, v.namespace)}


def _rights(v: Values) -> list[Object]:
    group = "rbac.authorization.k8s.io"
    subject = {"kind": "ServiceAccount", "name": NAME, "namespace": v.namespace}

    def role(scope: str, rules: list[rights.Rule], namespace: str = "", name: str = BRIDGE_ROLE) -> Object:
        return {
            "apiVersion": f"{group}/v1",
            "kind": f"{scope}Role",
            "metadata": _meta(name, namespace),
            "rules": rules,
        }

    def binding(scope: str, name: str, to: str, namespace: str = "") -> Object:
        kind = "RoleBinding" if namespace else "ClusterRoleBinding"
        ref = {"apiGroup": group, "kind": f"{scope}Role", "name": to}
        meta = _meta(name, namespace)
        return {"apiVersion": f"{group}/v1", "kind": kind, "metadata": meta, "roleRef": ref, "subjects": [dict(subject)]}

    return [
        role("Cluster", rights.of_the_bridge()),
        binding("Cluster", BRIDGE_ROLE, BRIDGE_ROLE),
        role("", rights.of_the_leader(), v.namespace),
        binding("", BRIDGE_ROLE, BRIDGE_ROLE, v.namespace),
        # A cluster's own roles for who serves beside its API server: the kubelets ask who comes, and what they may.
        binding("Cluster", "skerry-kubelet", "system:auth-delegator"),
        binding("", "skerry-kubelet", "extension-apiserver-authentication-reader", "kube-system"),
        *(
            made
            for name, rules in _of_the_certificate(v)
            for made in (role("Cluster", rules, name=name), binding("Cluster", name, name))
        ),
    ]


def _of_the_certificate(v: Values) -> list[tuple[str, list[rights.Rule]]]:
    if v.kubelet_csr == "none":
        return []
    asks = [(CSR_ROLE, rights.of_the_certificate())]
    return asks if v.kubelet_csr == "request" else [*asks, (APPROVER_ROLE, rights.of_the_approver())]


def _claim(v: Values) -> Object:
    spec: Object = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": v.storage}}}
    if v.storage_class:
        spec["storageClassName"] = v.storage_class
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": _meta(NAME, v.namespace), "spec": spec}


def _service(v: Values) -> Object:
    ports = [{"name": n, "port": p, "targetPort": n, "protocol": "TCP"} for n, p in PORTS.items()]
    spec = {"type": v.service_type, "selector": dict(SELECTOR), "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": _meta(NAME, v.namespace), "spec": spec}


def _deployment(v: Values) -> Object:
    pod = {
        "serviceAccountName": NAME,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            # Once: changing every file's mode at every start would open the keys' files to the group again.
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "affinity": copy.deepcopy(_NO_EDGE),
        "initContainers": [_container(v, "init", ["hub", "init", "--data", HUB_DIR], env=_hosts(v))],
        "containers": [_hub(v), _cloud(v)],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": NAME}}, {"name": "tmp", "emptyDir": {}}],
    }
    spec = {
        "replicas": 1,
        "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": dict(SELECTOR)},
        "template": {"metadata": {"labels": dict(LABELS)}, "spec": pod},
    }
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": _meta(NAME, v.namespace), "spec": spec}


def _hosts(v: Values) -> list[Object]:
    """For the edges from outside, for the cloud from inside; ``hub init`` reads several from one variable."""
    return [{"name": "SKERRY_HUB_INIT_HOSTS", "value": f"{v.host} {NAME}.{v.namespace}.svc"}]


def _hub(v: Values) -> Object:
    made = _container(v, "hub", ["hub", "run", "--data", HUB_DIR])
    made["ports"] = [{"name": n, "containerPort": p, "protocol": "TCP"} for n, p in PORTS.items()]
    probe = {"tcpSocket": {"port": "client"}, "periodSeconds": 10}
    made["readinessProbe"] = dict(probe)
    made["livenessProbe"] = {**probe, "failureThreshold": 18}  # it restarts a nats-server that hangs by itself, sooner
    made["resources"] = {"requests": {"cpu": "100m", "memory": "256Mi"}}
    return made


def _cloud(v: Values) -> Object:
    """Node objects name the pod's own address for their kubelets: the API server reaches pods, as it reaches webhooks."""
    # With what would be filled in: a reference has one owner as a whole, and an applier who leaves that out is in conflict.
    own_address = {"apiVersion": "v1", "fieldPath": "status.podIP"}
    env: list[Object] = [
        {"name": "SKERRY_CLOUD_RUN_KUBELET", "value": f"0.0.0.0:{KUBELET_PORT}"},
        {"name": "SKERRY_CLOUD_RUN_KUBELET_ADDRESS", "valueFrom": {"fieldRef": own_address}},
        {"name": "SKERRY_CLOUD_RUN_KUBELET_CSR", "value": v.kubelet_csr},
    ]
    made = _container(v, "cloud", ["cloud", "run", "--in-cluster", "--hub", HUB_DIR], env=env)
    made["ports"] = [{"name": "kubelet", "containerPort": KUBELET_PORT, "protocol": "TCP"}]
    made["readinessProbe"] = {"tcpSocket": {"port": "kubelet"}, "periodSeconds": 10}
    made["resources"] = {"requests": {"cpu": "100m", "memory": "256Mi"}}
    return made


def _container(v: Values, name: str, args: list[str], env: list[Object] | None = None) -> Object:
    made: Object = {"name": name, "image": v.image, "imagePullPolicy": "IfNotPresent", "args": args}
    if env:
        made["env"] = env
    made["securityContext"] = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    made["volumeMounts"] = [{"name": "data", "mountPath": DATA}, {"name": "tmp", "mountPath": "/tmp"}]
    return made
