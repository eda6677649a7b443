"""What is invalid in how a pod asks to be placed: affinities, tolerations, spread (pkg/apis/core/validation)."""

from __future__ import annotations

from bus.kube import errors, names
from bus.kube.errors import Cause
from bus.kube.kinds import checks
from bus.kube.storage import Object

EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
REQUIRED, PREFERRED = (
    "requiredDuringSchedulingIgnoredDuringExecution",
    "preferredDuringSchedulingIgnoredDuringExecution",
)
_NO_SELECTOR = "must not be specified when labelSelector is not set"
_BOTH = "exists in both matchLabelKeys and labelSelector"


def affinity(given: Object | None, path: str) -> list[Cause]:
    given = given or {}
    out = _node_affinity(given.get("nodeAffinity") or {}, f"{path}.nodeAffinity")
    for field in ("podAffinity", "podAntiAffinity"):
        one, at = given.get(field) or {}, f"{path}.{field}"
        for i, term in enumerate(one.get(REQUIRED) or []):
            out += _pod_term(term, f"{at}.{REQUIRED}[{i}]")
        for i, weighted in enumerate(one.get(PREFERRED) or []):
            out += _weight(weighted, f"{at}.{PREFERRED}[{i}]")
            out += _pod_term(weighted.get("podAffinityTerm") or {}, f"{at}.{PREFERRED}[{i}].podAffinityTerm")
    return out


def _weight(term: Object, path: str) -> list[Cause]:
    weight = term.get("weight", 0)
    return [] if 1 <= weight <= 100 else [errors.bad_value(f"{path}.weight", weight, "must be in the range 1-100")]


def _node_affinity(given: Object, path: str) -> list[Cause]:
    out: list[Cause] = []
    if given.get(REQUIRED) is not None:
        out += node_selector(given[REQUIRED], f"{path}.{REQUIRED}")
    for i, term in enumerate(given.get(PREFERRED) or []):
        out += _weight(term, f"{path}.{PREFERRED}[{i}]")
        out += _term(term.get("preference") or {}, f"{path}.{PREFERRED}[{i}].preference", any_value=True)
    return out


def node_selector(selector: Object, path: str) -> list[Cause]:
    terms, at = selector.get("nodeSelectorTerms") or [], f"{path}.nodeSelectorTerms"
    if not terms:
        return [errors.required(at, "must have at least one node selector term")]
    return [c for i, term in enumerate(terms) for c in _term(term, f"{at}[{i}]", any_value=False)]


def _term(term: Object, path: str, *, any_value: bool) -> list[Cause]:
    out: list[Cause] = []
    for i, item in enumerate(term.get("matchExpressions") or []):
        out += _expression(item, f"{path}.matchExpressions[{i}]", any_value=any_value)
    for i, item in enumerate(term.get("matchFields") or []):
        out += _field(item, f"{path}.matchFields[{i}]")
    return out


