"""What is invalid in a job's specification, of jobs and of what cron jobs make them from (pkg/apis/batch/validation)."""

from __future__ import annotations

import re

from bus.kube import errors, names
from bus.kube.errors import Cause
from bus.kube.kinds import checks, pod_rules, workloads
from bus.kube.storage import Object

PARALLELISM_MAX = 100_000  # of an indexed job
FAILED_INDEXES_MAX = 100_000
MANY = 100_000  # completions, above which a limit per index needs lower bounds
PARALLELISM_MAX_MANY, FAILED_INDEXES_MAX_MANY = 10_000, 10_000
RULES_MAX, CONDITIONS_MAX, CODES_MAX, SUCCESS_RULES_MAX = 20, 20, 255, 20
INDEXES_BYTES_MAX = 64 * 1024
MANAGER_CHARS_MAX = 63
ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")
STATES = ("False", "True", "Unknown")
_COUNTS = ("parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished")
_INDEXED = "requires indexed completion mode"
_PATH = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+"


def spec(given: Object, path: str) -> list[Cause]:
    """Without its selector."""
    out = workloads.not_negative(given, (*_COUNTS, "backoffLimitPerIndex", "maxFailedIndexes"), path)
    if given.get("maxFailedIndexes") is not None and given.get("backoffLimitPerIndex") is None:
        out.append(errors.required(f"{path}.backoffLimitPerIndex", "when maxFailedIndexes is specified"))
    if given.get("managedBy") is not None:
        out += _manager(given["managedBy"], f"{path}.managedBy")
    out += _indexed(given, path)
    if given.get("podFailurePolicy") is not None:
        out += _failures(given, f"{path}.podFailurePolicy.rules")
    success = given.get("successPolicy")
    if success is not None and given.get("completionMode") != "Indexed":
        rules = [
            {"SucceededIndexes": r.get("succeededIndexes"), "SucceededCount": r.get("succeededCount")}
            for r in success.get("rules") or []
        ]
        out.append(errors.bad_value(f"{path}.successPolicy", errors.Shown(Rules=rules or None), _INDEXED))
    elif success is not None:
        out += _success(given, f"{path}.successPolicy.rules")
    out += _replacement(given, f"{path}.podReplacementPolicy")
    out += pod_rules.template(given["template"], f"{path}.template")
    return out + _restarts(given, f"{path}.template.spec.restartPolicy")


def _manager(name: str, path: str) -> list[Cause]:
    """A path with a domain before it."""
    if not name:
        return [errors.required(path)]
    domain, _, rest = name.partition("/")
    if not domain or not rest:
        out = [errors.bad_value(path, name, 'must be a domain-prefixed path (such as "acme.io/foo")')]
    else:
        out = checks.text(path, domain, names.dns_subdomain)
        if not re.fullmatch(_PATH, rest):
            out.append(errors.bad_value(path, rest, f"Invalid path (regex used for validation is '{_PATH}')"))
    return out + ([checks.too_long(path, MANAGER_CHARS_MAX)] if len(name) > MANAGER_CHARS_MAX else [])


