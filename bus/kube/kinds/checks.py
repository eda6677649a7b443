"""Checks that the rules of many kinds share: each gives the causes of what is wrong, in the order and the words of the
real server (apimachinery's pkg/util/validation and pkg/apis/meta/v1/validation)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bus.kube import errors, names, quantity
from bus.kube.errors import Cause
from bus.kube.storage import Object

NOT_NEGATIVE = "must be greater than or equal to 0"
IMMUTABLE = "field is immutable"
PORT_MAX = 65535
ID_MAX = (1 << 31) - 1  # of users and groups
_PORT_NAME = re.compile(r"[-a-z0-9]+\Z")
_HEADER = re.compile(r"[-A-Za-z0-9]+\Z")


def text(path: str, value: str, rule: Callable[[str], str]) -> list[Cause]:
    """All that a rule of ``names`` says."""
    return [errors.bad_value(path, value, problem) for problem in names.problems(rule, value)]


def not_found(path: str, value: Any, why: str = "") -> Cause:
    return Cause(path, "FieldValueNotFound", f"Not found: {errors.show(value)}" + (f": {why}" if why else ""))


def too_long(path: str, limit: int) -> Cause:
    return Cause(path, "FieldValueTooLong", f"Too long: may not be more than {limit} bytes")


def too_many(path: str, count: int, limit: int) -> Cause:
    return Cause(path, "FieldValueTooMany", f"Too many: {count}: must have at most {limit} items")


def not_negative(path: str, value: Any) -> list[Cause]:
    return [errors.bad_value(path, value, NOT_NEGATIVE)] if (value or 0) < 0 else []


def between(path: str, value: int, low: int, high: int) -> list[Cause]:
    if low <= value <= high:
        return []
    return [errors.bad_value(path, value, f"must be between {low} and {high}, inclusive")]


def one_of(path: str, value: Any, allowed: Iterable[str]) -> list[Cause]:
    """A value that must be given, of a set that is told sorted."""
    if value in ("", None):
        return [errors.required(path)]
    return listed(path, value, allowed)


def listed(path: str, value: Any, allowed: Iterable[str]) -> list[Cause]:
    known = tuple(allowed)
    return [] if value in known else [errors.not_supported(path, value, known)]


def labels(path: str, given: Mapping[str, str] | None) -> list[Cause]:
    out: list[Cause] = []
    for key, value in (given or {}).items():
        out += text(path, key, names.label_key)
        out += text(path, value, names.label_value)
    return out


def annotation_keys(path: str, given: Mapping[str, str] | None) -> list[Cause]:
    return [
        errors.bad_value(path, key, problem)
        for key in given or {}
        for problem in names.problems(names.label_key, key.lower())
    ]


def label_selector(path: str, selector: Object | None, *, any_value: bool = False) -> list[Cause]:
    """``any_value``: values are not checked."""
    if selector is None:
        return []
    out = labels(f"{path}.matchLabels", selector.get("matchLabels"))
    for i, item in enumerate(selector.get("matchExpressions") or []):
        out += _requirement(f"{path}.matchExpressions[{i}]", item, any_value=any_value)
    return out


def _requirement(path: str, item: Object, *, any_value: bool) -> list[Cause]:
    operator, values, out = item.get("operator") or "", item.get("values") or [], []
    if operator in ("In", "NotIn"):
        if not values:
            out.append(errors.required(f"{path}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            out.append(errors.not_permitted(f"{path}.values", why))
    else:
        out.append(errors.bad_value(f"{path}.operator", operator, "not a valid selector operator"))
    out += text(f"{path}.key", item.get("key") or "", names.label_key)
    for i, value in enumerate([] if any_value else values):
        out += text(f"{path}.values[{i}]", value, names.label_value)
    return out


def port_number(path: str, value: int) -> list[Cause]:
    return between(path, value, 1, PORT_MAX)


def port_name(path: str, value: str) -> list[Cause]:
    out = []
    if len(value) > 15:
        out.append("must be no more than 15 characters")
    if not _PORT_NAME.match(value):
        out.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not re.search("[a-z]", value):
        out.append("must contain at least one letter (a-z)")
    if "--" in value:
        out.append("must not contain consecutive hyphens")
    if value[:1] == "-" or value[-1:] == "-":
        out.append("must not begin or end with a hyphen")
    return [errors.bad_value(path, value, why) for why in out]


def port(path: str, value: int | str | None) -> list[Cause]:
    """A number or a name."""
    return port_name(path, value) if isinstance(value, str) else port_number(path, value or 0)


def address(path: str, value: str) -> list[Cause]:
    """An IP address in a form that everybody reads the same way."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
        parts = value.split(".")
        if len(parts) == 4 and all(re.fullmatch("[0-9]{1,3}", p) and int(p) <= 255 for p in parts):
            why = "must not have leading 0s"
        return [errors.bad_value(path, value, why)]
    return []


def header_name(path: str, value: str) -> list[Cause]:
    if _HEADER.match(value):
        return []
    why = (
        "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for "
        "validation is '[-A-Za-z0-9]+')"
    )
    return [errors.bad_value(path, value, why)]


def no_steps_back(path: str, value: str) -> list[Cause]:
    return [errors.bad_value(path, value, "must not contain '..'")] if ".." in value.split("/") else []


def relative_path(path: str, value: str) -> list[Cause]:
    out = [errors.bad_value(path, value, "must be a relative path")] if value.startswith("/") else []
    return out + no_steps_back(path, value)


def inner_path(path: str, value: str) -> list[Cause]:
    """A relative path that doesn't begin with two points, which are kept for atomic writes."""
    out = relative_path(path, value)
    if value.startswith("..") and not value.startswith("../"):
        out.append(errors.bad_value(path, value, "must not start with '..'"))
    return out


def file_mode(path: str, value: int | None) -> list[Cause]:
    if value is None or 0 <= value <= 0o777:
        return []
    why = "must be a number between 0 and 0777 (octal), both inclusive"
    return [errors.bad_value(path, value, why)]


def amount_not_negative(path: str, value: str) -> list[Cause]:
    return [errors.bad_value(path, value, NOT_NEGATIVE)] if quantity.parse(value) < 0 else []


def immutable(path: str, new: Any, old: Any) -> list[Cause]:
    return [] if new == old else [errors.bad_value(path, new, IMMUTABLE)]
