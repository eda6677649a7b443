"""Validating admission policies: expressions that a request must satisfy, bound to where they hold, with parameters.

A policy does nothing without a binding.  The first refusal, in the order of the policies' names, is the answer; its
``reason`` is the code.  Audit has no place to go here, as there is no audit log: what it would say is logged.

Source: Kubernetes "Validating Admission Policy"; apiserver pkg/admission/plugin/policy/validating/{dispatcher,validator}.go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from bus.kube import cel_admission, errors, selectors
from bus.kube.admission import matching
from bus.kube.admission.asked import GROUP, Asked, Form
from bus.kube.admission.base import Plugin
from bus.kube.admission.expressions import Asker
from bus.kube.catalog import Catalog, Resource
from bus.kube.errors import StatusError
from bus.kube.kinds.base import at
from bus.kube.storage import Object, Reader

POLICIES, BINDINGS = "validatingadmissionpolicies", "validatingadmissionpolicybindings"
MESSAGE_BYTES_MAX = 5 << 10  # of a message that an expression made
_CODES = {"Forbidden": 403, "Invalid": 422, "RequestEntityTooLarge": 413}

logger = structlog.get_logger(__name__)


class ConfigurationError(Exception):
    """A binding that can't be followed: the policy's failure policy decides."""


@dataclass(frozen=True, slots=True)
class Denial:
    message: str
    reason: str = "Invalid"


class Variables(dict[str, Any]):
    """A policy's own variables, computed when first named, in terms of those before them."""

    def __init__(self, listed: list[Object], outer: Mapping[str, Any]) -> None:
        super().__init__()
        self._outer = outer
        self._known = {str(v["name"]): str(v["expression"]) for v in listed}

    def fill(self, text: str) -> None:
        """Have at hand what ``text`` names.  Raises EvaluationError: what a variable can't be, its user can't be either."""
        for name, expression in self._known.items():
            if name not in self and f"variables.{name}" in text:
                self.fill(expression)
                self[name] = cel_admission.run(expression, {**self._outer, "variables": dict(self)})


