"""Validating admission policies and their bindings (kubernetes pkg/apis/admissionregistration)."""

from __future__ import annotations

import re

from bus.kube import cel_admission, cel_words, errors, names
from bus.kube.errors import Cause
from bus.kube.kinds import admission_rules, selector_rules
from bus.kube.kinds.base import Context, Strategy
from bus.kube.storage import Object

ACTIONS = ("Audit", "Deny", "Warn")
REASONS = ("Forbidden", "Invalid", "RequestEntityTooLarge")
ANNOTATIONS_MAX = 20
_NONE = "validations or auditAnnotations must contain at least one item"
_IDENTIFIER = re.compile(r"[_a-zA-Z][_a-zA-Z0-9]*\Z")


class Policies(Strategy):
    unconditional_update = False
    generation = True

    def defaults(self, obj: Object, ctx: Context) -> None:
        spec = obj.setdefault("spec", {})
        spec.setdefault("failurePolicy", "Fail")
        admission_rules.default_match(spec.get("matchConstraints"))

    def prepare_create(self, obj: Object, ctx: Context) -> None:
        obj["status"] = {}

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        return self._problems(obj, ctx, conditions=True)

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        before, spec = old.get("spec") or {}, obj["spec"]
        same = all(before.get(f) == spec.get(f) for f in ("paramKind", "matchConditions"))
        return self._problems(obj, ctx, conditions=not same)

    def _problems(self, obj: Object, ctx: Context, *, conditions: bool) -> list[Cause]:
        spec, known = obj["spec"], set(cel_admission.VARIABLES)
        out = admission_rules.chosen(spec.get("failurePolicy"), "spec.failurePolicy", admission_rules.FAILURE_POLICIES)
        if spec.get("paramKind") is not None:
            known.add("params")
            out += _param_kind(spec["paramKind"], "spec.paramKind")
        match = spec.get("matchConstraints")
        if match is None:
            out.append(errors.required("spec.matchConstraints"))
        else:
            out += admission_rules.match_resources(match, "spec.matchConstraints")
            if not match.get("resourceRules"):
                out.append(errors.required("spec.matchConstraints.resourceRules"))
        if conditions:
            listed = spec.get("matchConditions") or []
            out += admission_rules.conditions(listed, "spec.matchConditions", known)
        for i, variable in enumerate(spec.get("variables") or []):
            out += _variable(variable, f"spec.variables[{i}]", known)
            known.add("variables")
        validations, annotations = spec.get("validations") or [], spec.get("auditAnnotations") or []
        if not validations and not annotations:
            return [*out, errors.required("spec.validations", _NONE), errors.required("spec.auditAnnotations", _NONE)]
        for i, validation in enumerate(validations):
            out += _validation(validation, f"spec.validations[{i}]", known)
        if len(annotations) > ANNOTATIONS_MAX:
            why = f"must not have more than {ANNOTATIONS_MAX} auditAnnotations"
            out.append(errors.bad_value("spec.auditAnnotations", annotations, why))
        return out + _annotations(annotations, obj["metadata"].get("name", ""), known)


def _param_kind(kind: Object, path: str) -> list[Cause]:
    text, name, out = kind.get("apiVersion") or "", kind.get("kind") or "", []
    group, slash, version = text.rpartition("/")
    if not text:
        out.append(errors.required(f"{path}.apiVersion"))
    elif text.count("/") > 1:
        out.append(errors.bad_value(f"{path}.apiVersion", text, f"unexpected GroupVersion string: {text}"))
    else:
        if slash and group and (problem := names.dns_subdomain(group)):
            out.append(errors.bad_value(f"{path}.apiVersion", group, problem))
        if not version:
            out.append(errors.bad_value(f"{path}.apiVersion", text, "version must be specified"))
        elif problem := names.dns_label_1035(version):
            out.append(errors.bad_value(f"{path}.apiVersion", version, problem))
    if not name:
        out.append(errors.required(f"{path}.kind"))
    elif problem := names.dns_label_1035(name.lower()):
        why = f"may have mixed case, but should otherwise match: {problem}"
        out.append(errors.bad_value(f"{path}.kind", name, why))
    return out


def _variable(variable: Object, path: str, known: set[str]) -> list[Cause]:
    name, text, out = (variable.get("name") or "").strip(), (variable.get("expression") or "").strip(), []
    if not name:
        out.append(errors.required(f"{path}.name", "name is not specified"))
    elif not _IDENTIFIER.match(name) or name in cel_words.RESERVED:
        out.append(errors.bad_value(f"{path}.name", variable["name"], "must be a valid CEL identifier"))
    if not text:
        out.append(errors.required(f"{path}.expression", "expression is not specified"))
    else:
        out += admission_rules.expression(variable["expression"], f"{path}.expression", known, cel_admission.ANY)
    return out


