"""What is particular to a kind: names, defaults, what a create and an update keep, and what is invalid.

base.py           the contract, and what most kinds do
core.py           namespaces, nodes, config maps, secrets, services, events
pods.py           pods; pod_defaults.py and pod_rules.py, which templates share
workloads.py      deployments and replica sets; what kinds with a template share
daemonsets.py     daemon sets, controller revisions
statefulsets.py   stateful sets
jobs.py           jobs, cron jobs
storage.py        persistent volumes, their claims, storage classes
budgets.py        pod disruption budgets
rbac.py           roles and bindings
network.py        endpoints, endpoint slices
definitions.py    custom resource definitions
custom.py         objects of custom resources
"""

from __future__ import annotations

from bus.kube.catalog import Resource
from bus.kube.kinds import (
    base,
    budgets,
    core,
    custom,
    daemonsets,
    definitions,
    jobs,
    network,
    pods,
    rbac,
    statefulsets,
    storage,
    workloads,
)

_BY_RESOURCE: dict[tuple[str, str], base.Strategy] = {
    ("", "namespaces"): core.Namespaces(),
    ("", "nodes"): core.Nodes(),
    ("", "pods"): pods.Pods(),
    ("", "configmaps"): core.ConfigMaps(),
    ("", "secrets"): core.Secrets(),
    ("", "services"): core.Services(),
    ("", "endpoints"): network.Endpoints(),
    ("discovery.k8s.io", "endpointslices"): network.EndpointSlices(),
    ("", "events"): core.Events(),
    ("apps", "deployments"): workloads.Deployments(),
    ("apps", "replicasets"): workloads.ReplicaSets(),
    ("apps", "daemonsets"): daemonsets.DaemonSets(),
    ("apps", "statefulsets"): statefulsets.StatefulSets(),
    ("apps", "controllerrevisions"): daemonsets.Revisions(),
    ("", "persistentvolumes"): storage.Volumes(),
    ("", "persistentvolumeclaims"): storage.Claims(),
    ("storage.k8s.io", "storageclasses"): storage.Classes(),
    ("policy", "poddisruptionbudgets"): budgets.Budgets(),
    ("batch", "jobs"): jobs.Jobs(),
    ("batch", "cronjobs"): jobs.CronJobs(),
    ("rbac.authorization.k8s.io", "roles"): rbac.Roles(),
    ("rbac.authorization.k8s.io", "clusterroles"): rbac.Roles(),
    ("rbac.authorization.k8s.io", "rolebindings"): rbac.Bindings(),
    ("rbac.authorization.k8s.io", "clusterrolebindings"): rbac.Bindings(),
    ("apiextensions.k8s.io", "customresourcedefinitions"): definitions.Definitions(),
}
_PLAIN = base.Strategy()
_CUSTOM = custom.Custom()


def strategy(resource: Resource) -> base.Strategy:
    if resource.custom:
        return _CUSTOM
    return _BY_RESOURCE.get((resource.group, resource.resource), _PLAIN)
