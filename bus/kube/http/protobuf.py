"""The few protobuf bodies that kubectl can't be talked out of.

``kubectl create namespace`` (and configmap, secret, deployment, service, job ...) and ``kubectl drain`` send their object as
protobuf and don't fall back to JSON on 415.  This reads exactly those kinds: an envelope (``k8s\\0``, runtime.Unknown),
then a message by the field numbers below; the types of fields are those of JSON (``typed.py``).  Anything beyond the table
is refused (415), never dropped.  Answers are JSON always, which those clients name as their second choice.

Field numbers are the API's wire contract (generated.proto of each API package); they never change.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from bus.kube import errors, times, typed

MAGIC = b"k8s\x00"
MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
DEPTH_MAX = 32
VARINT_BYTES_MAX = 10
_CORE, _APPS, _BATCH = "io.k8s.api.core.v1.", "io.k8s.api.apps.v1.", "io.k8s.api.batch.v1."
_POLICY, _SCHEDULING = "io.k8s.api.policy.v1.", "io.k8s.api.scheduling.v1."
_SCALE1, _SCALE2 = "io.k8s.api.autoscaling.v1.", "io.k8s.api.autoscaling.v2."
_RBAC, _AUTHZ, _AUTHN = "io.k8s.api.rbac.v1.", "io.k8s.api.authorization.v1.", "io.k8s.api.authentication.v1."
_REVIEWS = ("SelfSubjectAccessReview", "SubjectAccessReview", "LocalSubjectAccessReview", "SelfSubjectRulesReview")

# Fields in the order of their numbers, from 1; ``-`` is a number not known here.  ``*``: a pointer, so zero is said on
# purpose; without it zero means absent.  ``~``: read over (the server makes its own).
_FIELDS: dict[str, str] = {
    _CORE + "Namespace": "metadata spec ~status",
    _CORE + "NamespaceSpec": "finalizers",
    _CORE + "ConfigMap": "metadata data binaryData immutable*",
    _CORE + "Secret": "metadata data type stringData immutable*",
    _CORE + "ServiceAccount": "metadata - - automountServiceAccountToken*",
    _CORE + "Service": "metadata spec ~status",
    _CORE
    + "ServiceSpec": "ports selector clusterIP type externalIPs - sessionAffinity loadBalancerIP loadBalancerSourceRanges "
    "externalName externalTrafficPolicy healthCheckNodePort publishNotReadyAddresses - - - ipFamilyPolicy* clusterIPs "
    "ipFamilies allocateLoadBalancerNodePorts* loadBalancerClass* internalTrafficPolicy* trafficDistribution*",
    _CORE + "ServicePort": "name protocol port targetPort nodePort appProtocol*",
    _CORE + "PodTemplateSpec": "metadata spec",
    _CORE
    + "PodSpec": "- containers restartPolicy terminationGracePeriodSeconds* activeDeadlineSeconds* dnsPolicy nodeSelector "
    "serviceAccountName serviceAccount nodeName hostNetwork hostPID hostIPC securityContext - hostname subdomain - "
    "schedulerName initContainers automountServiceAccountToken* - - priorityClassName priority* - shareProcessNamespace* - "
    "runtimeClassName* enableServiceLinks* preemptionPolicy*",
    _CORE + "PodSecurityContext": "",
    _CORE
    + "Container": "name image command args workingDir ports env resources - - - - terminationMessagePath imagePullPolicy "
    "- stdin stdinOnce tty - terminationMessagePolicy",
    _CORE + "ContainerPort": "name hostPort containerPort protocol hostIP",
    _CORE + "EnvVar": "name value",
    _CORE + "ResourceRequirements": "",
    _APPS + "Deployment": "metadata spec ~status",
    _APPS + "DeploymentSpec": "replicas* selector template strategy minReadySeconds revisionHistoryLimit* paused - "
    "progressDeadlineSeconds*",
    _APPS + "DeploymentStrategy": "type rollingUpdate",
    _APPS + "RollingUpdateDeployment": "maxUnavailable maxSurge",
    _BATCH + "Job": "metadata spec ~status",
    _BATCH + "JobSpec": "parallelism* completions* activeDeadlineSeconds* selector manualSelector* template backoffLimit* "
    "ttlSecondsAfterFinished* completionMode* suspend* - backoffLimitPerIndex* maxFailedIndexes* podReplacementPolicy* "
    "managedBy*",
    _BATCH + "CronJob": "metadata spec ~status",
    _BATCH
    + "CronJobSpec": "schedule startingDeadlineSeconds* concurrencyPolicy suspend* jobTemplate successfulJobsHistoryLimit* "
    "failedJobsHistoryLimit* timeZone*",
    _BATCH + "JobTemplateSpec": "metadata spec",
    _POLICY + "Eviction": "metadata deleteOptions",
    _POLICY + "PodDisruptionBudget": "metadata spec ~status",
    _POLICY + "PodDisruptionBudgetSpec": "minAvailable* selector maxUnavailable* unhealthyPodEvictionPolicy*",
    _RBAC + "Role": "metadata rules",
    _RBAC + "ClusterRole": "metadata rules aggregationRule",
    _RBAC + "AggregationRule": "clusterRoleSelectors",
    _RBAC + "PolicyRule": "verbs apiGroups resources resourceNames nonResourceURLs",
    _RBAC + "RoleBinding": "metadata subjects roleRef",
    _RBAC + "ClusterRoleBinding": "metadata subjects roleRef",
    _RBAC + "RoleRef": "apiGroup kind name",
    _RBAC + "Subject": "kind apiGroup name namespace",
    **{_AUTHZ + review: "metadata spec ~status" for review in _REVIEWS},
    _AUTHZ + "SelfSubjectAccessReviewSpec": "resourceAttributes nonResourceAttributes",
    _AUTHZ + "SubjectAccessReviewSpec": "resourceAttributes nonResourceAttributes user groups - uid",
    _AUTHZ + "SelfSubjectRulesReviewSpec": "namespace",
    _AUTHZ + "ResourceAttributes": "namespace verb group version resource subresource name",
    _AUTHZ + "NonResourceAttributes": "path verb",
    _AUTHN + "SelfSubjectReview": "metadata ~status",
    _AUTHN + "TokenRequest": "metadata spec ~status",
    _AUTHN + "TokenRequestSpec": "audiences - boundObjectRef expirationSeconds*",
    _AUTHN + "BoundObjectReference": "kind apiVersion name uid",
    _AUTHN + "TokenReview": "metadata spec ~status",
    _AUTHN + "TokenReviewSpec": "token audiences",
    _CORE + "ResourceQuota": "metadata spec ~status",
    _CORE + "ResourceQuotaSpec": "hard scopes scopeSelector",
    _CORE + "ScopeSelector": "matchExpressions",
    _CORE + "ScopedResourceSelectorRequirement": "scopeName operator values",
    _SCHEDULING + "PriorityClass": "metadata value globalDefault description preemptionPolicy*",
    **{s + "HorizontalPodAutoscaler": "metadata spec ~status" for s in (_SCALE1, _SCALE2)},
    **{s + "CrossVersionObjectReference": "kind name apiVersion" for s in (_SCALE1, _SCALE2)},
    _SCALE1 + "HorizontalPodAutoscalerSpec": "scaleTargetRef minReplicas* maxReplicas targetCPUUtilizationPercentage*",
    _SCALE2 + "HorizontalPodAutoscalerSpec": "scaleTargetRef minReplicas* maxReplicas metrics",
    _SCALE2 + "MetricSpec": "type - - resource",
    _SCALE2 + "ResourceMetricSource": "name target",
    _SCALE2 + "MetricTarget": "type value* averageValue* averageUtilization*",
    typed.META
    + "ObjectMeta": "name generateName namespace ~selfLink uid resourceVersion ~generation ~creationTimestamp - - labels "
    "annotations ownerReferences finalizers - - ~managedFields",
    typed.META + "OwnerReference": "kind - name uid apiVersion controller* blockOwnerDeletion*",
    typed.META + "LabelSelector": "matchLabels matchExpressions",
    typed.META + "LabelSelectorRequirement": "key operator values",
    typed.META + "DeleteOptions": "gracePeriodSeconds* preconditions orphanDependents* propagationPolicy* dryRun",
    typed.META + "Preconditions": "uid* resourceVersion*",
}
_TABLE = {name: dict(enumerate(words.split(), 1)) for name, words in _FIELDS.items()}
_KINDS = {
    ("v1", "Namespace"): _CORE + "Namespace",
    ("v1", "ConfigMap"): _CORE + "ConfigMap",
    ("v1", "Secret"): _CORE + "Secret",
    ("v1", "ServiceAccount"): _CORE + "ServiceAccount",
    ("v1", "Service"): _CORE + "Service",
    ("apps/v1", "Deployment"): _APPS + "Deployment",
    ("batch/v1", "Job"): _BATCH + "Job",
    ("batch/v1", "CronJob"): _BATCH + "CronJob",
    ("batch/v1", "DeleteOptions"): typed.META + "DeleteOptions",
    ("autoscaling/v1", "HorizontalPodAutoscaler"): _SCALE1 + "HorizontalPodAutoscaler",
    ("autoscaling/v2", "HorizontalPodAutoscaler"): _SCALE2 + "HorizontalPodAutoscaler",
    ("policy/v1", "Eviction"): _POLICY + "Eviction",
    ("policy/v1", "PodDisruptionBudget"): _POLICY + "PodDisruptionBudget",
    **{
        ("rbac.authorization.k8s.io/v1", kind): _RBAC + kind
        for kind in ("Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding")
    },
    **{("authorization.k8s.io/v1", kind): _AUTHZ + kind for kind in _REVIEWS},
    **{("authentication.k8s.io/v1", k): _AUTHN + k for k in ("SelfSubjectReview", "TokenRequest", "TokenReview")},
    ("v1", "ResourceQuota"): _CORE + "ResourceQuota",
    ("scheduling.k8s.io/v1", "PriorityClass"): _SCHEDULING + "PriorityClass",
    ("scheduling.k8s.io/v1", "DeleteOptions"): typed.META + "DeleteOptions",
    ("rbac.authorization.k8s.io/v1", "DeleteOptions"): typed.META + "DeleteOptions",
    ("v1", "DeleteOptions"): typed.META + "DeleteOptions",
    ("policy/v1", "DeleteOptions"): typed.META + "DeleteOptions",
    ("apps/v1", "DeleteOptions"): typed.META + "DeleteOptions",
}


class _Malformed(ValueError):
    """Not protobuf, or not of these types."""


def decode(data: bytes) -> Any:
    """The object as JSON would have it; raises StatusError 400 for what is malformed, 415 for what is not in the table."""
    if not data.startswith(MAGIC):
        raise errors.bad_request("a protobuf body begins with k8s and a zero byte")
    try:
        envelope = dict(_fields(data[len(MAGIC) :]))
        head = {number: _text(value) for number, value in _fields(_bytes(envelope.get(1, b"")))}
        api_version, kind = head.get(1, ""), head.get(2, "")
        name = _KINDS.get((api_version, kind))
        if name is None:
            raise _refused(f"{api_version} {kind}"[:120])
        return {"apiVersion": api_version, "kind": kind, **_message(_bytes(envelope.get(2, b"")), name, 0)}
    except (_Malformed, ValueError) as e:
        raise errors.bad_request(f"the body is not well-formed protobuf: {e}") from e


def _refused(what: str) -> errors.StatusError:
    return errors.unsupported_media_type((f"application/json, application/yaml (not {MEDIA_TYPE} of {what})",))


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for i in range(VARINT_BYTES_MAX):
        if at + i >= len(data):
            raise _Malformed("it ends in a number")
        byte = data[at + i]
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, at + i + 1
    raise _Malformed("a number is too long")


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value): a number for wire type 0, bytes for wire type 2; Kubernetes uses no other in these kinds."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        if tag & 7 == 0:
            value, at = _varint(data, at)
            yield tag >> 3, value
        elif tag & 7 == 2:
            size, at = _varint(data, at)
            if size > len(data) - at:
                raise _Malformed("it ends in a field")
            yield tag >> 3, data[at : at + size]
            at += size
        else:
            raise _Malformed(f"wire type {tag & 7}")


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise _Malformed("a number where a message is needed")
    return value


def _text(value: int | bytes) -> str:
    return _bytes(value).decode()  # UnicodeDecodeError is a ValueError


def _message(data: bytes, name: str, depth: int) -> dict[str, Any]:
    if depth > DEPTH_MAX:
        raise _Malformed(f"nested deeper than {DEPTH_MAX}")
    out: dict[str, Any] = {}
    properties = typed.types().definitions[name]["properties"]
    for number, value in _fields(data):
        word = _TABLE[name].get(number, "-")
        if word == "-":
            raise _refused(f"{name.rsplit('.', 1)[-1]} with field {number}")
        if word.startswith("~"):
            continue
        field = word.rstrip("*")
        node = properties[field]
        if node.get("type") == "array":
            out.setdefault(field, []).append(_value(value, node["items"], depth))
        elif "additionalProperties" in node:
            entry = dict(_fields(_bytes(value)))
            key = _text(entry.get(1, b""))
            out.setdefault(field, {})[key] = _value(entry.get(2, b""), node["additionalProperties"], depth)
        else:
            decoded = _value(value, node, depth)
            if word.endswith("*") or decoded not in ("", 0, False):
                out[field] = decoded
    return out


def _value(value: int | bytes, node: dict[str, Any], depth: int) -> Any:
    if "$ref" in node:
        if node["$ref"] not in _TABLE:
            raise _refused(node["$ref"].rsplit(".", 1)[-1])
        return _message(_bytes(value), node["$ref"], depth + 1)
    if node.get("x-kubernetes-int-or-string"):
        parts = dict(_fields(_bytes(value)))
        return _text(parts.get(3, b"")) if parts.get(1) else _signed(parts.get(2, 0))
    kind = node.get("type")
    if kind in ("integer", "boolean"):
        return bool(value) if kind == "boolean" else _signed(value)
    if node.get("format") == "byte":
        return base64.b64encode(_bytes(value)).decode()
    if node.get("format") == "quantity":
        return _text(dict(_fields(_bytes(value))).get(1, b""))
    if node.get("format") == "date-time":
        seconds = dict(_fields(_bytes(value))).get(1, 0)
        return times.of_micros(_signed(seconds) * 1_000_000)
    if kind != "string":
        raise _refused(str(kind))
    return _text(value)


def _signed(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise _Malformed("a message where a number is needed")
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value
