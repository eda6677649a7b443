"""What the Kubernetes API says when it says no: one error with the fields of a ``Status`` (meta/v1).

Codes, reasons and wording follow apimachinery's pkg/api/errors, because clients parse them: ``kubectl`` decides by reason,
and people read the message.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Cause:
    """One bad field.  ``reason`` is FieldValueRequired, FieldValueInvalid, FieldValueNotSupported,
    FieldValueDuplicate, FieldValueForbidden, FieldValueTypeInvalid, FieldValueTooLong or FieldManagerConflict."""

    field: str
    reason: str
    message: str

    def as_json(self) -> dict[str, str]:
        return {"reason": self.reason, "message": self.message, "field": self.field}

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class StatusError(Exception):
    """A refusal with its HTTP code; ``as_status`` is the body that a client gets."""

    def __init__(self, code: int, reason: str, message: str, details: dict[str, Any] | None = None, go_on: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details or {}
        self._detailed = details is not None
        self._continue = go_on

    def as_status(self) -> dict[str, Any]:
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {"continue": self._continue} if self._continue else {},
            "status": "Failure",
            "message": self.message,
            **({"reason": self.reason} if self.reason else {}),
            **({"details": self.details} if self.details or self._detailed else {}),
            "code": self.code,
        }


class NoPage(StatusError):
    """A path that no group of the API has: it is told in plain text, as whoever serves the rest of a host would."""


def qualified(group: str, resource: str) -> str:
    """``deployments.apps``, as messages and details of kinds name a resource."""
    return f"{resource}.{group}" if group else resource


def _details(group: str, kind: str, name: str, causes: Iterable[Cause] = ()) -> dict[str, Any]:
    details: dict[str, Any] = {"name": name} if name else {}
    if group:
        details["group"] = group
    if kind:
        details["kind"] = kind
    listed = [c.as_json() for c in causes]
    if listed:
        details["causes"] = listed
    return details


def not_found(group: str, resource: str, name: str) -> StatusError:
    message = f'{qualified(group, resource)} "{name}" not found'
    return StatusError(404, "NotFound", message, _details(group, resource, name))


def no_such_path() -> StatusError:
    """A path of a group that is served, which leads nowhere."""
    return StatusError(404, "NotFound", "the server could not find the requested resource", {})


def no_page() -> StatusError:
    return NoPage(404, "NotFound", "404 page not found")


def no_such_verb() -> StatusError:
    """A path that is served, but not with this method."""
    return StatusError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource", {})


def already_exists(group: str, resource: str, name: str) -> StatusError:
    message = f'{qualified(group, resource)} "{name}" already exists'
    return StatusError(409, "AlreadyExists", message, _details(group, resource, name))


def conflict(group: str, resource: str, name: str, why: str = "") -> StatusError:
    why = why or "the object has been modified; please apply your changes to the latest version and try again"
    message = f'Operation cannot be fulfilled on {qualified(group, resource)} "{name}": {why}'
    return StatusError(409, "Conflict", message, _details(group, resource, name))


def no_revision(text: str) -> StatusError:
    """A resourceVersion in an object that is no number: the real server has no better word for it than a 500."""
    return StatusError(500, "", f"strconv.ParseUint: parsing {show(text)}: invalid syntax")


def apply_conflict(owned: list[tuple[str, list[str]]]) -> StatusError:
    """Server-side apply: other managers own what this one wants to change; ``owned`` says who owns which fields."""
    causes = [Cause(field, "FieldManagerConflict", f"conflict with {who}") for who, fields in owned for field in fields]
    if len(causes) == 1:
        message = f"Apply failed with 1 conflict: {causes[0].message}: {causes[0].field}"
    else:
        parts = []
        for who, fields in sorted(owned):
            parts += [f"conflicts with {who}:", *(f"- {field}" for field in fields)]
        message = f"Apply failed with {len(causes)} conflicts: " + "\n".join(parts)
    return StatusError(409, "Conflict", message, {"causes": [c.as_json() for c in causes]})


CAUSES_SHOWN_MAX = 64  # a hostile body can be wrong in a hundred thousand places


def invalid(group: str, kind: str, name: str, causes: list[Cause]) -> StatusError:
    """422 with every bad field; ``kind`` is the Kind, not the resource, as the real server has it."""
    shown = causes[:CAUSES_SHOWN_MAX]
    texts = list(dict.fromkeys(str(c) for c in shown))
    text = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    message = f'{kind + "." + group if group else kind} "{name}" is invalid: {text}'
    return StatusError(422, "Invalid", message, _details(group, kind, name, shown))


def forbidden(group: str, resource: str, name: str, why: str, causes: Iterable[Cause] = ()) -> StatusError:
    """403; without a ``name`` it is about the whole resource."""
    named = f' "{name}"' if name else ""
    message = f"{qualified(group, resource)}{named} is forbidden: {why}"
    return StatusError(403, "Forbidden", message, _details(group, resource, name, causes))


def bad_request(message: str) -> StatusError:
    return StatusError(400, "BadRequest", message)


def unauthorized() -> StatusError:
    return StatusError(401, "Unauthorized", "Unauthorized")


def method_not_allowed(group: str, resource: str, verb: str) -> StatusError:
    message = f'{verb} is not supported on resources of kind "{qualified(group, resource)}"'
    return StatusError(405, "MethodNotAllowed", message, _details(group, resource, ""))


def not_acceptable(accepted: Iterable[str]) -> StatusError:
    message = "only the following media types are accepted: " + ", ".join(accepted)
    return StatusError(406, "NotAcceptable", message)


def no_representation(offered: Iterable[str]) -> StatusError:
    """406 where none of the media types asked for is served at all."""
    message = "406: Not Acceptable\n\nAvailable representations: " + ", ".join(offered)
    return StatusError(406, "NotAcceptable", message, {})


def no_such_patch() -> StatusError:
    """415 for a patch of a media type that is no patch's."""
    return StatusError(415, "UnsupportedMediaType", "415: Unsupported Media Type", {})


