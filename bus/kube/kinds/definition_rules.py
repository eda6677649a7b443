"""What a definition must hold beside its schemas' structure: names, versions, subresources, columns, selectable fields, and
the words around a rule (apiextensions' pkg/apis/apiextensions/validation), in the words of the real server."""

from __future__ import annotations

import re
from typing import Any

from bus.kube import errors, names
from bus.kube.errors import Cause
from bus.kube.kinds import checks
from bus.kube.storage import Object

WARNING_BYTES_MAX = 256
MESSAGE_CHARS_MAX = 2048
COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")
COLUMN_FORMATS = ("byte", "date", "date-time", "double", "float", "int32", "int64", "password")
REASONS = ("FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired")
_SIMPLE = "must be a simple json path starting with ."
_MIXED = "may have mixed case, but should otherwise match: "
_STEP = re.compile(r"\.([^.\[\]]+)|\['((?:[^'\\]|\\.)*)'\]")


def naming(given: Object) -> list[Cause]:
    """``spec.names``."""
    path, out = "spec.names", []
    for field in ("plural", "singular"):
        if not given.get(field):
            out.append(errors.required(f"{path}.{field}"))
        else:
            out += checks.text(f"{path}.{field}", given[field], names.dns_label_1035)
    for field in ("kind", "listKind"):
        if not given.get(field):
            out.append(errors.required(f"{path}.{field}"))
        elif problem := names.dns_label_1035(given[field].lower()):
            out.append(errors.bad_value(f"{path}.{field}", given[field], _MIXED + problem))
    for field in ("shortNames", "categories"):
        for i, name in enumerate(given.get(field) or []):
            out += checks.text(f"{path}.{field}[{i}]", name, names.dns_label_1035)
    if given.get("kind") and given.get("kind") == given.get("listKind"):
        out.append(errors.bad_value(f"{path}.listKind", given["listKind"], "kind and listKind may not be the same"))
    return out


def together(versions: list[Object], field: str) -> bool:
    """Whether all versions say the same, so that the real server tells it of the definition as a whole."""
    return bool(versions) and all(v.get(field) == versions[0].get(field) for v in versions)


def version(v: Object, path: str) -> list[Cause]:
    """Of one version: whether it may be told to be deprecated so."""
    out: list[Cause] = []
    said = v.get("deprecationWarning")
    if said is None:
        return out
    path = f"{path}.deprecationWarning"
    if not v.get("deprecated"):
        out.append(errors.bad_value(path, said, "can only be set for deprecated versions"))
    if len(said) > WARNING_BYTES_MAX:
        out.append(errors.bad_value(path, said, f"must be <= {WARNING_BYTES_MAX} characters long"))
    if not said:
        out.append(errors.bad_value(path, said, "must not be an empty string"))
    for letter in said:
        if not letter.isprintable():
            why = (
                f"must only contain printable UTF-8 characters; non-printable character found at index {said.index(letter)}"
            )
            return [*out, errors.bad_value(path, said, why)]
    return out


def scale(given: Object | None, path: str) -> list[Cause]:
    if given is None:
        return []
    out = []
    for field, roots in (
        ("specReplicasPath", (".spec.",)),
        ("statusReplicasPath", (".status.",)),
        ("labelSelectorPath", (".spec.", ".status.")),
    ):
        text = given.get(field) or ""
        if not text and field == "labelSelectorPath":
            continue
        if not text:
            out.append(errors.required(f"{path}.{field}"))
            continue
        if not text.startswith(".") or "[" in text or "]" in text:
            out.append(errors.bad_value(f"{path}.{field}", text, _SIMPLE))
        elif not text.startswith(roots):
            places = " or ".join(root.rstrip(".") for root in roots)
            said = f"should be a json path under {'either ' if len(roots) > 1 else ''}{places}"
            out.append(errors.bad_value(f"{path}.{field}", text, said))
    return out


def column(given: Object, path: str) -> list[Cause]:
    kind, form, where = given.get("type") or "", given.get("format") or "", given.get("jsonPath") or ""
    out = [] if given.get("name") else [errors.required(f"{path}.name")]
    if not kind:
        out.append(errors.required(f"{path}.type", f"must be one of {','.join(COLUMN_TYPES)}"))
    elif kind not in COLUMN_TYPES:
        out.append(errors.bad_value(f"{path}.type", kind, f"must be one of {','.join(COLUMN_TYPES)}"))
    if form and form not in COLUMN_FORMATS:
        out.append(errors.bad_value(f"{path}.format", form, f"must be one of {','.join(COLUMN_FORMATS)}"))
    if not where:
        out.append(errors.required(f"{path}.JSONPath"))
    elif not where.startswith("."):
        out.append(errors.bad_value(f"{path}.JSONPath", where, _SIMPLE))
    return out


