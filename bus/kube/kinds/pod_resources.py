"""What is invalid in what containers and pods ask for (pkg/apis/core/validation, validateResourceRequirements), and what
a pod asks for in all (component-helpers' resource helpers)."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from bus.kube import errors, names, quantity
from bus.kube.errors import Cause
from bus.kube.kinds import checks
from bus.kube.storage import Object

HUGE = "hugepages-"
CONTAINER = ("cpu", "memory", "ephemeral-storage")
POD = ("cpu", "memory")
STANDARD = frozenset(
    {
        *CONTAINER,
        *(f"{kind}.{name}" for kind in ("requests", "limits") for name in CONTAINER),
        *("pods", "resourcequotas", "services", "replicationcontrollers", "secrets", "configmaps"),
        *("persistentvolumeclaims", "requests.storage", "services.nodeports", "services.loadbalancers", "storage"),
    }
)
_NATIVE = "kubernetes.io/"


def native(name: str) -> bool:
    return "/" not in name or _NATIVE in name


def extended(name: str) -> bool:
    if native(name) or name.startswith("requests."):
        return False
    return not names.label_key(f"requests.{name}")


def overcommit(name: str) -> bool:
    """Whether a limit above the request makes sense."""
    return native(name) and not name.startswith(HUGE)


def _name(name: str, path: str, *, pod: bool) -> list[Cause]:
    out = checks.text(path, name, names.label_key)
    plain = "/" not in name
    if not out and plain and name not in STANDARD and not name.startswith((HUGE, f"requests.{HUGE}")):
        out = [errors.bad_value(path, name, "must be a standard resource type or fully qualified")]
    if pod:
        if not out and name not in POD and not name.startswith(HUGE):
            out.append(errors.not_supported(path, name, ("cpu", "hugepages-", "memory")))
        return out
    if plain and name not in CONTAINER and not name.startswith(HUGE):
        out.append(errors.bad_value(path, name, "must be a standard resource for containers"))
    elif not plain and not native(name) and not extended(name):
        out.append(errors.bad_value(path, name, "doesn't follow extended resource name standard"))
    return out


def container_name(name: str, path: str) -> list[Cause]:
    """The name of a resource that a container can ask for."""
    return _name(name, path, pod=False)


def amount(name: str, value: str, path: str) -> list[Cause]:
    number = quantity.parse(value)
    out = checks.amount_not_negative(path, value)
    if extended(name) and number.denominator != 1:
        out.append(errors.bad_value(path, value, "must be an integer"))
    return out


def _huge(name: str, value: str, path: str) -> list[Cause]:
    if not name.startswith(HUGE):
        return []
    number = quantity.parse(value)
    try:
        page = quantity.parse(name.removeprefix(HUGE))
    except quantity.QuantityError:
        page = Fraction(0)
    if page and number > 0 and number % page == 0:
        return []
    return [errors.bad_value(path, value, f"{value} is not positive integer multiple of {name}")]


def requirements(resources: Object, path: str, claims: set[str], *, pod: bool = False) -> list[Cause]:
    """``claims``: names of the pod's resource claims."""
    out: list[Cause] = []
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for field, amounts in (("limits", limits), ("requests", requests)):
        for name, value in amounts.items():
            at = f"{path}.{field}[{name}]"
            out += _name(name, at, pod=pod) + amount(name, value, at)
            if field == "requests":
                out += _against(name, value, limits, path)
            out += _huge(name, value, at)
    named = {*limits, *requests}
    if not named & {"cpu", "memory"} and any(n.startswith(HUGE) for n in named):
        out.append(errors.not_permitted(path, "HugePages require cpu or memory"))
    return out + _claims(resources.get("claims") or [], f"{path}.claims", claims)


