"""Resource quotas, limit ranges and priority classes (pkg/apis/core, pkg/apis/scheduling: defaults, validation)."""

from __future__ import annotations

import re

from bus.kube import errors, names, quantity
from bus.kube.errors import Cause
from bus.kube.kinds import checks
from bus.kube.kinds.base import Context, Strategy, at, keep
from bus.kube.quantity import QuantityError
from bus.kube.storage import Object

ADMITTED = "quota.skerry.io/admitted"  # admission's own note on a quota (bus/kube/admission/reserved.py)
SCOPES = ("BestEffort", "CrossNamespacePodAffinity", "NotBestEffort", "NotTerminating", "PriorityClass", "Terminating")
HUGE = ("hugepages-", "requests.hugepages-")
OPERATORS = ("DoesNotExist", "Exists", "In", "NotIn")
_POD_NAMES = re.compile(r"(pods|cpu|memory|ephemeral-storage|(requests|limits)\.(cpu|memory|ephemeral-storage))\Z")
_PLAIN = re.compile(
    r"(services(\.loadbalancers|\.nodeports)?|secrets|configmaps|persistentvolumeclaims|resourcequotas|"
    r"replicationcontrollers|requests\.storage)\Z"
)
WHOLE = re.compile(
    r"(pods|services.*|secrets|configmaps|persistentvolumeclaims|resourcequotas|replicationcontrollers|count/.*)\Z"
)


class Quotas(Strategy):
    returns_deleted = True

    def defaults(self, obj: Object, ctx: Context) -> None:
        obj.setdefault("spec", {})

    def prepare_create(self, obj: Object, ctx: Context) -> None:
        obj["status"] = {}
        (obj["metadata"].get("annotations") or {}).pop(ADMITTED, None)

    def prepare_update(self, obj: Object, old: Object, ctx: Context) -> None:
        super().prepare_update(obj, old, ctx)
        _keep_note(obj, old)

    def prepare_status(self, obj: Object, old: Object, ctx: Context) -> None:
        note = at(obj, "metadata", "annotations", ADMITTED)
        super().prepare_status(obj, old, ctx)
        notes = {k: v for k, v in (obj["metadata"].get("annotations") or {}).items() if k != ADMITTED}
        if note is not None:
            notes[ADMITTED] = note
        obj["metadata"] = {**obj["metadata"], "annotations": notes}
        if not notes:
            del obj["metadata"]["annotations"]

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        spec = obj.get("spec") or {}
        hard, out = spec.get("hard") or {}, []
        for name, text in hard.items():
            out += _resource(name, f"spec.hard[{name}]") + _amount(name, text, f"spec.hard[{name}]")
        scopes = list(spec.get("scopes") or [])
        out += [errors.bad_value("spec.scopes", scopes, "unsupported scope") for s in scopes if s not in SCOPES]
        for e in at(spec, "scopeSelector", "matchExpressions") or []:
            out += _expression(e, "spec.scopeSelector.matchExpressions")
            scopes.append(e.get("scopeName"))
        for one, other in (("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")):
            if one in scopes and other in scopes:
                out.append(errors.bad_value("spec.scopes", scopes, "conflicting scopes"))
        for name in hard if scopes else ():
            best = "BestEffort" in scopes
            if not (name in ("pods", "count/pods") if best else _of_pods(name)):
                why = "unsupported scope applied to resource"
                out.append(errors.bad_value("spec.scopes", scopes, why))
                break
        return out

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        out = self.validate(obj, ctx)
        if set(at(obj, "spec", "scopes") or []) != set(at(old, "spec", "scopes") or []):
            out.append(errors.bad_value("spec.scopes", at(obj, "spec", "scopes") or [], "field is immutable"))
        return out


def _keep_note(obj: Object, old: Object) -> None:
    notes, had = obj["metadata"].get("annotations") or {}, at(old, "metadata", "annotations") or {}
    keep(notes, had, ADMITTED)
    obj["metadata"]["annotations"] = notes
    if not notes:
        del obj["metadata"]["annotations"]


def _of_pods(name: str) -> bool:
    return bool(_POD_NAMES.match(name)) or name == "count/pods" or name.startswith(("requests.", "hugepages-"))


