"""Admission webhooks' configurations: defaults and what is invalid (kubernetes pkg/apis/admissionregistration).

An update may keep what was valid once: what the stored configuration had wrong already is not asked for again.
"""

from __future__ import annotations

from bus.kube import cel_admission, errors, names
from bus.kube.errors import Cause
from bus.kube.kinds import admission_rules, selector_rules
from bus.kube.kinds.base import Context, Strategy
from bus.kube.storage import Object

REVIEWS = ("v1", "v1beta1")  # versions of AdmissionReview that are spoken
TIMEOUT_S, TIMEOUT_S_MAX = 10, 30
_QUIET = ("None", "NoneOnDryRun")
_EFFECTS = ("None", "NoneOnDryRun", "Some", "Unknown")
_REINVOCATIONS = ("IfNeeded", "Never")


class Configurations(Strategy):
    unconditional_update = False
    generation = True

    def __init__(self, *, mutating: bool) -> None:
        self._mutating = mutating

    def defaults(self, obj: Object, ctx: Context) -> None:
        for hook in obj.get("webhooks") or []:
            hook.setdefault("failurePolicy", "Fail")
            hook.setdefault("matchPolicy", "Equivalent")
            hook.setdefault("namespaceSelector", {})
            hook.setdefault("objectSelector", {})
            hook.setdefault("timeoutSeconds", TIMEOUT_S)
            if self._mutating:
                hook.setdefault("reinvocationPolicy", "Never")
            admission_rules.default_rules(hook.get("rules"))
            if isinstance(hook.get("clientConfig"), dict) and isinstance(hook["clientConfig"].get("service"), dict):
                hook["clientConfig"]["service"].setdefault("port", 443)

    def same_spec(self, obj: Object, old: Object, ctx: Context) -> bool:
        return obj.get("webhooks") == old.get("webhooks")

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        return self._problems(obj, None)

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        return self._problems(obj, old.get("webhooks") or [])

    def _problems(self, obj: Object, old: list[Object] | None) -> list[Cause]:
        hooks, out = obj.get("webhooks") or [], []
        before = old or []
        quiet = all(h.get("sideEffects") in _QUIET for h in before)
        known = all(set(h.get("admissionReviewVersions") or ()) & set(REVIEWS) for h in before)
        unique = len({h.get("name") for h in before}) == len(before)
        same = old is not None and [h.get("matchConditions") for h in old] == [h.get("matchConditions") for h in hooks]
        seen: set[str] = set()
        for i, hook in enumerate(hooks):
            path, name = f"webhooks[{i}]", hook.get("name") or ""
            out += self._hook(hook, path, quiet=quiet, conditions=not same)
            versions = hook.get("admissionReviewVersions") or []
            out += admission_rules.review_versions(versions, f"{path}.admissionReviewVersions", REVIEWS, required=known)
            if unique and name and name in seen:
                out.append(errors.duplicate(f"{path}.name", name))
            seen.add(name)
        return out

    def _hook(self, hook: Object, path: str, *, quiet: bool, conditions: bool) -> list[Cause]:
        out = _name(hook.get("name") or "", f"{path}.name")
        for i, rule in enumerate(hook.get("rules") or []):
            out += admission_rules.rule(rule, f"{path}.rules[{i}]")
        out += admission_rules.chosen(hook.get("failurePolicy"), f"{path}.failurePolicy", admission_rules.FAILURE_POLICIES)
        out += admission_rules.chosen(hook.get("matchPolicy"), f"{path}.matchPolicy", admission_rules.MATCH_POLICIES)
        effects = _QUIET if quiet else _EFFECTS
        if hook.get("sideEffects") is None:
            out.append(errors.required(f"{path}.sideEffects", f"must specify one of {', '.join(effects)}"))
        out += admission_rules.chosen(hook.get("sideEffects"), f"{path}.sideEffects", effects)
        if not 1 <= hook["timeoutSeconds"] <= TIMEOUT_S_MAX:
            why = f"the timeout value must be between 1 and {TIMEOUT_S_MAX} seconds"
            out.append(errors.bad_value(f"{path}.timeoutSeconds", hook["timeoutSeconds"], why))
        for field in ("namespaceSelector", "objectSelector"):
            out += selector_rules.problems(hook.get(field), f"{path}.{field}")
        if self._mutating:
            out += admission_rules.chosen(hook.get("reinvocationPolicy"), f"{path}.reinvocationPolicy", _REINVOCATIONS)
        out += admission_rules.client_config(hook.get("clientConfig") or {}, f"{path}.clientConfig")
        if conditions:
            listed = hook.get("matchConditions") or []
            out += admission_rules.conditions(listed, f"{path}.matchConditions", cel_admission.VARIABLES)
        return out


def _name(name: str, path: str) -> list[Cause]:
    if not name:
        return [errors.required(path)]
    if problem := names.dns_subdomain(name):
        return [errors.bad_value(path, name, problem)]
    if name.count(".") < 2:
        why = "should be a domain with at least three segments separated by dots"
        return [errors.bad_value(path, name, why)]
    return []