def unsupported_media_type(accepted: Iterable[str]) -> StatusError:
    message = "the body of the request was in an unknown format - accepted media types include: "
    return StatusError(415, "UnsupportedMediaType", message + ", ".join(accepted))


def too_large(message: str) -> StatusError:
    return StatusError(413, "RequestEntityTooLarge", message)


def expired(message: str, go_on: str = "") -> StatusError:
    """410: clients list again, or go on without consistency by the token ``go_on``."""
    return StatusError(410, "Expired", message, go_on=go_on)


def revision_too_large(asked: int, current: int) -> StatusError:
    """504 with the cause by which client-go knows to try again (a revision that this server has not seen yet)."""
    message = f"Timeout: Too large resource version: {asked}, current: {current}"
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    return StatusError(504, "Timeout", message, {"causes": [cause], "retryAfterSeconds": 1})


def too_many(message: str, retry_after_s: int = 1) -> StatusError:
    return StatusError(429, "TooManyRequests", message, {"retryAfterSeconds": retry_after_s})


def unavailable(message: str) -> StatusError:
    return StatusError(503, "ServiceUnavailable", message, {"retryAfterSeconds": 1})


def no_room(message: str) -> StatusError:
    """507 (RFC 4918): nothing was written, and trying again at once won't help."""
    return StatusError(507, "InsufficientStorage", message, {"retryAfterSeconds": 30})


def internal(message: str) -> StatusError:
    return StatusError(500, "InternalError", f"Internal error occurred: {message}")


def required(field: str, message: str = "") -> Cause:
    return Cause(field, "FieldValueRequired", "Required value" + (f": {message}" if message else ""))


def bad_value(field: str, value: Any, message: str) -> Cause:
    return Cause(field, "FieldValueInvalid", f"Invalid value: {show(value)}" + (f": {message}" if message else ""))


def not_supported(field: str, value: Any, allowed: Iterable[Any]) -> Cause:
    options = ", ".join(show(a) for a in allowed)
    return Cause(field, "FieldValueNotSupported", f"Unsupported value: {show(value)}: supported values: {options}")


def duplicate(field: str, value: Any) -> Cause:
    return Cause(field, "FieldValueDuplicate", f"Duplicate value: {show(value)}")


def not_permitted(field: str, message: str) -> Cause:
    return Cause(field, "FieldValueForbidden", f"Forbidden: {message}")


VALUE_CHARS_MAX = 4096  # of a bad value in a message


class Shown(dict[str, Any]):
    """A bad value whose fields a message shows in this order: a struct's, not a map's."""


def show(value: Any) -> str:
    """A value in a message: as JSON, cut short."""
    if isinstance(value, str):
        value = value[:VALUE_CHARS_MAX]
    ordered = not isinstance(value, Shown)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=ordered)[: VALUE_CHARS_MAX + 2]


def in_order(value: Any) -> str:
    """A value whose keys are told in their own order, as Go tells a struct's fields."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