class Policies(Plugin):
    def __init__(self, reader: Reader, catalog: Catalog, asker: Asker) -> None:
        self._reader, self._catalog, self._asker = reader, catalog, asker

    @property
    def listens(self) -> bool:
        return bool(self._reader.list(GROUP, BINDINGS))

    async def validate(self, asked: Asked) -> None:
        """Raises StatusError."""
        if asked.exempt:
            return
        bindings = [s.object for s in self._reader.list(GROUP, BINDINGS)]
        denied: list[tuple[Object, Object | None, Denial]] = []
        for stored in self._reader.list(GROUP, POLICIES):
            policy = stored.object
            mine = [b for b in bindings if at(b, "spec", "policyName") == stored.key.name]
            if mine:
                denied += [d async for d in self._asked(policy, mine, asked)]
        if denied:
            raise _refusal(asked, *denied[0])

    async def _asked(self, policy: Object, bindings: list[Object], asked: Asked) -> Any:
        form = self._form(at(policy, "spec", "matchConstraints") or {}, asked)
        if form is None:
            return
        kind = at(policy, "spec", "paramKind")
        if kind is not None and self._resource(kind) is None:
            if at(policy, "spec", "failurePolicy") != "Ignore":
                named = f"'{kind.get('apiVersion')}, Kind={kind.get('kind')}'"
                why = f"failed to configure policy: failed to find resource referenced by paramKind: {named}"
                yield policy, None, Denial(why)
            return
        for binding in bindings:
            if self._form(at(binding, "spec", "matchResources"), asked) is None:
                continue
            await asked.see(form)
            try:
                params = self._params(policy, binding, asked)
            except ConfigurationError as e:
                if at(policy, "spec", "failurePolicy") != "Ignore":
                    yield policy, binding, Denial(f"failed to configure binding: {e}")
                continue
            for param in params:
                for index, denial in self._denials(policy, form, param, asked):
                    if self._acted(policy, binding, index, denial, asked):
                        yield policy, binding, denial

    def _form(self, match: Object | None, asked: Asked) -> Form | None:
        """None when MatchResources leave the request out."""
        if match is None:
            return asked.form
        if not matching.labels_match(match.get("objectSelector"), asked):
            return None
        if not matching.namespace_matches(match.get("namespaceSelector"), asked, self._reader):
            return None
        policy, rules = match.get("matchPolicy") or "Equivalent", match.get("resourceRules") or []
        if matching.form_of(match.get("excludeResourceRules") or (), asked, policy) is not None:
            return None
        return matching.form_of(rules, asked, policy) if rules else asked.form

    # --- parameters

    def _resource(self, kind: Object) -> Resource | None:
        group, _, version = str(kind.get("apiVersion") or "").rpartition("/")
        res = self._catalog.find_kind(group, str(kind.get("kind")))
        return res if res is not None and version in res.preferred else None

    def _params(self, policy: Object, binding: Object, asked: Asked) -> list[Object | None]:
        """What the policy is asked with, one after the other; [None] without parameters.  Raises ConfigurationError."""
        kind, ref = at(policy, "spec", "paramKind"), at(binding, "spec", "paramRef")
        if kind is None or ref is None:
            return [None]
        res = self._resource(kind)
        assert res is not None  # looked at before
        namespace = ref.get("namespace") or ""
        if namespace and not res.namespaced:
            raise ConfigurationError("paramRef.namespace must not be provided for a cluster-scoped `paramKind`")
        if res.namespaced and not namespace:
            namespace = asked.namespace
            if not namespace:
                why = "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
                raise ConfigurationError(why)
        listed = self._reader.list(*res.place, namespace if res.namespaced else None)
        if ref.get("name"):
            found = [s for s in listed if s.key.name == ref["name"]]
        else:
            chosen = selectors.of_label_selector(ref.get("selector"))
            found = [s for s in listed if chosen.matches(s.object["metadata"].get("labels"))]
        if not found and ref.get("parameterNotFoundAction") == "Deny":
            raise ConfigurationError("no params found for policy binding with `Deny` parameterNotFoundAction")
        head = {"apiVersion": kind.get("apiVersion"), "kind": kind.get("kind")}
        return [{**s.object, **head} for s in found]

    # --- expressions

    def _denials(self, policy: Object, form: Form, param: Object | None, asked: Asked) -> Iterator[tuple[int, Denial]]:
        """With the index of the validation."""
        spec = policy["spec"]
        outer = self._asker.variables(asked, form, param)
        fails = spec.get("failurePolicy") != "Ignore"
        try:
            if not matching.conditions_match(spec.get("matchConditions") or (), outer, spec.get("failurePolicy") or "Fail"):
                return
        except matching.ConditionError as e:
            yield 0, Denial(str(e))
            return
        variables = Variables(spec.get("variables") or [], outer)
        for i, validation in enumerate(spec.get("validations") or ()):
            text = str(validation.get("expression") or "")
            try:
                variables.fill(text)
                good = cel_admission.run(text, {**outer, "variables": dict(variables)})
            except cel_admission.EvaluationError as e:
                if fails:
                    yield i, Denial(str(e))
                continue
            if good is not True:
                yield i, Denial(_message(validation, variables, outer), validation.get("reason") or "Invalid")

    def _acted(self, policy: Object, binding: Object, index: int, denial: Denial, asked: Asked) -> bool:
        """Does what the binding says of a denial; True when the request is refused."""
        names = {"policy": policy["metadata"]["name"], "binding": binding["metadata"]["name"]}
        actions = at(binding, "spec", "validationActions") or ()
        if "Warn" in actions:
            asked.how.warnings.append(
                f"Validation failed for ValidatingAdmissionPolicy '{names['policy']}' with binding '{names['binding']}': "
                f"{denial.message}"
            )
        if "Audit" in actions:
            logger.info("admission.policy.audit", **names, expression=index, message=denial.message, name=asked.name)
        return "Deny" in actions


def _message(validation: Object, variables: Variables, outer: Mapping[str, Any]) -> str:
    """What its expression says, when that is one short line; else what is written; else the expression itself."""
    text = validation.get("messageExpression")
    if text:
        try:
            variables.fill(text)
            said = cel_admission.run(text, {**outer, "variables": dict(variables)})
        except cel_admission.EvaluationError:
            said = None
        if isinstance(said, str):
            line = said.strip()
            if line and "\n" not in line and len(line.encode()) <= MESSAGE_BYTES_MAX:
                return line
    written = str(validation.get("message") or "").strip()
    return written or f"failed expression: {str(validation.get('expression') or '').strip()}"


def _refusal(asked: Asked, policy: Object, binding: Object | None, denial: Denial) -> StatusError:
    name, bound = policy["metadata"]["name"], ""
    if binding is not None:
        bound = f" with binding '{binding['metadata']['name']}'"
    said = f"ValidatingAdmissionPolicy '{name}'{bound} denied request: {denial.message}"
    error = errors.forbidden(asked.form.group, asked.form.resource, asked.name, said)
    details = {**error.details, "causes": [{"message": said}]}
    return StatusError(_CODES.get(denial.reason, 422), denial.reason, error.message, details)
