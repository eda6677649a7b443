"""What is particular to a kind: names, defaults, what a create and an update keep, and what is invalid.

base.py           the contract, and what most kinds do
core.py           namespaces, config maps, secrets, service accounts
nodes.py          nodes
services.py       services
events.py         events, in both their forms
pods.py           pods; pod_defaults.py and pod_rules.py (and what that names), which templates share; pod_created.py
checks.py         checks that many kinds share; claim_spec.py, what claims and what makes them share
workloads.py      deployments and replica sets; what kinds with a template share
daemonsets.py     daemon sets, controller revisions
statefulsets.py   stateful sets
jobs.py           jobs, cron jobs; job_rules.py, job_status.py
storage.py        persistent volumes, their claims, storage classes
budgets.py        pod disruption budgets
leases.py         leases
rbac.py           roles and bindings
policies.py       resource quotas, limit ranges, priority classes
network.py        endpoints, endpoint slices
networking.py     ingresses, their classes, network policies
autoscaling.py    horizontal pod autoscalers
templates.py      pod templates, replication controllers
machinery.py      runtime classes, CSI drivers and what they say
webhooks.py       admission webhooks' configurations; admission_rules.py, what they share with policies
admission_policies.py   admission policies, their bindings
selector_rules.py label selectors in specifications
definitions.py    custom resource definitions
custom.py         objects of custom resources
"""

from __future__ import annotations

from bus.kube.catalog import Resource
from bus.kube.kinds import (
    admission_policies,
    autoscaling,
    base,
    budgets,
    core,
    custom,
    daemonsets,
    definitions,
    events,
    jobs,
    leases,
    machinery,
    network,
    networking,
    nodes,
    pods,
    policies,
    rbac,
    services,
    statefulsets,
    storage,
    templates,
    webhooks,
    workloads,
)

GROUP = "admissionregistration.k8s.io"
_BY_RESOURCE: dict[tuple[str, str], base.Strategy] = {
    ("", "namespaces"): core.Namespaces(),
    ("", "nodes"): nodes.Nodes(),
    ("", "pods"): pods.Pods(),
    ("", "configmaps"): core.ConfigMaps(),
    ("", "secrets"): core.Secrets(),
    ("", "serviceaccounts"): core.ServiceAccounts(),
    ("", "services"): services.Services(),
    ("", "endpoints"): network.Endpoints(),
    ("discovery.k8s.io", "endpointslices"): network.EndpointSlices(),
    ("", "events"): events.Events(),
    ("events.k8s.io", "events"): events.ModernEvents(),
    ("", "podtemplates"): templates.PodTemplates(),
    ("", "replicationcontrollers"): templates.ReplicationControllers(),
    ("autoscaling", "horizontalpodautoscalers"): autoscaling.Autoscalers(),
    ("networking.k8s.io", "ingresses"): networking.Ingresses(),
    ("networking.k8s.io", "ingressclasses"): networking.IngressClasses(),
    ("networking.k8s.io", "networkpolicies"): networking.NetworkPolicies(),
    ("node.k8s.io", "runtimeclasses"): machinery.RuntimeClasses(),
    ("storage.k8s.io", "csidrivers"): machinery.Drivers(),
    ("storage.k8s.io", "csinodes"): machinery.DriverNodes(),
    ("storage.k8s.io", "csistoragecapacities"): machinery.Capacities(),
    ("storage.k8s.io", "volumeattachments"): machinery.Attachments(),
    ("storage.k8s.io", "volumeattributesclasses"): machinery.AttributesClasses(),
    ("apps", "deployments"): workloads.Deployments(),
    ("apps", "replicasets"): workloads.ReplicaSets(),
    ("apps", "daemonsets"): daemonsets.DaemonSets(),
    ("apps", "statefulsets"): statefulsets.StatefulSets(),
    ("apps", "controllerrevisions"): daemonsets.Revisions(),
    ("", "persistentvolumes"): storage.Volumes(),
    ("", "persistentvolumeclaims"): storage.Claims(),
    ("storage.k8s.io", "storageclasses"): storage.Classes(),
    ("policy", "poddisruptionbudgets"): budgets.Budgets(),
    ("coordination.k8s.io", "leases"): leases.Leases(),
    ("", "resourcequotas"): policies.Quotas(),
    ("", "limitranges"): policies.LimitRanges(),
    ("scheduling.k8s.io", "priorityclasses"): policies.PriorityClasses(),
    ("batch", "jobs"): jobs.Jobs(),
    ("batch", "cronjobs"): jobs.CronJobs(),
    ("rbac.authorization.k8s.io", "roles"): rbac.Roles(),
    ("rbac.authorization.k8s.io", "clusterroles"): rbac.Roles(),
    ("rbac.authorization.k8s.io", "rolebindings"): rbac.Bindings(),
    ("rbac.authorization.k8s.io", "clusterrolebindings"): rbac.Bindings(),
    (GROUP, "mutatingwebhookconfigurations"): webhooks.Configurations(mutating=True),
    (GROUP, "validatingwebhookconfigurations"): webhooks.Configurations(mutating=False),
    (GROUP, "validatingadmissionpolicies"): admission_policies.Policies(),
    (GROUP, "validatingadmissionpolicybindings"): admission_policies.Bindings(),
    ("apiextensions.k8s.io", "customresourcedefinitions"): definitions.Definitions(),
}
_PLAIN = base.Strategy()
_CUSTOM = custom.Custom()


def strategy(resource: Resource) -> base.Strategy:
    if resource.custom:
        return _CUSTOM
    return _BY_RESOURCE.get((resource.group, resource.resource), _PLAIN)
