"""What a LabelSelector in a specification may say (apimachinery, pkg/apis/meta/v1/validation)."""

from __future__ import annotations

from typing import Any

from bus.kube import errors, names
from bus.kube.errors import Cause


def problems(selector: Any, path: str) -> list[Cause]:
    """Of a LabelSelector; None has none."""
    out: list[Cause] = []
    for key, value in ((selector or {}).get("matchLabels") or {}).items():
        out += [errors.bad_value(f"{path}.matchLabels", key, p) for p in names.label_key_problems(key)]
        if problem := names.label_value(value):
            out.append(errors.bad_value(f"{path}.matchLabels", value, problem))
    for i, e in enumerate((selector or {}).get("matchExpressions") or []):
        out += _expression(e, f"{path}.matchExpressions[{i}]")
    return out


def _expression(e: Any, path: str) -> list[Cause]:
    operator, values, out = e.get("operator") or "", e.get("values") or [], []
    if operator in ("In", "NotIn"):
        if not values:
            out.append(errors.required(f"{path}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            out.append(errors.not_permitted(f"{path}.values", why))
    else:
        out.append(errors.bad_value(f"{path}.operator", operator, "not a valid selector operator"))
    key = e.get("key") or ""
    out += [errors.bad_value(f"{path}.key", key, p) for p in names.label_key_problems(key)]
    for i, value in enumerate(values):
        if problem := names.label_value(value):
            out.append(errors.bad_value(f"{path}.values[{i}]", value, problem))
    return out
