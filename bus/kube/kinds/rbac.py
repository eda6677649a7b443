"""Roles and bindings (pkg/apis/rbac: defaults, validation)."""

from __future__ import annotations

from typing import Any

from bus.kube import errors, names
from bus.kube.errors import Cause
from bus.kube.kinds import checks
from bus.kube.kinds.base import Context, Strategy, at
from bus.kube.storage import Object

GROUP = "rbac.authorization.k8s.io"


class Roles(Strategy):
    """Roles and cluster roles."""

    create_on_update = True

    def name_problem(self, name: str) -> str:
        return names.path_segment(name)

    def defaults(self, obj: Object, ctx: Context) -> None:
        obj["rules"] = obj.get("rules") or None  # always told

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        out = []
        for i, rule in enumerate(obj.get("rules") or []):
            out += _rule(rule, f"rules[{i}]", ctx.resource.namespaced)
        if not ctx.resource.namespaced and obj.get("aggregationRule") is not None:
            out += _aggregation(obj["aggregationRule"])
        return out

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        return self.validate(obj, ctx)


def _rule(rule: Object, path: str, namespaced: bool) -> list[Cause]:
    out = []
    if not rule.get("verbs"):
        out.append(errors.required(f"{path}.verbs", "verbs must contain at least one value"))
    urls = rule.get("nonResourceURLs")
    if urls:
        if namespaced:
            why = "namespaced rules cannot apply to non-resource URLs"
            out.append(errors.bad_value(f"{path}.nonResourceURLs", urls, why))
        if rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
            why = "rules cannot apply to both regular resources and non-resource URLs"
            out.append(errors.bad_value(f"{path}.nonResourceURLs", urls, why))
        return out
    if not rule.get("apiGroups"):
        out.append(errors.required(f"{path}.apiGroups", "resource rules must supply at least one api group"))
    if not rule.get("resources"):
        out.append(errors.required(f"{path}.resources", "resource rules must supply at least one resource"))
    return out


def _aggregation(rule: Object) -> list[Cause]:
    path = "aggregationRule.clusterRoleSelectors"
    listed = rule.get("clusterRoleSelectors") or []
    if not listed:
        return [errors.required(path, "at least one clusterRoleSelector required if aggregationRule is non-nil")]
    out = []
    for i, selector in enumerate(listed):
        wrong = checks.label_selector(f"{path}[{i}]", selector)
        out += [*wrong, errors.bad_value(f"{path}[{i}]", None, "invalid label selector.")] if wrong else []
    return out


class Bindings(Strategy):
    """Role bindings and cluster role bindings."""

    create_on_update = True

    def name_problem(self, name: str) -> str:
        return names.path_segment(name)

    def defaults(self, obj: Object, ctx: Context) -> None:
        ref = obj.setdefault("roleRef", {})
        for field, value in (("apiGroup", GROUP), ("kind", ""), ("name", "")):
            ref[field] = ref.get(field) or value
        for subject in obj.get("subjects") or []:
            if subject.get("kind") in ("User", "Group") and not subject.get("apiGroup"):
                subject["apiGroup"] = GROUP

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        ref, out = obj.get("roleRef") or {}, []
        if ref.get("apiGroup", "") != GROUP:
            out.append(errors.not_supported("roleRef.apiGroup", ref.get("apiGroup", ""), (GROUP,)))
        kinds = ("Role", "ClusterRole") if ctx.resource.namespaced else ("ClusterRole",)
        if ref.get("kind", "") not in kinds:
            out.append(errors.not_supported("roleRef.kind", ref.get("kind", ""), kinds))
        if not ref.get("name"):
            out.append(errors.required("roleRef.name"))
        elif problem := names.path_segment(ref["name"]):
            out.append(errors.bad_value("roleRef.name", ref["name"], problem))
        for i, subject in enumerate(obj.get("subjects") or []):
            out += _subject(subject, f"subjects[{i}]", ctx.resource.namespaced)
        return out

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        out = self.validate(obj, ctx)
        if obj.get("roleRef") != old.get("roleRef"):
            shown = {"APIGroup": obj["roleRef"]["apiGroup"], "Kind": obj["roleRef"]["kind"], "Name": obj["roleRef"]["name"]}
            why = f"Invalid value: {errors.in_order(shown)}: cannot change roleRef"
            out.append(Cause("roleRef", "FieldValueInvalid", why))
        return out


def _subject(subject: Any, path: str, namespaced: bool) -> list[Cause]:
    kind, name, group, out = subject.get("kind", ""), subject.get("name", ""), subject.get("apiGroup", ""), []
    if not name:
        out.append(errors.required(f"{path}.name"))
    if kind == "ServiceAccount":
        if name and (problem := names.dns_subdomain(name)):
            out.append(errors.bad_value(f"{path}.name", name, problem))
        if group:
            out.append(errors.not_supported(f"{path}.apiGroup", group, ("",)))
        if not namespaced and not at(subject, "namespace"):
            out.append(errors.required(f"{path}.namespace"))
    elif kind in ("User", "Group"):
        if group != GROUP:
            out.append(errors.not_supported(f"{path}.apiGroup", group, (GROUP,)))
    else:
        out.append(errors.not_supported(f"{path}.kind", kind, ("ServiceAccount", "User", "Group")))
    return out
