"""The Kubernetes kinds that Skerry knows by itself (custom resources come from their definitions)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """One served resource.  ``resource`` is the plural; storage is by (group, resource), whatever the version."""

    group: str
    version: str
    resource: str
    kind: str
    namespaced: bool = True
    short: tuple[str, ...] = ()
    singular: str = ""
    subresources: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    stored: bool = True  # False: asked by create and answered, never kept (reviews)
    also: tuple[str, ...] = ()  # other versions that are served; ``version`` is the one that is stored
    home: tuple[str, str] | None = None  # (group, resource) whose objects these are, when they are no others

    @property
    def versions(self) -> tuple[str, ...]:
        """All that are served."""
        return (self.version, *self.also)

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


_DEVICES = "devices.kubeedge.io"
_STORAGE, _NETWORKING, _HPA = "storage.k8s.io", "networking.k8s.io", "HorizontalPodAutoscaler"
_OF_PODS = ("status", "binding", "eviction", "ephemeralcontainers", "resize", "log", "exec", "attach", "portforward")
_ADMISSION = "admissionregistration.k8s.io"
_RBAC, _AUTHORIZATION, _AUTHENTICATION = "rbac.authorization.k8s.io", "authorization.k8s.io", "authentication.k8s.io"


def _asked(group: str, resource: str, kind: str, namespaced: bool = False) -> Kind:
    return Kind(group, "v1", resource, kind, namespaced, (), kind.lower(), stored=False)


def _admission(resource: str, kind: str, *subresources: str) -> Kind:
    return Kind(_ADMISSION, "v1", resource, kind, False, (), kind.lower(), subresources, ("api-extensions",))


BUILTIN: tuple[Kind, ...] = (
    Kind("", "v1", "namespaces", "Namespace", False, ("ns",), "namespace", ("status", "finalize")),
    Kind("", "v1", "nodes", "Node", False, ("no",), "node", ("status",)),
    Kind("", "v1", "pods", "Pod", True, ("po",), "pod", _OF_PODS, ("all",)),
    Kind("", "v1", "podtemplates", "PodTemplate", True, (), "podtemplate"),
    Kind("", "v1", "replicationcontrollers", "ReplicationController", True, ("rc",), "", ("status", "scale"), ("all",)),
    Kind("", "v1", "bindings", "Binding", True, (), "binding", stored=False),
    Kind("", "v1", "configmaps", "ConfigMap", True, ("cm",), "configmap"),
    Kind("", "v1", "secrets", "Secret", True, (), "secret"),
    Kind("", "v1", "services", "Service", True, ("svc",), "service", ("status",), ("all",)),
    Kind("", "v1", "serviceaccounts", "ServiceAccount", True, ("sa",), "serviceaccount", ("token",)),
    Kind("", "v1", "endpoints", "Endpoints", True, ("ep",), "endpoints"),
    Kind("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", True, (), "endpointslice"),
    Kind("", "v1", "events", "Event", True, ("ev",), "event"),
    Kind("events.k8s.io", "v1", "events", "Event", True, ("ev",), "event", home=("", "events")),
    Kind("apps", "v1", "deployments", "Deployment", True, ("deploy",), "deployment", ("status", "scale"), ("all",)),
    Kind("apps", "v1", "replicasets", "ReplicaSet", True, ("rs",), "replicaset", ("status", "scale"), ("all",)),
    Kind("apps", "v1", "daemonsets", "DaemonSet", True, ("ds",), "daemonset", ("status",), ("all",)),
    Kind("apps", "v1", "statefulsets", "StatefulSet", True, ("sts",), "statefulset", ("status", "scale"), ("all",)),
    Kind("apps", "v1", "controllerrevisions", "ControllerRevision", True, (), "controllerrevision"),
    Kind("batch", "v1", "jobs", "Job", True, (), "job", ("status",), ("all",)),
    Kind("batch", "v1", "cronjobs", "CronJob", True, ("cj",), "cronjob", ("status",), ("all",)),
    Kind("", "v1", "persistentvolumes", "PersistentVolume", False, ("pv",), "persistentvolume", ("status",)),
    Kind("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", True, ("pvc",), "persistentvolumeclaim", ("status",)),
    Kind(_STORAGE, "v1", "storageclasses", "StorageClass", False, ("sc",), "storageclass"),
    Kind(_STORAGE, "v1", "csidrivers", "CSIDriver", False),
    Kind(_STORAGE, "v1", "csinodes", "CSINode", False),
    Kind(_STORAGE, "v1", "csistoragecapacities", "CSIStorageCapacity"),
    Kind(_STORAGE, "v1", "volumeattachments", "VolumeAttachment", False, subresources=("status",)),
    Kind(_STORAGE, "v1", "volumeattributesclasses", "VolumeAttributesClass", False, ("vac",)),
    Kind(_NETWORKING, "v1", "ingresses", "Ingress", True, ("ing",), "ingress", ("status",)),
    Kind(_NETWORKING, "v1", "ingressclasses", "IngressClass", False),
    Kind(_NETWORKING, "v1", "networkpolicies", "NetworkPolicy", True, ("netpol",)),
    Kind("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass", False),
    Kind("autoscaling", "v2", "horizontalpodautoscalers", _HPA, True, ("hpa",), "", ("status",), ("all",), also=("v1",)),
    Kind("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", True, ("pdb",), "poddisruptionbudget", ("status",)),
    Kind("", "v1", "resourcequotas", "ResourceQuota", True, ("quota",), "resourcequota", ("status",)),
    Kind("", "v1", "limitranges", "LimitRange", True, ("limits",), "limitrange"),
    Kind("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", False, ("pc",), "priorityclass"),
    Kind("coordination.k8s.io", "v1", "leases", "Lease", True, (), "lease"),
    Kind(_RBAC, "v1", "roles", "Role", True, (), "role"),
    Kind(_RBAC, "v1", "rolebindings", "RoleBinding", True, (), "rolebinding"),
    Kind(_RBAC, "v1", "clusterroles", "ClusterRole", False, (), "clusterrole"),
    Kind(_RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", False, (), "clusterrolebinding"),
    _asked(_AUTHORIZATION, "selfsubjectaccessreviews", "SelfSubjectAccessReview"),
    _asked(_AUTHORIZATION, "subjectaccessreviews", "SubjectAccessReview"),
    _asked(_AUTHORIZATION, "localsubjectaccessreviews", "LocalSubjectAccessReview", True),
    _asked(_AUTHORIZATION, "selfsubjectrulesreviews", "SelfSubjectRulesReview"),
    _asked(_AUTHENTICATION, "selfsubjectreviews", "SelfSubjectReview"),
    _asked(_AUTHENTICATION, "tokenreviews", "TokenReview"),
    _admission("mutatingwebhookconfigurations", "MutatingWebhookConfiguration"),
    _admission("validatingwebhookconfigurations", "ValidatingWebhookConfiguration"),
    _admission("validatingadmissionpolicies", "ValidatingAdmissionPolicy", "status"),
    _admission("validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding"),
    Kind(
        "apiextensions.k8s.io",
        "v1",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        False,
        ("crd", "crds"),
        "customresourcedefinition",
        ("status",),
        ("api-extensions",),
    ),
    Kind(_DEVICES, "v1beta1", "devices", "Device", True, (), "device"),
    Kind(_DEVICES, "v1beta1", "devicemodels", "DeviceModel", True, (), "devicemodel"),
    Kind(_DEVICES, "v1beta1", "devicestatuses", "DeviceStatus", True, (), "devicestatus"),
)

BY_RESOURCE: dict[tuple[str, str], Kind] = {(k.group, k.resource): k for k in BUILTIN}