def _indexed(given: Object, path: str) -> list[Cause]:
    mode, parallelism, completions = (given.get(f) for f in ("completionMode", "parallelism", "completions"))
    failed, per_index = given.get("maxFailedIndexes"), given.get("backoffLimitPerIndex")
    out: list[Cause] = []
    if mode is not None:
        out += checks.listed(f"{path}.completionMode", mode, ("NonIndexed", "Indexed"))
    if mode in (None, "NonIndexed"):
        for field in ("backoffLimitPerIndex", "maxFailedIndexes"):
            if given.get(field) is not None:
                out.append(errors.bad_value(f"{path}.{field}", given[field], _INDEXED))
    if mode != "Indexed":
        return out
    if completions is None:
        out.append(errors.required(f"{path}.completions", "when completion mode is Indexed"))
    if parallelism is not None and parallelism > PARALLELISM_MAX:
        why = f"must be less than or equal to {PARALLELISM_MAX} when completion mode is Indexed"
        out.append(errors.bad_value(f"{path}.parallelism", parallelism, why))
    at = f"{path}.maxFailedIndexes"
    if completions is not None and failed is not None and failed > completions:
        out.append(errors.bad_value(at, failed, "must be less than or equal to completions"))
    if failed is not None and failed > FAILED_INDEXES_MAX:
        out.append(errors.bad_value(at, failed, f"must be less than or equal to {FAILED_INDEXES_MAX}"))
    if completions is None or completions <= MANY or per_index is None:
        return out
    if failed is None:
        out.append(errors.required(at, f"must be specified when completions is above {MANY}"))
    above = f"when completions are above {MANY} and used with backoff limit per index"
    for field, value, most in (
        ("parallelism", parallelism, PARALLELISM_MAX_MANY),
        ("maxFailedIndexes", failed, FAILED_INDEXES_MAX_MANY),
    ):
        if value is not None and value > most:
            out.append(errors.bad_value(f"{path}.{field}", value, f"must be less than or equal to {most} {above}"))
    return out


def _quoted(values: tuple[str, ...]) -> str:
    return "valid values: [" + " ".join(f'"{v}"' for v in values) + "]"


def _chosen(path: str, value: str, known: tuple[str, ...]) -> list[Cause]:
    return checks.listed(path, value, known) if value else [errors.required(path, _quoted(known))]


def _failures(given: Object, path: str) -> list[Cause]:
    rules = given["podFailurePolicy"].get("rules") or []
    out = [checks.too_many(path, len(rules), RULES_MAX)] if len(rules) > RULES_MAX else []
    pod = given["template"]["spec"]
    known = {c.get("name") for f in ("containers", "initContainers") for c in pod.get(f) or []}
    for i, rule in enumerate(rules):
        at, action = f"{path}[{i}]", rule.get("action") or ""
        codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions") or []
        if action == "FailIndex":
            if given.get("backoffLimitPerIndex") is None:
                why = "requires the backoffLimitPerIndex to be set"
                out.append(errors.bad_value(f"{at}.action", action, why))
        else:
            out += _chosen(f"{at}.action", action, ACTIONS)
        if codes is not None:
            out += _codes(codes, f"{at}.onExitCodes", known)
        if conditions:
            out += _conditions(conditions, f"{at}.onPodConditions")
        both = "specifying both OnExitCodes and OnPodConditions is not supported"
        neither = "specifying one of OnExitCodes and OnPodConditions is required"
        if (codes is not None) == bool(conditions):
            out.append(_plain(at, both if conditions else neither))
    return out


def _plain(path: str, why: str) -> Cause:
    """A bad value that isn't shown."""
    return Cause(path, "FieldValueInvalid", f"Invalid value: {why}")


def _conditions(listed: list[Object], path: str) -> list[Cause]:
    out = [checks.too_many(path, len(listed), CONDITIONS_MAX)] if len(listed) > CONDITIONS_MAX else []
    for i, item in enumerate(listed):
        out += checks.text(f"{path}[{i}].type", item.get("type") or "", names.label_key)
        out += _chosen(f"{path}[{i}].status", item.get("status") or "", STATES)
    return out


def _codes(codes: Object, path: str, known: set[str | None]) -> list[Cause]:
    out = _chosen(f"{path}.operator", codes.get("operator") or "", ("In", "NotIn"))
    name, values = codes.get("containerName"), codes.get("values") or []
    if name is not None and name not in known:
        why = "must be one of the container or initContainer names in the pod template"
        out.append(errors.bad_value(f"{path}.containerName", name, why))
    at = f"{path}.values"
    if not values:
        out.append(errors.bad_value(at, codes.get("values"), "at least one value is required"))
    elif len(values) > CODES_MAX:
        out.append(checks.too_many(at, len(values), CODES_MAX))
    for i, value in enumerate(values):
        if codes.get("operator") == "In" and value == 0:
            out.append(errors.bad_value(f"{at}[{i}]", value, "must not be 0 for the In operator"))
        if value in values[:i]:
            out.append(errors.duplicate(f"{at}[{i}]", value))
    if values != sorted(values):
        out.append(errors.bad_value(at, values, "must be ordered"))
    return out


