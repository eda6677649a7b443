"""The roles and bindings that every cluster has from its first start, and the upkeep of them.

What they allow is what users of Kubernetes rely on ("Using RBAC Authorization", "Default roles and role bindings").  At
every start of an API missing rights and subjects are added again; what somebody added stays; an object whose annotation
``autoupdate`` is "false" is left alone.  Roles of controllers that run in our own processes are left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from bus.kube.auth import rbac, rules, users
from bus.kube.auth.rules import Rule
from bus.kube.decoding import clone
from bus.kube.errors import StatusError
from bus.kube.storage import Object, Origin
from bus.kube.targets import Write
from schemas.subjects import ObjectKey

if TYPE_CHECKING:
    from bus.kube.registry import Registry

AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"
BOOTSTRAPPING = {"kubernetes.io/bootstrapping": "rbac-defaults"}
AGGREGATE = "rbac.authorization.k8s.io/aggregate-to-"
WRITES_AT_ONCE = 16

READ = "get list watch"
CHANGE = "create delete deletecollection patch update"
WORKLOADS = "daemonsets deployments deployments/scale replicasets replicasets/scale statefulsets statefulsets/scale"
DEVICES = "devices.kubeedge.io"


def _on(group: str, resources: str, verbs: str, names: str = "") -> Rule:
    """Words separated by spaces; ``core`` is the group without a name."""
    groups = ["" if g == "core" else g for g in group.split()]
    rule: Rule = {"apiGroups": groups, "resources": resources.split(), "verbs": verbs.split()}
    return {**rule, "resourceNames": names.split()} if names else rule


def _paths(paths: str) -> Rule:
    return {"nonResourceURLs": paths.split(), "verbs": ["get"]}


_EVENTS = _on("core events.k8s.io", "events", "create patch update")
_TO_ADMIN = [
    _on("authorization.k8s.io", "localsubjectaccessreviews", "create"),
    _on("rbac.authorization.k8s.io", "rolebindings roles", f"{CHANGE} {READ}"),
]
_TO_EDIT = [
    _on("core", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy", READ),
    _on("core", "serviceaccounts", "impersonate"),
    _on("core", "pods pods/attach pods/exec pods/portforward pods/proxy", CHANGE),
    _on("core", "pods/eviction", "create"),
    _on("core", "configmaps events persistentvolumeclaims secrets serviceaccounts services services/proxy", CHANGE),
    _on("core", "serviceaccounts/token", "create"),
    _on("core", "replicationcontrollers replicationcontrollers/scale", CHANGE),
    _on("apps", WORKLOADS, CHANGE),
    _on("autoscaling", "horizontalpodautoscalers", CHANGE),
    _on("batch", "cronjobs jobs", CHANGE),
    _on("policy", "poddisruptionbudgets", CHANGE),
    _on("networking.k8s.io", "ingresses networkpolicies", CHANGE),
    _on("coordination.k8s.io", "leases", f"{CHANGE} {READ}"),
    _on(DEVICES, "devices devicemodels", CHANGE),
]
_TO_VIEW = [
    _on("core", "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods", READ),
    _on("core", "serviceaccounts services services/status", READ),
    _on("core", "replicationcontrollers replicationcontrollers/scale replicationcontrollers/status", READ),
    _on("core", "bindings events limitranges namespaces/status pods/log pods/status resourcequotas", READ),
    _on("core", "resourcequotas/status namespaces", READ),
    _on("discovery.k8s.io", "endpointslices", READ),
    _on("apps", f"controllerrevisions {WORKLOADS} daemonsets/status deployments/status", READ),
    _on("apps", "replicasets/status statefulsets/status", READ),
    _on("autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status", READ),
    _on("batch", "cronjobs cronjobs/status jobs jobs/status", READ),
    _on("policy", "poddisruptionbudgets poddisruptionbudgets/status", READ),
    _on("networking.k8s.io", "ingresses ingresses/status networkpolicies", READ),
    _on(DEVICES, "devices devicemodels devicestatuses", READ),
]
_DELEGATED = [
    _on("authentication.k8s.io", "tokenreviews", "create"),
    _on("authorization.k8s.io", "subjectaccessreviews", "create"),
]
NODE = [
    _on("authentication.k8s.io", "tokenreviews", "create"),
    _on("authorization.k8s.io", "localsubjectaccessreviews subjectaccessreviews", "create"),
    _on("core", "services", READ),
    _on("core", "nodes", f"create patch update {READ}"),
    _on("core", "nodes/status pods/status", "patch update"),
    _on("core", "events", "create patch update"),
    _on("core", "pods", f"create delete {READ}"),
    _on("core", "pods/eviction serviceaccounts/token", "create"),
    _on("core", "configmaps secrets", READ),
    _on("core", "persistentvolumeclaims persistentvolumes endpoints", "get"),
    _on("coordination.k8s.io", "leases", "create delete get patch update"),
    _on("core", "persistentvolumeclaims/status", "get patch update"),
    _on("node.k8s.io", "runtimeclasses", READ),
    _on("storage.k8s.io", "csidrivers", READ),
    _on("storage.k8s.io", "csinodes", "create delete get patch update"),
    _on("storage.k8s.io", "volumeattachments", "get"),
]
_PROXIER = [
    _on("core", "endpoints services", "list watch"),
    _on("core", "nodes", READ),
    _EVENTS,
    _on("discovery.k8s.io", "endpointslices", "list watch"),
]
_PROVISIONER = [
    _on("core", "persistentvolumes", f"create delete {READ}"),
    _on("core", "persistentvolumeclaims", f"update {READ}"),
    _on("storage.k8s.io", "storageclasses", READ),
    _on("core", "events", "watch"),
    _EVENTS,
]
_KUBELET = [
    _on("core", "nodes", READ),
    _on("core", "nodes", "proxy"),
    _on("core", "nodes/log nodes/metrics nodes/proxy nodes/stats", "*"),
]
_PROBLEMS = [_on("core", "nodes", "get"), _on("core", "nodes/status", "patch"), _EVENTS]
_PUBLIC = "/healthz /livez /readyz /version /version/"
_DISCOVERY = "/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/"
_MONITORING = "/healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/*"
_BASIC = [
    _on("authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews", "create"),
    _on("authentication.k8s.io", "selfsubjectreviews", "create"),
]


def _role(name: str, granted: Iterable[Rule], gathers: str = "", adds_to: str = "") -> Object:
    """``gathers`` and ``adds_to`` are of admin, edit, view: whose rights it collects, to whose it gives its own."""
    labels = {**BOOTSTRAPPING, **({f"{AGGREGATE}{adds_to}": "true"} if adds_to else {})}
    meta = {"name": name, "labels": labels, "annotations": {AUTOUPDATE: "true"}}
    role: Object = {"apiVersion": f"{rbac.GROUP}/v1", "kind": "ClusterRole", "metadata": meta}
    if gathers:
        role["aggregationRule"] = {"clusterRoleSelectors": [{"matchLabels": {f"{AGGREGATE}{gathers}": "true"}}]}
    return {**role, "rules": [clone(r) for r in granted]}


def cluster_roles() -> list[Object]:
    return [
        _role("cluster-admin", rules.FULL),
        _role("admin", [*_TO_EDIT, *_TO_VIEW, *_TO_ADMIN], gathers="admin"),
        _role("edit", [*_TO_EDIT, *_TO_VIEW], gathers="edit", adds_to="admin"),
        _role("view", _TO_VIEW, gathers="view", adds_to="edit"),
        _role("system:aggregate-to-admin", _TO_ADMIN, adds_to="admin"),
        _role("system:aggregate-to-edit", _TO_EDIT, adds_to="edit"),
        _role("system:aggregate-to-view", _TO_VIEW, adds_to="view"),
        _role("system:auth-delegator", _DELEGATED),
        _role("system:basic-user", _BASIC),
        _role("system:discovery", [_paths(_DISCOVERY)]),
        _role("system:kubelet-api-admin", _KUBELET),
        _role("system:monitoring", [_paths(_MONITORING)]),
        _role("system:node", NODE),
        _role("system:node-problem-detector", _PROBLEMS),
        _role("system:node-proxier", _PROXIER),
        _role("system:persistent-volume-provisioner", _PROVISIONER),
        _role("system:public-info-viewer", [_paths(_PUBLIC)]),
        _role("system:service-account-issuer-discovery", [_paths("/.well-known/openid-configuration /openid/v1/jwks")]),
    ]


def _binding(name: str, kind: str, *subjects: str) -> Object:
    return {
        "apiVersion": f"{rbac.GROUP}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name, "labels": dict(BOOTSTRAPPING), "annotations": {AUTOUPDATE: "true"}},
        "roleRef": {"apiGroup": rbac.GROUP, "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": rbac.GROUP, "kind": kind, "name": s} for s in subjects],
    }


def cluster_role_bindings() -> list[Object]:
    return [
        _binding("cluster-admin", "Group", users.MASTERS),
        _binding("system:basic-user", "Group", users.AUTHENTICATED),
        _binding("system:discovery", "Group", users.AUTHENTICATED),
        _binding("system:monitoring", "Group", "system:monitoring"),
        _binding("system:node-proxier", "User", "system:kube-proxy"),
        _binding("system:public-info-viewer", "Group", users.AUTHENTICATED, users.UNAUTHENTICATED),
        _binding("system:service-account-issuer-discovery", "Group", users.ACCOUNTS),
    ]


# --- upkeep ----------------------------------------------------------------------------------------------------------


async def reconcile(registry: Registry, origin: Origin) -> None:
    """Raises StatusError 503 when the log can't be reached: to be tried again."""
    for resource, wanted in ((rbac.CLUSTERROLES, cluster_roles()), (rbac.CLUSTERROLEBINDINGS, cluster_role_bindings())):
        for start in range(0, len(wanted), WRITES_AT_ONCE):
            some = wanted[start : start + WRITES_AT_ONCE]
            await asyncio.gather(*(_keep(registry, resource, obj, origin) for obj in some))


