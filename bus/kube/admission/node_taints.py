"""A node that somebody registers takes no pods before it says that it is ready (admission plugin TaintNodesByCondition): it
gets the taint with its first breath, and the node lifecycle controller takes it away."""

from __future__ import annotations

from bus.kube.admission.base import Plugin
from bus.kube.storage import Object
from bus.kube.targets import Target, Write

NOT_READY = "node.kubernetes.io/not-ready"


class NodeTaints(Plugin):
    """Our own components register nodes with the taints that they should have."""

    async def fill(self, target: Target, obj: Object, how: Write) -> None:
        if (target.resource.group, target.resource.resource) != ("", "nodes") or how.user is None:
            return
        taints = obj.setdefault("spec", {}).setdefault("taints", [])
        if not any(t.get("key") == NOT_READY and t.get("effect") == "NoSchedule" for t in taints):
            taints.append({"key": NOT_READY, "effect": "NoSchedule"})