def _success(given: Object, path: str) -> list[Cause]:
    rules, completions = given["successPolicy"].get("rules") or [], given.get("completions") or 0
    out: list[Cause] = []
    if not rules:
        why = "at least one rules must be specified when the successPolicy is specified"
        out.append(errors.required(path, why))
    if len(rules) > SUCCESS_RULES_MAX:
        out.append(checks.too_many(path, len(rules), SUCCESS_RULES_MAX))
    for i, rule in enumerate(rules):
        out += _success_rule(rule, f"{path}[{i}]", completions)
    return out


def _success_rule(rule: Object, path: str, completions: int) -> list[Cause]:
    count, indexes, total, out = rule.get("succeededCount"), rule.get("succeededIndexes"), 0, []
    if count is None and indexes is None:
        why = "at least one of succeededCount or succeededIndexes must be specified"
        out.append(errors.required(path, why))
    if indexes is not None:
        at = f"{path}.succeededIndexes"
        if len(indexes) > INDEXES_BYTES_MAX:
            out.append(checks.too_long(at, INDEXES_BYTES_MAX))
        total, why = indexes_in(indexes, completions)
        if why:
            out.append(errors.bad_value(at, indexes, f"error parsing succeededIndexes: {why}"))
    if count is not None:
        at, less = f"{path}.succeededCount", "must be less than or equal to"
        out += checks.not_negative(at, count)
        if count > completions:
            out.append(errors.bad_value(at, count, f"{less} {completions} (the number of specified completions)"))
        if indexes is not None and count > total:
            why = f"{less} {total} (the number of indexes in the specified succeededIndexes field)"
            out.append(errors.bad_value(at, count, why))
    return out


def indexes_in(text: str, completions: int) -> tuple[int, str]:
    """How many indexes ``1,3-5`` names, or what is wrong with it."""
    last, total = -1, 0
    for part in text.split(",") if text else ():
        ends = part.split("-")
        if len(ends) > 2:
            rule = "an index interval can have at most two parts separated by '-'"
            return 0, f"the fragment {errors.show(part)} violates the requirement that {rule}"
        numbers = []
        for end in ends:
            if not re.fullmatch(r"[+]?[0-9]{1,18}", end):
                return 0, f"cannot convert string to integer for index: {errors.show(end)}"
            if int(end) >= completions:
                return 0, f"too large index: {errors.show(end)}"
            numbers.append(int(end))
        first, final = numbers[0], numbers[-1]
        if len(numbers) == 2 and first >= final:
            return 0, f"non-increasing order, previous: {first}, current: {final}"
        if last >= first:
            return 0, f"non-increasing order, previous: {last}, current: {first}"
        total, last = total + final - first + 1, final
    return total, ""


def _replacement(given: Object, path: str) -> list[Cause]:
    policy = given.get("podReplacementPolicy")
    if policy is None:
        return []
    if given.get("podFailurePolicy") is not None:
        return checks.listed(path, policy, ("Failed",))
    return checks.listed(path, policy, ("Failed", "TerminatingOrFailed"))


def _restarts(given: Object, path: str) -> list[Cause]:
    policy = given["template"]["spec"]["restartPolicy"]
    if policy == "Always":
        return [errors.required(path, 'valid values: "OnFailure", "Never"')]
    if policy not in ("OnFailure", "Never"):
        return [errors.not_supported(path, policy, ("OnFailure", "Never"))]
    if given.get("podFailurePolicy") is not None and policy != "Never":
        return [errors.bad_value(path, policy, 'only "Never" is supported when podFailurePolicy is specified')]
    return []