def _expression(item: Object, path: str, *, any_value: bool) -> list[Cause]:
    operator, values, at, out = item.get("operator") or "", item.get("values") or [], f"{path}.values", []
    if operator in ("In", "NotIn"):
        if not values:
            out.append(errors.required(at, "must be specified when `operator` is 'In' or 'NotIn'"))
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            out.append(errors.not_permitted(at, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"))
    elif operator in ("Gt", "Lt"):
        if len(values) != 1:
            out.append(errors.required(at, "must be specified single value when `operator` is 'Lt' or 'Gt'"))
    else:
        out.append(errors.bad_value(f"{path}.operator", operator, "not a valid selector operator"))
    out += checks.text(f"{path}.key", item.get("key") or "", names.label_key)
    for i, value in enumerate([] if any_value else values):
        out += checks.text(f"{at}[{i}]", value, names.label_value)
    return out


def _field(item: Object, path: str) -> list[Cause]:
    operator, values, out = item.get("operator") or "", item.get("values") or [], []
    if operator not in ("In", "NotIn"):
        out.append(errors.bad_value(f"{path}.operator", operator, "not a valid selector operator"))
    elif len(values) != 1:
        why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
        out.append(errors.required(f"{path}.values", why))
    if item.get("key") != "metadata.name":
        return [*out, errors.bad_value(f"{path}.key", item.get("key") or "", "not a valid field selector key")]
    for i, value in enumerate(values):
        out += checks.text(f"{path}.values[{i}]", value, names.dns_subdomain)
    return out


def _pod_term(term: Object, path: str) -> list[Cause]:
    out = checks.label_selector(f"{path}.labelSelector", term.get("labelSelector"))
    out += checks.label_selector(f"{path}.namespaceSelector", term.get("namespaceSelector"))
    for namespace in term.get("namespaces") or []:
        out += checks.text(f"{path}.namespace", namespace, names.dns_label)
    out += _label_keys(term, path)
    key = term.get("topologyKey") or ""
    if not key:
        out.append(errors.required(f"{path}.topologyKey", "can not be empty"))
    return out + checks.text(f"{path}.topologyKey", key, names.label_key)


def _label_keys(term: Object, path: str) -> list[Cause]:
    """Keys whose values the pod itself gives."""
    selector, out = term.get("labelSelector"), []
    match, other = term.get("matchLabelKeys") or [], term.get("mismatchLabelKeys") or []
    for field, listed in (("matchLabelKeys", match), ("mismatchLabelKeys", other)):
        if listed and selector is None:
            out.append(errors.not_permitted(f"{path}.{field}", _NO_SELECTOR))
            continue
        for i, key in enumerate(listed):
            out += checks.text(f"{path}.{field}[{i}]", key, names.label_key)
    if selector is not None:
        seen = set(selector.get("matchLabels") or {})
        for item in selector.get("matchExpressions") or []:
            key = item.get("key") or ""
            if key in match and key in seen:
                out.append(errors.bad_value(f"{path}[{match.index(key)}]", key, _BOTH))
            seen.add(key)
    for i, key in enumerate(match):
        if key in other:
            why = "exists in both matchLabelKeys and mismatchLabelKeys"
            out.append(errors.bad_value(f"{path}.matchLabelKeys[{i}]", key, why))
    return out


def spread(listed: list[Object], path: str) -> list[Cause]:
    """Topology spread constraints."""
    out: list[Cause] = []
    for i, item in enumerate(listed):
        at, action = f"{path}[{i}]", item.get("whenUnsatisfiable") or ""
        if item.get("maxSkew", 0) <= 0:
            out.append(errors.bad_value(f"{at}.maxSkew", item.get("maxSkew", 0), "must be greater than zero"))
        if not item.get("topologyKey"):
            out.append(errors.required(f"{at}.topologyKey", "can not be empty"))
        out += checks.listed(f"{at}.whenUnsatisfiable", action, ("DoNotSchedule", "ScheduleAnyway"))
        pair = (item.get("topologyKey") or "", action)
        if any((o.get("topologyKey") or "", o.get("whenUnsatisfiable") or "") == pair for o in listed[i + 1 :]):
            out.append(errors.duplicate(f"{at}.{{topologyKey, whenUnsatisfiable}}", f"{{{pair[0]}, {pair[1]}}}"))
        domains = item.get("minDomains")
        if domains is not None:
            if domains <= 0:
                out.append(errors.bad_value(f"{at}.minDomains", domains, "must be greater than zero"))
            if action != "DoNotSchedule":
                why = f"can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"
                out.append(errors.bad_value(f"{at}.minDomains", domains, why))
        for field in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
            if item.get(field) is not None:
                out += checks.listed(f"{at}.{field}", item[field], ("Honor", "Ignore"))
        out += _label_keys({**item, "mismatchLabelKeys": []}, at)
        out += checks.label_selector(f"{at}.labelSelector", item.get("labelSelector"))
    return out


def tolerations(listed: list[Object], path: str) -> list[Cause]:
    out: list[Cause] = []
    for i, item in enumerate(listed):
        at, key = f"{path}[{i}]", item.get("key") or ""
        operator, value, effect = item.get("operator") or "", item.get("value") or "", item.get("effect") or ""
        if key:
            out += checks.text(f"{at}.key", key, names.label_key)
        elif operator != "Exists":
            why = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            out.append(errors.bad_value(f"{at}.operator", operator, why))
        if item.get("tolerationSeconds") is not None and effect != "NoExecute":
            why = "effect must be 'NoExecute' when `tolerationSeconds` is set"
            out.append(errors.bad_value(f"{at}.effect", effect, why))
        if operator in ("", "Equal"):
            out += checks.text(f"{at}.operator", value, names.label_value)
        elif operator == "Exists":
            if value:
                why = "value must be empty when `operator` is 'Exists'"
                out.append(errors.bad_value(f"{at}.operator", value, why))
        elif operator in ("Lt", "Gt"):  # behind a gate that is off
            out.append(errors.not_supported(f"{at}.operator", operator, ("Equal", "Exists", "Lt", "Gt")))
        else:
            out.append(errors.not_supported(f"{at}.operator", operator, ("Equal", "Exists")))
        if effect:
            out += checks.listed(f"{at}.effect", effect, EFFECTS)
    return out
