"""How long a pod stays on a node that is not ready or can't be reached, when it says nothing: five minutes.

On an edge node that counts only from the moment at which somebody has put down that its pods may be moved (annotation
``skerry.io/autonomy``): until then there is no such taint, and nothing to tolerate.
Source: Kubernetes documentation, "Taints and Tolerations", taint based evictions; admission plugin DefaultTolerationSeconds.
"""

from __future__ import annotations

from bus.kube.admission.base import Plugin
from bus.kube.admission.usage import PODS
from bus.kube.storage import Object
from bus.kube.targets import Target, Write

SECONDS = 300
TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


class DefaultTolerations(Plugin):
    async def fill(self, target: Target, obj: Object, how: Write) -> None:
        if (target.resource.group, target.resource.resource) != PODS:
            return
        given: list[Object] = obj["spec"].get("tolerations") or []
        added = [
            {"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS}
            for taint in TAINTS
            if not any(t.get("key") in (taint, "", None) and t.get("effect") in ("NoExecute", "", None) for t in given)
        ]
        if added:
            obj["spec"]["tolerations"] = [*given, *added]