def _against(name: str, value: str, limits: Mapping[str, str], path: str) -> list[Cause]:
    """A request against its limit."""
    if name not in limits:
        if overcommit(name):
            return []
        return [errors.required(f"{path}.limits", "Limit must be set for non overcommitable resources")]
    asked, most = quantity.parse(value), quantity.parse(limits[name])
    if asked != most and not overcommit(name):
        return [errors.bad_value(f"{path}.requests", value, f"must be equal to {name} limit of {limits[name]}")]
    if asked > most:
        why = f"must be less than or equal to {name} limit of {limits[name]}"
        return [errors.bad_value(f"{path}.requests", value, why)]
    return []


def _claims(listed: list[Object], path: str, claims: set[str]) -> list[Cause]:
    out: list[Cause] = []
    seen: list[str] = []
    for i, claim in enumerate(listed):
        at, name, request = f"{path}[{i}]", claim.get("name") or "", claim.get("request") or ""
        if not name:
            out.append(errors.required(at))
            continue
        if name in seen:
            out.append(errors.duplicate(at, name))
        else:
            key = f"{name}/{request}" if request else name
            if request:
                out += checks.text(f"{at}.request", request, names.dns_label)
            if key in seen:
                out.append(errors.duplicate(at, key))
            elif not request:
                out += [errors.duplicate(at, name) for other in seen if other.startswith(f"{name}/")]
            seen.append(key)
        if name not in claims:
            known = f": {', '.join(sorted(claims))}" if claims else " which is empty"
            why = "must be one of the names in pod.spec.resourceClaims" + known
            out.append(checks.not_found(at, name, why))
    return out


def pod_level(spec: Object, path: str, claims: set[str]) -> list[Cause]:
    """The resources of a pod as a whole."""
    resources = spec.get("resources")
    if resources is None:
        return []
    if (spec.get("os") or {}).get("name") == "windows":
        return [errors.not_permitted(path, "may not be set for a windows pod")]
    out: list[Cause] = []
    if resources.get("claims"):
        out.append(errors.not_permitted(f"{path}.claims", "claims may not be set for Resources at pod-level"))
    out += requirements(resources, path, claims, pod=True)
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    for field, amounts in (("requests", requests), ("limits", limits)):
        for name, total in sorted(together(spec, field).items()):
            if name not in amounts or (field == "limits" and not name.startswith(HUGE)):
                continue
            if total.value > quantity.parse(amounts[name]):
                why = f"must be greater than or equal to aggregate container {field} of {total}"
                out.append(errors.bad_value(f"{path}.{field}[{name}]", amounts[name], why))
    for i, container in enumerate(spec.get("containers") or []):
        for name, value in ((container.get("resources") or {}).get("limits") or {}).items():
            if name in limits and quantity.parse(value) > quantity.parse(limits[name]):
                why = f"must be less than or equal to pod limits of {limits[name]}"
                out.append(errors.bad_value(f"{path}.containers[{i}][{name}].limits", value, why))
    return out


def together(spec: Object, field: str) -> dict[str, quantity.Amount]:
    """What all containers ask for: those that run together added, each that runs alone before them at most."""
    total: dict[str, quantity.Amount] = {}
    for container in spec.get("containers") or []:
        _add(total, container, field)
    sidecars: dict[str, quantity.Amount] = {}
    most: dict[str, quantity.Amount] = {}
    for container in spec.get("initContainers") or []:
        if container.get("restartPolicy") == "Always":
            _add(total, container, field)
            _add(sidecars, container, field)
            alone = dict(sidecars)
        else:
            alone = dict(sidecars)
            _add(alone, container, field)
        for name, value in alone.items():
            if name not in most or value.value > most[name].value:
                most[name] = value
    for name, value in most.items():
        if name not in total or value.value > total[name].value:
            total[name] = value
    return total


def _add(total: dict[str, quantity.Amount], container: Object, field: str) -> None:
    for name, value in ((container.get("resources") or {}).get(field) or {}).items():
        asked = quantity.amount(value)
        total[name] = total[name].plus(asked) if name in total else asked