async def _keep(registry: Registry, resource: str, wanted: Object, origin: Origin) -> None:
    stored = registry.reader.get(ObjectKey(rbac.GROUP, resource, "", wanted["metadata"]["name"]))
    try:
        if stored is None:
            await registry.create(rbac.GROUP, resource, "", clone(wanted), how=Write(origin))
            return
        new = repaired(stored.object, wanted)
        if new is not None:
            new["metadata"]["resourceVersion"] = str(stored.rev)
            await registry.update(rbac.GROUP, resource, "", stored.key.name, new, how=Write(origin))
    except StatusError as e:
        if e.code != 409:  # another server was faster: it does the same
            raise


def repaired(current: Object, wanted: Object) -> Object | None:
    """``current`` with the rights, labels and subjects that it lacks; None when it lacks nothing, or nobody may touch it."""
    meta = current["metadata"]
    if (meta.get("annotations") or {}).get(AUTOUPDATE) == "false":
        return None
    new: Object = clone(current)
    for field in ("labels", "annotations"):
        new["metadata"][field] = {**wanted["metadata"][field], **(meta.get(field) or {})}
    if "roleRef" in wanted:
        had = [_subject(s) for s in current.get("subjects") or []]
        new["subjects"] = [*(current.get("subjects") or []), *(s for s in wanted["subjects"] if _subject(s) not in had)]
    elif "aggregationRule" in wanted:
        new.setdefault("aggregationRule", wanted["aggregationRule"])  # its rules are gathered by a controller
    else:
        missing = rules.compact(rules.covers(current.get("rules") or [], wanted["rules"]))
        new["rules"] = [*(current.get("rules") or []), *missing]
    return new if new != current else None


def _subject(subject: Any) -> tuple[str, str, str]:
    return subject.get("kind", ""), subject.get("namespace", ""), subject.get("name", "")