def _leads(path: str, schema: Any) -> tuple[Any, str]:
    """The schema that a path leads to, or why it leads nowhere."""
    node, rest = schema, path
    while rest:
        step = _STEP.match(rest)
        if step is None:
            word = re.split(r"[.\[]", rest, maxsplit=1)[0]
            return None, f"expected [ or . but got: {word}" if word else "unexpected end of JSON path"
        name = step[1] or re.sub(r"\\(.)", r"\1", step[2] or "")
        fields, more = node.get("properties"), node.get("additionalProperties")
        node = (fields or {}).get(name) if fields else more if isinstance(more, dict) else None
        if not isinstance(node, dict):
            return None, "does not refer to a valid field"
        rest = rest[step.end() :]
    return node, ""


def selectable(given: list[Object], schema: Any, path: str) -> list[Cause]:
    out, seen = [], set[str]()
    for i, one in enumerate(given):
        where, text = f"{path}[{i}].jsonPath", one.get("jsonPath") or ""
        if not text:
            out.append(errors.required(where))
            continue
        node, problem = _leads(text, schema if isinstance(schema, dict) else {})
        if problem or "[" in text:
            said = problem or "array notation is not allowed"
            out.append(errors.bad_value(where, text, f"is an invalid path: {said}"))
        elif text.startswith(".metadata"):
            out.append(errors.bad_value(where, text, "must not point to fields in metadata"))
        elif node.get("type") not in ("boolean", "integer", "string"):
            why = "must point to a field of type string, boolean or integer. "
            why += "Enum string fields and strings with formats are allowed."
            out.append(errors.bad_value(where, text, why))
        if text in seen:
            out.append(errors.duplicate(where, text))
        seen.add(text)
    return out


def rule(given: Object, node: Object, path: str, compares: bool) -> list[Cause]:
    """What goes with a rule.  ``compares``: it asks for the old value."""
    out = []
    message, text = given.get("message"), str(given.get("rule") or "")
    if message:
        if not message.strip():
            out.append(errors.bad_value(f"{path}.message", message, "must be non-empty if specified"))
        elif "\n" in message.strip():
            out.append(errors.bad_value(f"{path}.message", message, "must not contain line breaks"))
    elif "\n" in text.strip():
        out.append(errors.required(f"{path}.message", "message must be specified if rule contains line breaks"))
    if message and len(message) > MESSAGE_CHARS_MAX:
        shown = message[:10] + "..."
        why = f"must have a maximum length of {MESSAGE_CHARS_MAX} characters"
        out.append(errors.bad_value(f"{path}.message", shown, why))
    if given.get("reason") is not None:
        out += checks.listed(f"{path}.reason", given["reason"], REASONS)
    if given.get("fieldPath"):
        _, problem = _leads(given["fieldPath"], node)
        if problem:
            out.append(errors.bad_value(f"{path}.fieldPath", given["fieldPath"], "must be a valid path"))
    if given.get("optionalOldSelf") is not None and not compares:
        why = "may not be set if oldSelf is not used in rule"
        out.append(errors.bad_value(f"{path}.optionalOldSelf", given["optionalOldSelf"], why))
    return out


_UNSUPPORTED = ("definitions", "dependencies", "id", "patternProperties", "additionalItems")


def words(node: Object, path: str, *, inside: bool) -> list[Cause]:
    """Words that no schema may have, and in a junctor (``inside``) none that says what a value is."""
    out = [errors.not_permitted(f"{path}.{w}", f"{w} is not supported") for w in _UNSUPPORTED if node.get(w)]
    if not inside:
        return out
    for word in ("description", "title"):
        if node.get(word):
            out.append(errors.not_permitted(f"{path}.{word}", "must be empty to be structural"))
    if node.get("default") is not None:
        out.append(errors.not_permitted(f"{path}.default", "must be undefined to be structural"))
    return out


def lists(node: Object, path: str) -> list[Cause]:
    """Elements of sets and maps are told apart, so none may be null."""
    listing, items = node.get("x-kubernetes-list-type"), node.get("items")
    if listing in ("map", "set") and isinstance(items, dict) and items.get("nullable"):
        why = f"cannot be nullable when x-kubernetes-list-type is {listing}"
        return [errors.not_permitted(f"{path}.items.nullable", why)]
    had = items.get("x-kubernetes-map-type") if isinstance(items, dict) else "atomic"
    if listing == "set" and isinstance(items, dict) and items.get("type") == "object" and had != "atomic":
        why = "must be atomic as item of a list with x-kubernetes-list-type=set"
        return [errors.bad_value(f"{path}.items.x-kubernetes-map-type", had, why)]
    return []
