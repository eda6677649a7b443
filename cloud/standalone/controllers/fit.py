"""Whether a node may and can take a pod; when not, why, in kube-scheduler's words, because people search for them.

Source: Kubernetes documentation, "Assigning Pods to Nodes", "Taints and Tolerations", "Node-pressure and Resources"; the
order of the filters is kube-scheduler's: the first that refuses is the one that is told.
"""

from __future__ import annotations

from cloud.standalone.controllers import base, load, resources, selecting, taints
from cloud.standalone.controllers.base import Object, at
from cloud.standalone.controllers.load import Load, Port
from cloud.standalone.controllers.resources import Amounts


def refusals(pod: Object, asked: Amounts, node: Object, on_it: Load) -> list[str]:
    """Why a node can't take a pod; empty when it can.  ``asked`` is ``resources.requested(pod)``."""
    tolerations = base.maps(at(pod, "spec", "tolerations"))
    if at(node, "spec", "unschedulable") and not taints.tolerated(
        {"key": taints.UNSCHEDULABLE, "effect": "NoSchedule"}, tolerations
    ):
        return ["node(s) were unschedulable"]
    for taint in keeping(node):
        if taint.get("effect") in ("NoSchedule", "NoExecute") and not taints.tolerated(taint, tolerations):
            return [f"node(s) had untolerated taint {{{taint.get('key')}: {taint.get('value') or ''}}}"]
    if not selecting.node_matches(pod, node):
        return ["node(s) didn't match Pod's node affinity/selector"]
    if any(_collide(p, q) for p in load.host_ports(pod) for q in on_it.ports):
        return ["node(s) didn't have free ports for the requested pod ports"]
    return _too_little(asked, node, on_it)


def _too_little(asked: Amounts, node: Object, on_it: Load) -> list[str]:
    has = resources.allocatable(node)
    why = ["Too many pods"] if "pods" in has and 1000 * (len(on_it.pods) + 1) > has["pods"] else []
    short = [name for name, n in sorted(asked.items()) if n and n > has.get(name, 0) - on_it.asked.get(name, 0)]
    return why + [f"Insufficient {name}" for name in short]


def keeping(node: Object) -> list[Object]:
    """A node that isn't ready counts as tainted even before its taint is written."""
    given = taints.of(node)
    marked = any(t.get("key") in (taints.NOT_READY, taints.UNREACHABLE) for t in given)
    return given if ready(node) or marked else [*given, {"key": taints.NOT_READY, "effect": "NoSchedule"}]


def ready(node: Object) -> bool:
    return (base.condition(node, "Ready") or {}).get("status") == "True"


def _collide(a: Port, b: Port) -> bool:
    return a[:2] == b[:2] and (a[2] == b[2] or a[2] in load.ANY_ADDRESS or b[2] in load.ANY_ADDRESS)
