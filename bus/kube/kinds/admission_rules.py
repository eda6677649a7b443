"""What webhooks and admission policies say alike: which requests they are about, under which conditions, and where a
webhook is.  Source: kubernetes pkg/apis/admissionregistration/validation, apiserver pkg/util/webhook/validation.go.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any
from urllib.parse import urlsplit

from bus.kube import cel_admission, errors, names
from bus.kube.errors import Cause
from bus.kube.kinds import selector_rules
from bus.kube.storage import Object

OPERATIONS = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")
SCOPES = ("*", "Cluster", "Namespaced")
FAILURE_POLICIES = ("Fail", "Ignore")
MATCH_POLICIES = ("Equivalent", "Exact")
CONDITIONS_MAX = 64
_URL_FORM = "; desired format: https://host[/path]"


def default_rules(rules: Any) -> None:
    for rule in rules or []:
        rule.setdefault("scope", "*")


def chosen(value: Any, path: str, allowed: Collection[str]) -> list[Cause]:
    """``value`` is absent or one of ``allowed``."""
    return [] if value is None or value in allowed else [errors.not_supported(path, value, allowed)]


# --- which requests


def rule(r: Object, path: str) -> list[Cause]:
    """Of a RuleWithOperations."""
    operations, out = r.get("operations") or [], []
    if not operations:
        out.append(errors.required(f"{path}.operations"))
    out += _alone(operations, f"{path}.operations", "operations")
    for i, operation in enumerate(operations):
        out += chosen(operation, f"{path}.operations[{i}]", OPERATIONS)
    groups, versions = r.get("apiGroups") or [], r.get("apiVersions") or []
    if not groups:
        out.append(errors.required(f"{path}.apiGroups"))
    out += _alone(groups, f"{path}.apiGroups", "API groups")
    if not versions:
        out.append(errors.required(f"{path}.apiVersions"))
    out += _alone(versions, f"{path}.apiVersions", "API versions")
    out += [errors.required(f"{path}.apiVersions[{i}]") for i, v in enumerate(versions) if not v]
    return out + _resources(r.get("resources") or [], f"{path}.resources") + chosen(r.get("scope"), f"{path}.scope", SCOPES)


def _alone(listed: list[str], path: str, what: str) -> list[Cause]:
    if len(listed) > 1 and "*" in listed:
        return [errors.bad_value(path, listed, f"if '*' is present, must not specify other {what}")]
    return []


def _resources(listed: list[str], path: str) -> list[Cause]:
    out = [] if listed else [errors.required(path)]
    all_of, all_with = set(), set()
    plain = False
    for i, text in enumerate(listed):
        if not text:
            out.append(errors.required(f"{path}[{i}]"))
            continue
        resource, slash, sub = text.partition("/")
        if not slash:
            plain = text != "*"
            continue
        if resource in all_of:
            why = f"if '{resource}/*' is present, must not specify {text}"
            out.append(errors.bad_value(f"{path}[{i}]", text, why))
        if sub in all_with:
            out.append(errors.bad_value(f"{path}[{i}]", text, f"if '*/{sub}' is present, must not specify {text}"))
        if sub == "*":
            all_of.add(resource)
        if resource == "*":
            all_with.add(sub)
    if len(listed) > 1 and "*/*" in listed:
        out.append(errors.bad_value(path, listed, "if '*/*' is present, must not specify other resources"))
    if "*" in listed and plain:
        why = "if '*' is present, must not specify other resources without subresources"
        out.append(errors.bad_value(path, listed, why))
    return out


def default_match(match: Any) -> None:
    """Of MatchResources, in place."""
    if isinstance(match, dict):
        match.setdefault("matchPolicy", "Equivalent")
        match.setdefault("namespaceSelector", {})
        match.setdefault("objectSelector", {})
        default_rules(match.get("resourceRules"))
        default_rules(match.get("excludeResourceRules"))


def match_resources(match: Object | None, path: str) -> list[Cause]:
    if match is None:
        return []
    out = chosen(match.get("matchPolicy"), f"{path}.matchPolicy", MATCH_POLICIES)
    for field in ("namespaceSelector", "objectSelector"):
        out += selector_rules.problems(match.get(field), f"{path}.{field}")
    for field in ("resourceRules", "excludeResourceRules"):
        for i, named in enumerate(match.get(field) or []):
            seen: set[str] = set()
            for j, name in enumerate(named.get("resourceNames") or []):
                at = f"{path}.{field}[{i}].resourceNames[{j}]"
                if problem := names.path_segment(name):
                    out.append(errors.bad_value(at, name, problem))
                if name in seen:
                    out.append(errors.duplicate(at, name))
                seen.add(name)
            out += rule(named, f"{path}.{field}[{i}]")
    return out


# --- under which conditions


def conditions(listed: list[Object], path: str, known: Collection[str]) -> list[Cause]:
    """``known``: the variables that an expression may name."""
    out: list[Cause] = []
    if len(listed) > CONDITIONS_MAX:
        why = f"Too many: {len(listed)}: must have at most {CONDITIONS_MAX} items"
        out.append(Cause(path, "FieldValueTooMany", why))
    seen: set[str] = set()
    for i, condition in enumerate(listed):
        text, name = (condition.get("expression") or "").strip(), condition.get("name") or ""
        if not text:
            out.append(errors.required(f"{path}[{i}].expression"))
        else:
            out += expression(text, f"{path}[{i}].expression", known, cel_admission.BOOL)
        if not name:
            out.append(errors.required(f"{path}[{i}].name"))
        elif problem := names.label_key(name):
            out.append(errors.bad_value(f"{path}[{i}].name", name, problem))
        if name and name in seen:
            out.append(errors.duplicate(f"{path}[{i}].name", name))
        seen.add(name)
    return out


def expression(text: str, path: str, known: Collection[str], kinds: Sequence[str]) -> list[Cause]:
    problem = cel_admission.problem(text, known, kinds)
    return [errors.bad_value(path, text, problem)] if problem else []


# --- where a webhook is


def client_config(config: Object, path: str) -> list[Cause]:
    url, service = config.get("url"), config.get("service")
    if (url is None) == (service is None):
        return [errors.required(path, "exactly one of url or service is required")]
    if url is not None:
        return _url(str(url), f"{path}.url")
    return _service(service or {}, f"{path}.service")


def _url(text: str, path: str) -> list[Cause]:
    try:
        url = urlsplit(text)
        _ = url.port
    except ValueError as e:
        return [errors.required(path, f"url must be a valid URL: parse {errors.show(text)}: {e}{_URL_FORM}")]
    out = []
    if url.scheme != "https":
        out.append(errors.bad_value(path, url.scheme, "'https' is the only allowed URL scheme" + _URL_FORM))
    user, at, host = url.netloc.rpartition("@")
    if not host:
        out.append(errors.bad_value(path, host, "host must be specified" + _URL_FORM))
    if at:
        out.append(errors.bad_value(path, user, "user information is not permitted in the URL"))
    if url.fragment:
        out.append(errors.bad_value(path, url.fragment, "fragments are not permitted in the URL"))
    if url.query:
        out.append(errors.bad_value(path, url.query, "query parameters are not permitted in the URL"))
    return out


def _service(service: Object, path: str) -> list[Cause]:
    out = []
    # The real server takes one for the other here, so that a missing name is reported as a missing namespace.
    if not service.get("namespace"):
        out.append(errors.required(f"{path}.name"))
    if not service.get("name"):
        out.append(errors.required(f"{path}.namespace"))
    port, text = service.get("port", 443), service.get("path")
    if not 1 <= port <= 65535:
        why = "port is not valid: must be between 1 and 65535, inclusive"
        out.append(errors.bad_value(f"{path}.port", port, why))
    return out if text is None else out + _path(text, f"{path}.path")


def _path(text: str, path: str) -> list[Cause]:
    if text in ("", "/"):
        return []
    if text == "//":
        return [errors.bad_value(path, text, "segment[0] may not be empty")]
    out = [] if text.startswith("/") else [errors.bad_value(path, text, "must start with a '/'")]
    for i, step in enumerate(text[1:].removesuffix("/").split("/")):
        if not step:
            out.append(errors.bad_value(path, text, f"segment[{i}] may not be empty"))
        elif problem := names.dns_subdomain(step):
            out.append(errors.bad_value(path, text, f"segment[{i}]: {problem}"))
    return out


def review_versions(versions: list[str], path: str, understood: Collection[str], *, required: bool = True) -> list[Cause]:
    """``required``: one of them must be ``understood`` by us."""
    listed = ", ".join(understood)
    if not versions:
        return [errors.required(path, f"must specify one of {listed}")]
    out, seen = [], set()
    for i, version in enumerate(versions):
        if version in seen:
            out.append(errors.bad_value(f"{path}[{i}]", version, "duplicate version"))
            continue
        seen.add(version)
        if problem := names.dns_label_1035(version):
            out.append(errors.bad_value(f"{path}[{i}]", version, problem))
    if required and not seen & set(understood):
        out.append(errors.bad_value(path, versions, f"must include at least one of {listed}"))
    return out