def _standard(name: str) -> bool:
    return bool(_POD_NAMES.match(name) or _PLAIN.match(name)) or name == "storage" or name.startswith(HUGE)


def resource_name(name: str, path: str) -> list[Cause]:
    """Of any resource: a standard one, or one with its owner's domain."""
    out = checks.text(path, name, names.label_key)
    if not out and "/" not in name and not _standard(name):
        out.append(errors.bad_value(path, name, "must be a standard resource type or fully qualified"))
    return out


def _resource(name: str, path: str) -> list[Cause]:
    out = resource_name(name, path)
    if "/" not in name and not _standard(name):
        out.append(errors.bad_value(path, name, "must be a standard resource for quota"))
    return out


def _amount(name: str, text: object, path: str) -> list[Cause]:
    try:
        value = quantity.parse(str(text))
    except QuantityError as e:
        return [errors.bad_value(path, text, str(e))]
    if value < 0:
        return [errors.bad_value(path, text, "must be greater than or equal to 0")]
    if WHOLE.match(name) and value.denominator != 1:
        return [errors.bad_value(path, text, "must be an integer")]
    return []


def _expression(e: Object, path: str) -> list[Cause]:
    scope, operator, values = e.get("scopeName"), e.get("operator"), e.get("values") or []
    out = [] if scope in SCOPES else [errors.bad_value(f"{path}.scopeName", scope, "unsupported scope")]
    if operator not in OPERATORS:
        return [*out, errors.not_supported(f"{path}.operator", operator, OPERATORS)]
    if operator in ("In", "NotIn") and not values:
        why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
        out.append(errors.required(f"{path}.values", why))
    if operator in ("Exists", "DoesNotExist") and values:
        why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"
        out.append(errors.bad_value(f"{path}.values", values, why))
    if scope in SCOPES and scope != "PriorityClass" and operator != "Exists":
        why = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, "
        why += "ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"
        out.append(errors.bad_value(f"{path}.operator", operator, why))
    return out


class LimitRanges(Strategy):
    def defaults(self, obj: Object, ctx: Context) -> None:
        """A container's default limit is its largest one, its default request its default limit or its smallest one."""
        spec = obj.setdefault("spec", {})
        spec["limits"] = spec.get("limits") or None  # always told
        for item in spec["limits"] or []:
            if item.get("type") != "Container":
                continue
            for field, sources in (("default", ("max",)), ("defaultRequest", ("default", "min"))):
                for source in sources:
                    for name, text in (item.get(source) or {}).items():
                        item.setdefault(field, {}).setdefault(name, text)

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        out: list[Cause] = []
        seen: set[object] = set()
        for i, item in enumerate(at(obj, "spec", "limits") or []):
            path = f"spec.limits[{i}]"
            out += _limit_type(item.get("type") or "", f"{path}.type")
            if item.get("type") in seen:
                out.append(errors.duplicate(f"{path}.type", item.get("type")))
            seen.add(item.get("type"))
            out += _limits(item, path)
        return out

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        return self.validate(obj, ctx)


def _limits(item: Object, path: str) -> list[Cause]:
    kind, out = item.get("type") or "", []
    given: list[str] = []  # names of resources, in the order in which they come up
    for field in ("max", "min", *(() if kind == "Pod" else ("default", "defaultRequest")), "maxLimitRequestRatio"):
        if field == "maxLimitRequestRatio":
            out += _missing(kind, item, path)
        for name in item.get(field) or {}:
            out += _limited(kind, name, f"{path}.{field}[{name}]")
            given.append(name)
    for name in dict.fromkeys(given):
        out += _compared(item, name, path)
    return out


def _limit_type(kind: str, path: str) -> list[Cause]:
    out = checks.text(path, kind, names.label_key)
    if not out and "/" not in kind and kind not in ("Container", "PersistentVolumeClaim", "Pod"):
        out.append(errors.bad_value(path, kind, "must be a standard limit type or fully qualified"))
    return out


