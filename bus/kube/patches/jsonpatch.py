"""JSON patch (RFC 6902), by the jsonpatch library, with the real server's limits and answers.

A document that doesn't decode is a 400; one that can't be applied (a failed test, a missing path, an operation that there
isn't) is a 422.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any

from bus.kube import errors
from bus.kube.decoding import clone
from bus.kube.gotext import go_kind
from bus.kube.storage import Object

OPERATIONS_MAX = 10_000  # apiserver's limit
COPIED_BYTES_MAX = 3 << 20  # of all copy operations together: each can double the document
REFUSED = "the server rejected our request due to an error in our request"  # it doesn't say which operation
_NEGATIVE = re.compile(r"-[0-9]{1,6}\Z", re.ASCII)


def apply(target: Object, patch: Any) -> Any:
    """The result; ``target`` is not changed.  Raises StatusError 400, 413 or 422."""
    import jsonpatch  # only who patches pays for it
    import jsonpointer

    if patch is None:
        return clone(target)
    _check(patch)
    out, copied = clone(target), 0
    try:
        for op in patch:
            wanted = _as_meant(out, op)
            if wanted is None:
                continue
            if wanted["op"] == "copy":
                copied += len(json.dumps(jsonpointer.resolve_pointer(out, str(wanted.get("from", "")))))
                if copied > COPIED_BYTES_MAX:
                    raise errors.too_large(f"the copy operations of a JSON patch may copy {COPIED_BYTES_MAX} bytes")
            out = jsonpatch.JsonPatch([wanted]).apply(out, in_place=True)
    except _refusals() as e:
        raise errors.StatusError(422, "Invalid", REFUSED, {}) from e
    if not isinstance(out, dict):
        raise errors.StatusError(422, "Invalid", REFUSED, {})
    return out


def _refusals() -> tuple[type[Exception], ...]:
    import jsonpatch
    import jsonpointer

    library = (jsonpatch.InvalidJsonPatch, jsonpatch.JsonPatchException, jsonpointer.JsonPointerException)
    return (*library, KeyError, TypeError, IndexError)


def _check(patch: Any) -> None:
    """Raises StatusError 400 for what doesn't decode, 413 for too much of it."""
    unmarshal = "error decoding patch: json: cannot unmarshal"
    if not isinstance(patch, list):
        raise errors.bad_request(f"{unmarshal} {go_kind(patch)} into Go value of type []handlers.jsonPatchOp")
    if len(patch) > OPERATIONS_MAX:
        raise errors.too_large(f"The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {len(patch)}")
    for op in patch:
        if op is not None and not isinstance(op, dict):
            raise errors.bad_request(f"{unmarshal} {go_kind(op)} into Go value of type handlers.jsonPatchOp")
        for name in ("op", "path", "from"):
            value = (op or {}).get(name)
            if value is not None and not isinstance(value, str):
                where = f"Go struct field jsonPatchOp.{name} of type string"
                raise errors.bad_request(f"{unmarshal} {go_kind(value)} into {where}")


def _as_meant(doc: Any, op: Any) -> Any:
    """An operation as RFC 6902 has it, where the real server's library (evanphx/json-patch) is kinder: a member that is
    replaced or copied from need not be there, a value left out is null, an index may count from the end.  None where
    nothing is left to do; raises KeyError, TypeError, IndexError."""
    kind, path = op["op"], op["path"]
    if any(not isinstance(op[name], str) for name in ("op", "path", *(("from",) if kind in ("copy", "move") else ()))):
        raise TypeError(path)
    if kind == "add" and not path:
        raise KeyError(path)  # the whole document is there already
    if kind in ("add", "replace", "test"):
        op = {"value": None, **op}
    parent, last = _parent(doc, path)
    if isinstance(parent, dict):
        missing = last not in parent
        if kind == "replace" and missing:
            op = {**op, "op": "add"}
        if kind == "test" and missing and op["value"] is None:
            return None
    op = {**op, "path": _counted(parent, path, more=kind in ("add", "copy", "move"))}
    if kind in ("copy", "move"):
        source, member = _parent(doc, op["from"])
        if kind == "copy" and isinstance(source, dict) and member not in source:
            return {"op": "add", "path": op["path"], "value": None}
        op["from"] = _counted(source, op["from"])
    return op


def _counted(parent: Any, path: str, *, more: bool = False) -> str:
    """A path whose index counts from the end, from the beginning; ``more``: of the list with what comes into it."""
    head, _, last = path.rpartition("/")
    if not isinstance(parent, list) or not _NEGATIVE.match(last):
        return path
    at = len(parent) + int(last) + more
    if at < 0:
        raise IndexError(path)
    return f"{head}/{at}"


def _parent(doc: Any, path: str) -> tuple[Any, str]:
    """What holds the place that a pointer names, and its last part; (None, "") where that is the whole document."""
    import jsonpointer

    head, slash, last = path.rpartition("/")
    if not slash:
        return None, ""
    return jsonpointer.resolve_pointer(doc, head, None), last.replace("~1", "/").replace("~0", "~")


def why(target: Object, patch: list[Any], error: errors.StatusError) -> str:
    """Which operation of a patch that was refused can't be applied, in the words of the library that kube-apiserver uses
    (evanphx/json-patch)."""
    done: Any = target
    for op in patch:
        try:
            done = apply(done, [op])
        except errors.StatusError:
            return _words(op) if isinstance(op, dict) else str(error)
    return str(error)


def _words(op: dict[str, Any]) -> str:
    kind, path = op.get("op"), op.get("path")
    last = str(path).rpartition("/")[2]
    match kind:
        case "remove":
            return f"error in remove for path: '{path}': Unable to remove nonexistent key: {last}: missing value"
        case "replace":
            return f"replace operation does not apply: doc is missing key: {path}: missing value"
        case "test":
            return f"testing value {path} failed: test failed"
        case "add":
            return f'add operation does not apply: doc is missing path: "{path}": missing value'
        case "move" | "copy":
            return f"error in {kind} for path: '{op.get('from')}': missing value"
    return f"Unexpected kind: {kind}"


def undecodable(text: Any) -> str:
    """What is wrong with a patch that is no JSON; how Go says it, for the first letter of what is none."""
    try:
        raw = base64.b64decode(str(text), validate=True).decode("utf-8", "replace").lstrip()
    except (ValueError, binascii.Error):
        return "illegal base64 data"
    words = {"n": "null", "t": "true", "f": "false"}
    word = words.get(raw[:1])
    if word is not None:
        at = next((i for i, letter in enumerate(word) if raw[i : i + 1] != letter), 0)
        got = raw[at : at + 1]
        if got:
            return f"invalid character {_quoted(got)} in literal {word} (expecting '{word[at]}')"
    if not raw:
        return "unexpected end of JSON input"
    return f"invalid character {_quoted(raw[0])} looking for beginning of value"


def _quoted(letter: str) -> str:
    return "'\\''" if letter == "'" else f"'{letter}'"
