"""What the runtime class of a pod adds to it: overhead, and the nodes that have the runtime.

Source: Kubernetes documentation, "Runtime Class"; kube-apiserver's plugin/pkg/admission/runtimeclass (the words).
"""

from __future__ import annotations

from bus.kube import errors
from bus.kube.admission.base import Plugin
from bus.kube.admission.usage import PODS
from bus.kube.decoding import clone
from bus.kube.storage import Object, Reader
from bus.kube.targets import Target, Write
from schemas.subjects import ObjectKey

UNLIKE = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"
UNASKED = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"


class RuntimeClasses(Plugin):
    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def fill(self, target: Target, obj: Object, how: Write) -> None:
        if (target.resource.group, target.resource.resource) != PODS:
            return
        spec, pod = obj["spec"], obj["metadata"].get("name", "")
        found = self._class(spec, pod)
        fixed = (found.get("overhead") or {}).get("podFixed")
        if fixed and spec.get("overhead") and spec["overhead"] != fixed:
            raise errors.forbidden("", "pods", pod, UNLIKE)
        if fixed:
            spec["overhead"] = dict(fixed)
        scheduling = clone(found.get("scheduling") or {})
        chosen = dict(spec.get("nodeSelector") or {})
        for key, value in (scheduling.get("nodeSelector") or {}).items():
            if chosen.setdefault(key, value) != value:
                why = (
                    f"conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; "
                    f"pod.spec.nodeSelector[{key}] = {chosen[key]}"
                )
                raise errors.forbidden("", "pods", pod, why)
        if chosen:
            spec["nodeSelector"] = chosen
        given = spec.get("tolerations") or []
        more = [t for t in scheduling.get("tolerations") or [] if t not in given]
        if more:
            spec["tolerations"] = [*given, *more]

    async def admit(self, target: Target, obj: Object, how: Write) -> None:
        if (target.resource.group, target.resource.resource) != PODS or not obj["spec"].get("overhead"):
            return
        pod = obj["metadata"].get("name", "")
        if not (self._class(obj["spec"], pod).get("overhead") or {}).get("podFixed"):
            raise errors.forbidden("", "pods", pod, UNASKED)

    def _class(self, spec: Object, pod: str) -> Object:
        """Empty for a pod that names none.  Raises StatusError 403."""
        name = spec.get("runtimeClassName")
        if name is None:
            return {}
        stored = self._reader.get(ObjectKey("node.k8s.io", "runtimeclasses", "", name))
        if stored is None:
            raise errors.forbidden("", "pods", pod, f"pod rejected: RuntimeClass {errors.show(name)} not found")
        return stored.object
