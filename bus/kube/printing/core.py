"""Rows of the built-in kinds other than pods (kubernetes pkg/printers/internalversion)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bus.kube.kinds.base import at
from bus.kube.printing import admission, batch, budgets, network, networking, policies, rbac, storage, text
from bus.kube.printing.cells import AGE, NAME, Cell, Look
from bus.kube.storage import Object

ROLE_PREFIX = "node-role.kubernetes.io/"


def _path(*path: str, otherwise: Any = "") -> Any:
    def value(obj: Object, _: Look) -> Any:
        found = at(obj, *path)
        return otherwise if found in (None, "") else found

    return value


# --- nodes ---------------------------------------------------------------------------------------------------------


def _node_status(node: Object, _: Look) -> str:
    condition = next((c for c in at(node, "status", "conditions") or [] if c.get("type") == "Ready"), None)
    words = ["Unknown" if condition is None else "Ready" if condition.get("status") == "True" else "NotReady"]
    if at(node, "spec", "unschedulable"):
        words.append("SchedulingDisabled")
    return ",".join(words)


def _roles(node: Object, _: Look) -> str:
    labels = node["metadata"].get("labels") or {}
    roles = {k.removeprefix(ROLE_PREFIX) for k in labels if k.startswith(ROLE_PREFIX)} - {""}
    if labels.get("kubernetes.io/role"):
        roles.add(labels["kubernetes.io/role"])
    return ",".join(sorted(roles)) or text.NONE


def _address(kind: str) -> Any:
    def value(node: Object, _: Look) -> str:
        listed = at(node, "status", "addresses") or []
        return next((str(a.get("address")) for a in listed if a.get("type") == kind), text.NONE)

    return value


def _node_info(field: str) -> Any:
    return _path("status", "nodeInfo", field, otherwise=text.UNKNOWN)


NODES = (
    NAME,
    Cell("Status", _node_status),
    Cell("Roles", _roles),
    AGE,
    Cell("Version", _path("status", "nodeInfo", "kubeletVersion")),
    Cell("Internal-IP", _address("InternalIP"), priority=1),
    Cell("External-IP", _address("ExternalIP"), priority=1),
    Cell("OS-Image", _node_info("osImage"), priority=1),
    Cell("Kernel-Version", _node_info("kernelVersion"), priority=1),
    Cell("Container-Runtime", _node_info("containerRuntimeVersion"), priority=1),
)

# --- workloads -----------------------------------------------------------------------------------------------------


def _containers(field: str) -> Any:
    return lambda o, _: text.joined(c.get(field, "") for c in at(o, "spec", "template", "spec", "containers") or [])


_TEMPLATE = (
    Cell("Containers", _containers("name"), priority=1),
    Cell("Images", _containers("image"), priority=1),
    Cell("Selector", lambda o, _: text.selector(at(o, "spec", "selector")), priority=1),
)
DEPLOYMENTS = (
    NAME,
    Cell("Ready", lambda o, _: f"{at(o, 'status', 'readyReplicas') or 0}/{at(o, 'spec', 'replicas') or 0}"),
    Cell("Up-to-date", _path("status", "updatedReplicas", otherwise=0), "integer"),
    Cell("Available", _path("status", "availableReplicas", otherwise=0), "integer"),
    AGE,
    *_TEMPLATE,
)
REPLICASETS = (
    NAME,
    Cell("Desired", _path("spec", "replicas", otherwise=0), "integer"),
    Cell("Current", _path("status", "replicas", otherwise=0), "integer"),
    Cell("Ready", _path("status", "readyReplicas", otherwise=0), "integer"),
    AGE,
    *_TEMPLATE,
)

DAEMONSETS = (
    NAME,
    Cell("Desired", _path("status", "desiredNumberScheduled", otherwise=0), "integer"),
    Cell("Current", _path("status", "currentNumberScheduled", otherwise=0), "integer"),
    Cell("Ready", _path("status", "numberReady", otherwise=0), "integer"),
    Cell("Up-to-date", _path("status", "updatedNumberScheduled", otherwise=0), "integer"),
    Cell("Available", _path("status", "numberAvailable", otherwise=0), "integer"),
    Cell("Node Selector", lambda o, _: text.labels(at(o, "spec", "template", "spec", "nodeSelector"))),
    AGE,
    *_TEMPLATE,
)


def _controller(revision: Object, _: Look) -> str:
    owner = next((o for o in revision["metadata"].get("ownerReferences") or [] if o.get("controller")), None)
    if owner is None:
        return text.NONE
    group = str(owner.get("apiVersion")).partition("/")[0]
    return f"{str(owner.get('kind')).lower()}.{group}/{owner.get('name')}"


REVISIONS = (NAME, Cell("Controller", _controller), Cell("Revision", _path("revision", otherwise=0)), AGE)

# --- services ------------------------------------------------------------------------------------------------------


def _external(service: Object, _: Look) -> str:
    spec = service.get("spec", {})
    if spec.get("type") == "ExternalName":
        return spec.get("externalName") or text.NONE
    given = list(spec.get("externalIPs") or [])
    ingress = at(service, "status", "loadBalancer", "ingress") or []
    given += [i.get("ip") or i.get("hostname") or "" for i in ingress]
    return text.joined(given) or ("<pending>" if spec.get("type") == "LoadBalancer" else text.NONE)


def _ports(service: Object, _: Look) -> str:
    said = []
    for port in at(service, "spec", "ports") or []:
        number = f"{port.get('port')}:{port['nodePort']}" if port.get("nodePort") else str(port.get("port"))
        said.append(f"{number}/{port.get('protocol', 'TCP')}")
    return text.joined(said) or text.NONE


SERVICES = (
    NAME,
    Cell("Type", _path("spec", "type")),
    Cell("Cluster-IP", _path("spec", "clusterIP", otherwise=text.NONE)),
    Cell("External-IP", _external),
    Cell("Port(s)", _ports),
    AGE,
    Cell("Selector", lambda o, _: text.labels(at(o, "spec", "selector")), priority=1),
)

# --- events --------------------------------------------------------------------------------------------------------


def _seen(*fields: str) -> Any:
    def value(event: Object, look: Look) -> str:
        times = [event.get(f) for f in fields]
        return text.age(next((t for t in times if t), None), look.now_us)

    return value


def _about(event: Object, _: Look) -> str:
    about = event.get("involvedObject") or event.get("regarding") or {}
    return f"{str(about.get('kind', '')).lower()}/{about.get('name', '')}"


def _source(event: Object, _: Look) -> str:
    source = event.get("source") or event.get("deprecatedSource") or {}
    who = source.get("component") or event.get("reportingComponent") or event.get("reportingController") or ""
    return ", ".join(p for p in (who, source.get("host") or "") if p)


def _count(event: Object, _: Look) -> int:
    return at(event, "series", "count") or event.get("count") or event.get("deprecatedCount") or 1


EVENTS = (
    Cell("Last Seen", _seen("lastTimestamp", "deprecatedLastTimestamp", "eventTime", "firstTimestamp")),
    Cell("Type", _path("type")),
    Cell("Reason", _path("reason")),
    Cell("Object", _about),
    Cell(
        "Subobject", lambda o, _: at(o, "involvedObject", "fieldPath") or at(o, "regarding", "fieldPath") or "", priority=1
    ),
    Cell("Source", _source, priority=1),
    Cell("Message", lambda o, _: str(o.get("message") or o.get("note") or "").strip()),
    Cell("First Seen", _seen("firstTimestamp", "deprecatedFirstTimestamp", "eventTime"), priority=1),
    Cell("Count", _count, priority=1),
    Cell("Name", lambda o, _: o["metadata"]["name"], format="name", priority=1),
)


def _keys(*fields: str) -> Cell:
    return Cell("Data", lambda o, _: sum(len(o.get(f) or {}) for f in fields))


COLUMNS: dict[tuple[str, str], Sequence[Cell]] = {
    ("", "nodes"): NODES,
    ("", "namespaces"): (NAME, Cell("Status", _path("status", "phase")), AGE),
    ("", "configmaps"): (NAME, _keys("data", "binaryData"), AGE),
    ("", "secrets"): (NAME, Cell("Type", _path("type")), _keys("data"), AGE),
    ("", "services"): SERVICES,
    ("", "events"): EVENTS,
    ("events.k8s.io", "events"): EVENTS,
    ("apps", "deployments"): DEPLOYMENTS,
    ("apps", "replicasets"): REPLICASETS,
    ("apps", "daemonsets"): DAEMONSETS,
    ("apps", "statefulsets"): (NAME, DEPLOYMENTS[1], AGE, *_TEMPLATE[:2]),
    ("apps", "controllerrevisions"): REVISIONS,
    **batch.COLUMNS,
    **network.COLUMNS,
    **networking.COLUMNS,
    **storage.COLUMNS,
    **budgets.COLUMNS,
    **rbac.COLUMNS,
    **policies.COLUMNS,
    **admission.COLUMNS,
    ("", "serviceaccounts"): (NAME, Cell("Secrets", lambda o, _: len(o.get("secrets") or []), "integer"), AGE),
    ("coordination.k8s.io", "leases"): (NAME, Cell("Holder", _path("spec", "holderIdentity")), AGE),
    ("apiextensions.k8s.io", "customresourcedefinitions"): (
        NAME,
        Cell("Created At", lambda o, _: o["metadata"].get("creationTimestamp"), "date"),
    ),
}