def _missing(kind: str, item: Object, path: str) -> list[Cause]:
    if kind == "Pod":
        why = "may not be specified when `type` is 'Pod'"
        return [errors.not_permitted(f"{path}.{f}", why) for f in ("default", "defaultRequest") if item.get(f)]
    bounds = {**(item.get("min") or {}), **(item.get("max") or {})}
    if kind == "PersistentVolumeClaim" and "storage" not in bounds:
        why = "either minimum or maximum storage value is required, but neither was provided"
        return [errors.required(f"{path}.limits", why)]
    return []


def _limited(kind: str, name: str, path: str) -> list[Cause]:
    out = resource_name(name, path)
    contained = name in ("cpu", "ephemeral-storage", "memory") or name.startswith(HUGE)
    if kind == "Container" and "/" not in name and not contained:
        out.append(errors.bad_value(path, name, "must be a standard resource for containers"))
    return out


def _compared(item: Object, name: str, path: str) -> list[Cause]:
    """The amounts of one resource among each other."""
    text = {f: (item.get(f) or {}).get(name) for f in ("min", "max", "default", "defaultRequest", "maxLimitRequestRatio")}
    value = {f: quantity.parse(t) for f, t in text.items() if t is not None}
    out = []
    # which may not be greater than which; the field that is named, the amount that is shown with it, what both are called
    for small, large, field, shown, words in (
        ("min", "max", "min", "min", ("min", "max")),
        ("min", "defaultRequest", "defaultRequest", "defaultRequest", ("min", "default request")),
        ("defaultRequest", "max", "defaultRequest", "defaultRequest", ("default request", "max")),
        ("defaultRequest", "default", "defaultRequest", "defaultRequest", ("default request", "default limit")),
        ("min", "default", "default", "min", ("min", "default")),
        ("default", "max", "default", "max", ("default", "max")),
    ):
        if small in value and large in value and value[small] > value[large]:
            why = f"{words[0]} value {text[small]} is greater than {words[1]} value {text[large]}"
            out.append(errors.bad_value(f"{path}.{field}[{name}]", text[shown], why))
    if (ratio := value.get("maxLimitRequestRatio")) is None:
        return out
    where, told = f"{path}.maxLimitRequestRatio[{name}]", text["maxLimitRequestRatio"]
    if ratio < 1:
        out.append(errors.bad_value(where, told, f"ratio {told} is less than 1"))
    if value.get("min") and "max" in value and ratio > value["max"] / value["min"]:
        why = f"ratio {told} is greater than max/min = {float(value['max'] / value['min']):f}"
        out.append(errors.bad_value(where, told, why))
    return out


PREEMPTION = ("PreemptLowerPriority", "Never")
USERS_MAX = 1_000_000_000  # of priorities that people give
SYSTEM = {"system-cluster-critical": 2 * USERS_MAX, "system-node-critical": 2 * USERS_MAX + 1000}


class PriorityClasses(Strategy):
    generation = True

    def defaults(self, obj: Object, ctx: Context) -> None:
        obj.setdefault("value", 0)
        obj.setdefault("preemptionPolicy", "PreemptLowerPriority")

    def same_spec(self, obj: Object, old: Object, ctx: Context) -> bool:
        return True

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        name, value, out = obj["metadata"].get("name", ""), obj["value"], []
        if name.startswith("system-"):
            if SYSTEM.get(name) != value or obj.get("globalDefault"):
                why = "priority class names with 'system-' prefix are reserved for system use only. error: "
                why += f"{name} is not a known system priority class"
                out.append(errors.not_permitted("metadata.name", why))
        elif value > USERS_MAX:
            why = f"maximum allowed value of a user defined priority is {USERS_MAX}"
            out.append(errors.not_permitted("value", why))
        return out + checks.one_of("preemptionPolicy", obj["preemptionPolicy"], PREEMPTION)

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        out = []
        if obj.get("value") != old.get("value"):
            out.append(errors.not_permitted("value", "may not be changed in an update."))
        return out + checks.immutable("preemptionPolicy", obj.get("preemptionPolicy"), old.get("preemptionPolicy"))


def system_classes() -> list[Object]:
    about = {
        "system-cluster-critical": "Used for system critical pods that must run in the cluster, but can be moved to another "
        "node if necessary.",
        "system-node-critical": "Used for system critical pods that must not be moved from their current node.",
    }
    return [{"metadata": {"name": n}, "value": v, "description": about[n]} for n, v in SYSTEM.items()]
