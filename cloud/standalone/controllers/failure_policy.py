"""What a job makes of a pod that failed: the first rule of its podFailurePolicy that matches says.

``FailJob`` ends the job at once, ``Ignore`` counts nothing (a node was drained: not the program's fault), ``Count`` is what
happens without a rule.  Source: Kubernetes documentation, "Pod failure policy"; API reference, PodFailurePolicyRule.
"""

from __future__ import annotations

from cloud.standalone.controllers import base
from cloud.standalone.controllers.base import Object, at


def action(job: Object, pod: Object) -> tuple[str, str]:
    """(action, why), the second in kube-controller-manager's words."""
    meta = base.meta(pod)
    about = f"{meta.get('namespace')}/{meta.get('name')}"
    for i, rule in enumerate(base.maps(at(job, "spec", "podFailurePolicy", "rules"))):
        wanted = str(rule.get("action") or "Count")
        tail = f"matching {wanted} rule at index {i}"
        if (found := _exit(rule.get("onExitCodes"), pod)) is not None:
            name, code = found
            return wanted, f"Container {name} for pod {about} failed with exit code {code} {tail}"
        for pattern in base.maps(rule.get("onPodConditions")):
            kind = str(pattern.get("type"))
            said = (base.condition(pod, kind) or {}).get("status")
            if said is not None and said == (pattern.get("status") or "True"):
                return wanted, f"Pod {about} has condition {kind} {tail}"
    return "Count", ""


def _exit(pattern: object, pod: Object) -> tuple[str, int] | None:
    """The container whose exit code is meant."""
    if not isinstance(pattern, dict):
        return None
    only, values = pattern.get("containerName"), pattern.get("values") or []
    statuses = [*base.maps(at(pod, "status", "initContainerStatuses")), *base.maps(at(pod, "status", "containerStatuses"))]
    for status in statuses:
        code = at(status, "state", "terminated", "exitCode")
        if not code or (only and status.get("name") != only):
            continue  # one that ended well is never meant
        if (code in values) == (pattern.get("operator") == "In"):
            return str(status.get("name")), int(code)
    return None
