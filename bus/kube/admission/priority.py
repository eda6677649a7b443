"""How important a pod is: the number behind its priority class.

Source: Kubernetes documentation, "Pod Priority and Preemption"; kube-apiserver's plugin/pkg/admission/priority (the words).
"""

from __future__ import annotations

from bus.kube import errors
from bus.kube.admission.base import Plugin
from bus.kube.admission.usage import PODS, Kind
from bus.kube.kinds import policies
from bus.kube.storage import Object, Reader
from bus.kube.targets import Target, Write
from schemas.subjects import ObjectKey

CLASSES: Kind = ("scheduling.k8s.io", "priorityclasses")
LOWER = "PreemptLowerPriority"


class Priority(Plugin):
    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def fill(self, target: Target, obj: Object, how: Write) -> None:
        if (target.resource.group, target.resource.resource) != PODS:
            return
        spec, name = obj["spec"], obj["metadata"].get("name", "")
        found = self._class(spec, name)
        value, policy = (found.get("value", 0), found.get("preemptionPolicy") or LOWER) if found else (0, LOWER)
        rest = "must not be provided in pod spec; priority admission controller computed"
        if spec.get("priority") not in (None, value):
            why = f"the integer value of priority ({spec['priority']}) {rest} {value} from the given PriorityClass name"
            raise errors.forbidden("", "pods", name, why)
        if spec.get("preemptionPolicy") not in (None, policy):
            why = f"the string value of PreemptionPolicy ({spec['preemptionPolicy']}) {rest} {policy}"
            raise errors.forbidden("", "pods", name, f"{why} from the given PriorityClass name")
        spec["priority"], spec["preemptionPolicy"] = value, policy

    def _class(self, spec: Object, pod: str) -> Object | None:
        """The class of a pod, the default one where it names none.  Raises StatusError 403."""
        name = spec.get("priorityClassName") or ""
        if not name:
            found = self._default()
            if found is not None:
                spec["priorityClassName"] = found["metadata"]["name"]
            return found
        stored = self._reader.get(ObjectKey(*CLASSES, "", name))
        if stored is not None:
            return stored.object
        if name in policies.SYSTEM:  # a log that has just begun
            return {"value": policies.SYSTEM[name]}
        raise errors.forbidden("", "pods", pod, f"no PriorityClass with name {name} was found")

    def _default(self) -> Object | None:
        """Of several the one with the lowest value, as the real server has it."""
        found = [s.object for s in self._reader.list(*CLASSES) if s.object.get("globalDefault")]
        return min(found, key=lambda c: int(c.get("value", 0)), default=None)

    async def admit(self, target: Target, obj: Object, how: Write) -> None:
        self._only_one(target, obj)

    def update(self, target: Target, new: Object, old: Object, how: Write) -> None:
        self._only_one(target, new)

    def remove(self, target: Target, old: Object, how: Write) -> None:
        name = old["metadata"].get("name", "")
        if (target.resource.group, target.resource.resource) == CLASSES and name in policies.SYSTEM:
            raise errors.forbidden(*CLASSES, name, "this is a system priority class and cannot be deleted")

    def _only_one(self, target: Target, obj: Object) -> None:
        if (target.resource.group, target.resource.resource) != CLASSES or not obj.get("globalDefault"):
            return
        name, there = obj["metadata"].get("name", ""), self._default()
        if there is not None and there["metadata"]["name"] != name:
            why = f"PriorityClass {there['metadata']['name']} is already marked as default. Only one default can exist"
            raise errors.forbidden(*CLASSES, name, why)
