"""Rows of webhook configurations, admission policies and their bindings (kubernetes pkg/printers/internalversion)."""

from __future__ import annotations

from collections.abc import Sequence

from bus.kube.kinds.base import at
from bus.kube.printing.cells import AGE, NAME, Cell, Look
from bus.kube.storage import Object

GROUP = "admissionregistration.k8s.io"
UNSET = "<unset>"


def _param_kind(policy: Object, _: Look) -> str:
    kind = at(policy, "spec", "paramKind")
    return f"{kind.get('apiVersion', '')}/{kind.get('kind', '')}" if kind else UNSET


def _param_ref(binding: Object, _: Look) -> str:
    ref = at(binding, "spec", "paramRef")
    if not ref:
        return UNSET
    name = ref.get("name") or "*"
    return f"{ref['namespace']}/{name}" if ref.get("namespace") else str(name)


_HOOKS = (NAME, Cell("Webhooks", lambda o, _: len(o.get("webhooks") or []), "integer"), AGE)
COLUMNS: dict[tuple[str, str], Sequence[Cell]] = {
    (GROUP, "mutatingwebhookconfigurations"): _HOOKS,
    (GROUP, "validatingwebhookconfigurations"): _HOOKS,
    (GROUP, "validatingadmissionpolicies"): (
        NAME,
        Cell("Validations", lambda o, _: len(at(o, "spec", "validations") or []), "integer"),
        Cell("ParamKind", _param_kind),
        AGE,
    ),
    (GROUP, "validatingadmissionpolicybindings"): (
        NAME,
        Cell("PolicyName", lambda o, _: at(o, "spec", "policyName") or ""),
        Cell("ParamRef", _param_ref),
        AGE,
    ),
}