def _validation(v: Object, path: str, known: set[str]) -> list[Cause]:
    text, message, said = v.get("expression") or "", v.get("message") or "", v.get("messageExpression") or ""
    if not text.strip():
        out = [errors.required(f"{path}.expression", "expression is not specified")]
    else:
        out = admission_rules.expression(text, f"{path}.expression", known, cel_admission.BOOL)
    if said and not said.strip():
        out.append(errors.bad_value(f"{path}.messageExpression", said, "must be non-empty if specified"))
    elif said:
        allowed = known - {"authorizer"}
        out += admission_rules.expression(said, f"{path}.messageExpression", allowed, cel_admission.STRING)
    if message and not message.strip():
        out.append(errors.bad_value(f"{path}.message", message, "must be non-empty if specified"))
    elif re.search(r"[\n\r]", message.strip()):
        out.append(errors.bad_value(f"{path}.message", message, "must not contain line breaks"))
    return out + admission_rules.chosen(v.get("reason"), f"{path}.reason", REASONS)


def _annotations(listed: list[Object], policy: str, known: set[str]) -> list[Cause]:
    out: list[Cause] = []
    seen: set[str] = set()
    for i, annotation in enumerate(listed):
        path, key = f"spec.auditAnnotations[{i}]", annotation.get("key") or ""
        whole = f"{policy}/{key}"
        out += [errors.bad_value(f"{path}.key", whole, p) for p in names.label_key_problems(whole)]
        text = (annotation.get("valueExpression") or "").strip()
        if not text:
            out.append(errors.required(f"{path}.valueExpression", "valueExpression is not specified"))
        else:
            out += admission_rules.expression(text, f"{path}.valueExpression", known, cel_admission.STRING_OR_NULL)
        if key in seen:
            out.append(errors.duplicate(f"{path}.key", key))
        seen.add(key)
    return out


class Bindings(Strategy):
    unconditional_update = False
    generation = True

    def defaults(self, obj: Object, ctx: Context) -> None:
        admission_rules.default_match((obj.get("spec") or {}).get("matchResources"))

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        spec = obj.get("spec") or {}
        name, out = spec.get("policyName") or "", []
        if not name:
            out.append(errors.required("spec.policyName"))
        elif problem := names.dns_subdomain(name):
            out.append(errors.bad_value("spec.policyName", name, problem))
        if spec.get("paramRef") is not None:
            out += _param_ref(spec["paramRef"], "spec.paramRef")
        out += admission_rules.match_resources(spec.get("matchResources"), "spec.matchResources")
        return out + _actions(spec.get("validationActions") or [], "spec.validationActions")

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        return self.validate(obj, ctx)


def _param_ref(ref: Object, path: str) -> list[Cause]:
    name, selector, out = ref.get("name") or "", ref.get("selector"), []
    both = "name and selector are mutually exclusive"
    if name:
        if problem := names.path_segment(name):
            out.append(errors.bad_value(f"{path}.name", name, problem))
        if selector is not None:
            out.append(errors.not_permitted(f"{path}.name", both))
    if selector is not None:
        out += selector_rules.problems(selector, f"{path}.selector")
        if name:
            out.append(errors.not_permitted(f"{path}.selector", both))
    elif not name:
        out.append(errors.required(path, "one of name or selector must be specified"))
    action = ref.get("parameterNotFoundAction")
    if not action:
        out.append(errors.required(f"{path}.parameterNotFoundAction"))
    else:
        out += admission_rules.chosen(action, f"{path}.parameterNotFoundAction", ("Deny", "Allow"))
    return out


def _actions(listed: list[str], path: str) -> list[Cause]:
    out, seen = [], set()
    for i, action in enumerate(listed):
        out += admission_rules.chosen(action, f"{path}[{i}]", ACTIONS)
        if action in seen:
            out.append(errors.duplicate(f"{path}[{i}]", action))
        seen.add(action)
    if {"Deny", "Warn"} <= seen:
        why = "must not contain both Deny and Warn (repeating the same validation failure information in the API response "
        why += "and headers serves no purpose)"
        out.append(errors.bad_value(path, listed, why))
    if not listed:
        out.append(errors.required(path, "at least one validation action is required"))
    return out
