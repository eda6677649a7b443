"""Limit ranges: what containers ask and may use when they say nothing, and how little and how much anything may ask.

Source: Kubernetes documentation, "Limit Ranges"; kube-apiserver's plugin/pkg/admission/limitranger (the words).
"""

from __future__ import annotations

from fractions import Fraction

from bus.kube import errors, quantity
from bus.kube.admission import usage
from bus.kube.admission.base import Plugin
from bus.kube.admission.usage import Kind, Usage
from bus.kube.kinds.base import at
from bus.kube.storage import Object, Reader, Stored
from bus.kube.targets import Target, Write

LIMITS: Kind = ("", "limitranges")
ANNOTATION = "kubernetes.io/limit-ranger"


class LimitRanger(Plugin):
    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def _items(self, target: Target) -> list[Object]:
        ranges = self._reader.list(*LIMITS, target.namespace)
        return [i for r in ranges for i in at(r.object, "spec", "limits") or []]

    async def fill(self, target: Target, obj: Object, how: Write) -> None:
        if (target.resource.group, target.resource.resource) != usage.PODS:
            return
        items = [i for i in self._items(target) if i.get("type") == "Container"]
        said = []
        for field, what in (("containers", "container"), ("initContainers", "init container")):
            for container in obj["spec"].get(field) or []:
                said += _defaults(container, items, what)
        if said:
            notes = obj["metadata"].setdefault("annotations", {})
            notes[ANNOTATION] = "LimitRanger plugin set: " + "; ".join(said)

    async def admit(self, target: Target, obj: Object, how: Write) -> None:
        self._check(target, obj)

    async def admit_update(self, target: Target, new: Object, old: Stored, how: Write) -> None:
        claims = (target.resource.group, target.resource.resource) == usage.CLAIMS
        if claims or target.subresource == "resize":
            self._check(target, new)

    def _check(self, target: Target, obj: Object) -> None:
        kind = (target.resource.group, target.resource.resource)
        if kind not in (usage.PODS, usage.CLAIMS):
            return
        wrong: list[str] = []
        for item in self._items(target):
            wrong += _problems(item, kind, obj)
        if wrong:
            why = wrong[0] if len(wrong) == 1 else f"[{', '.join(wrong)}]"
            raise errors.forbidden(*kind, obj["metadata"].get("name", ""), why)


def _defaults(container: Object, items: list[Object], what: str) -> list[str]:
    """Fills one container in; what was filled, in the words of the annotation."""
    said = []
    for field, source in (("requests", "defaultRequest"), ("limits", "default")):
        names = []
        for item in items:
            for name, text in sorted((item.get(source) or {}).items()):
                given = container.setdefault("resources", {}).setdefault(field, {})
                if name not in given:
                    given[name] = text
                    names.append(name)
        if names:
            said.append(f"{', '.join(names)} {field[:-1]} for {what} {container.get('name', '')}")
    return said


def _problems(item: Object, kind: Kind, obj: Object) -> list[str]:
    kind_of, spec = item.get("type"), obj.get("spec") or {}
    if kind == usage.CLAIMS:
        if kind_of != "PersistentVolumeClaim":
            return []
        asked = usage.amounts(at(spec, "resources", "requests"))
        out = []
        for name, text in sorted((item.get("min") or {}).items()):
            out += _least(name, text, kind_of, asked, {})
        for name, text in sorted((item.get("max") or {}).items()):
            out += _most_asked(name, text, kind_of, asked)
        return out
    if kind_of == "Container":
        every = [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]
        sides = [(usage.amounts(at(c, "resources", "requests")), usage.amounts(at(c, "resources", "limits"))) for c in every]
    elif kind_of == "Pod":
        sides = [(usage.of_containers(spec, "requests"), usage.of_containers(spec, "limits"))]
    else:
        return []
    out = []
    for asked, limit in sides:
        for name, text in sorted((item.get("min") or {}).items()):
            out += _least(name, text, kind_of, asked, limit)
        for name, text in sorted((item.get("max") or {}).items()):
            out += _most(name, text, kind_of, asked, limit)
        for name, text in sorted((item.get("maxLimitRequestRatio") or {}).items()):
            out += _ratio(name, text, kind_of, asked, limit)
    return out


def _least(name: str, text: str, kind: str, asked: Usage, limit: Usage) -> list[str]:
    least, said = quantity.amount(text), f"minimum {name} usage per {kind} is {text}"
    if name not in asked:
        return [f"{said}.  No request is specified"]
    if asked[name].value < least.value:
        return [f"{said}, but request is {asked[name]}"]
    if name in limit and limit[name].value < least.value:
        return [f"{said}, but limit is {limit[name]}"]
    return []


def _most(name: str, text: str, kind: str, asked: Usage, limit: Usage) -> list[str]:
    most, said = quantity.amount(text), f"maximum {name} usage per {kind} is {text}"
    if name not in limit:
        return [f"{said}.  No limit is specified"]
    if limit[name].value > most.value:
        return [f"{said}, but limit is {limit[name]}"]
    if name in asked and asked[name].value > most.value:
        return [f"{said}, but request is {asked[name]}"]
    return []


def _most_asked(name: str, text: str, kind: str, asked: Usage) -> list[str]:
    most, said = quantity.amount(text), f"maximum {name} usage per {kind} is {text}"
    if name not in asked:
        return [f"{said}.  No request is specified"]
    return [f"{said}, but request is {asked[name]}"] if asked[name].value > most.value else []


def _ratio(name: str, text: str, kind: str, asked: Usage, limit: Usage) -> list[str]:
    said = f"{name} max limit to request ratio per {kind} is {text}"
    if name not in asked or not asked[name].value:
        return [f"{said}, but no request is specified or request is 0"]
    if name not in limit or not limit[name].value:
        return [f"{said}, but no limit is specified or limit is 0"]
    ratio: Fraction = limit[name].value / asked[name].value
    return [f"{said}, but provided ratio is {float(ratio):f}"] if ratio > quantity.parse(text) else []
