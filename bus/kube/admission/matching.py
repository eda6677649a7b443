"""Which requests a webhook or a policy is about.  Pure.

Source: apiserver pkg/admission/plugin/webhook/{predicates,generic,matchconditions} and plugin/policy/matching.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bus.kube import cel_admission, errors, selectors
from bus.kube.admission.asked import CREATE, UPDATE, Asked, Form
from bus.kube.storage import Object, Reader
from schemas.subjects import ObjectKey


def rule_matches(rule: Object, asked: Asked, form: Form) -> bool:
    """Of a RuleWithOperations, with the request seen in one of its forms."""
    return (
        _scope(rule.get("scope") or "*", asked, form)
        and _listed(rule.get("operations"), asked.operation)
        and _listed(rule.get("apiGroups"), form.group)
        and _listed(rule.get("apiVersions"), form.version)
        and any(_resource(text, form.resource, asked.subresource) for text in rule.get("resources") or ())
    )


def _listed(items: Any, wanted: str) -> bool:
    return "*" in (items or ()) or wanted in (items or ())


def _scope(scope: str, asked: Asked, form: Form) -> bool:
    inside = bool(asked.namespace) and (form.group, form.resource) != ("", "namespaces")
    return scope == "*" or (inside if scope == "Namespaced" else not inside)


def _resource(text: str, resource: str, subresource: str) -> bool:
    of, _, sub = text.partition("/")
    return of in ("*", resource) and sub in ("*", subresource)


def form_of(rules: Iterable[Object], asked: Asked, policy: str) -> Form | None:
    """The form in which a rule is about the request: as it was asked, or (``Equivalent``) another of the same objects."""
    listed = list(rules)
    for form in asked.forms if policy != "Exact" else asked.forms[:1]:
        for rule in listed:
            if rule_matches(rule, asked, form) and _named(rule, asked):
                return form
    return None


def _named(rule: Object, asked: Asked) -> bool:
    names = rule.get("resourceNames")
    return not names or asked.name in names


def labels_match(selector: Mapping[str, Any] | None, asked: Asked) -> bool:
    """Whether an object selector selects the object as it was or as it is to be."""
    chosen = selectors.of_label_selector(selector)
    if not chosen:
        return True
    return any(o is not None and chosen.matches(o.get("metadata", {}).get("labels")) for o in (asked.object, asked.old))


def namespace_matches(selector: Mapping[str, Any] | None, asked: Asked, reader: Reader) -> bool:
    """What is in no namespace is never left out.  Raises StatusError 404 for a namespace that isn't there."""
    chosen = selectors.of_label_selector(selector)
    is_space = (asked.form.group, asked.form.resource) == ("", "namespaces")
    if not chosen or (not asked.namespace and not is_space):
        return True
    if is_space and not asked.subresource and asked.operation in (CREATE, UPDATE) and asked.object is not None:
        return chosen.matches(asked.object.get("metadata", {}).get("labels"))
    space = reader.get(ObjectKey("", "namespaces", "", asked.namespace or asked.name))
    if space is None:
        raise errors.not_found("", "namespaces", asked.namespace)
    return chosen.matches(space.object["metadata"].get("labels"))


class ConditionError(Exception):
    """A condition that can't be asked, where the failure policy is Fail."""


def conditions_match(conditions: Iterable[Object], variables: Mapping[str, Any], failure_policy: str) -> bool:
    """All of them; raises ConditionError.  One that is false counts more than one that can't be asked."""
    failed: list[str] = []
    for condition in conditions:
        try:
            if cel_admission.run((condition.get("expression") or "").strip(), variables) is False:
                return False
        except cel_admission.EvaluationError as e:
            failed.append(str(e))
    if failed and failure_policy != "Ignore":
        raise ConditionError(failed[0] if len(failed) == 1 else f"[{', '.join(failed)}]")
    return not failed
