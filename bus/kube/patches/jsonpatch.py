"""JSON patch (RFC 6902), by the jsonpatch library, with the real server's limits and answers.

A document that is no patch is a 400; one that can't be applied (a failed test, a missing path) is a 422.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from bus.kube import errors
from bus.kube.decoding import clone
from bus.kube.storage import Object

OPERATIONS_MAX = 10_000  # apiserver's limit
COPIED_BYTES_MAX = 3 << 20  # of all copy operations together: each can double the document


def apply(target: Object, patch: Any) -> Any:
    """The result; ``target`` is not changed.  Raises StatusError 400, 413 or 422."""
    import jsonpatch  # only who patches pays for it
    import jsonpointer

    if not isinstance(patch, list):
        raise errors.bad_request(
            "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"
        )
    if len(patch) > OPERATIONS_MAX:
        raise errors.too_large(f"The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {len(patch)}")
    for op in patch:
        if not isinstance(op, dict) or not isinstance(op.get("op"), str) or not isinstance(op.get("path"), str):
            raise errors.bad_request("an operation of a JSON patch is an object with op and path")
    out, copied = clone(target), 0
    try:
        for op in patch:
            if op["op"] == "copy":
                copied += len(json.dumps(jsonpointer.resolve_pointer(out, str(op.get("from", "")))))
                if copied > COPIED_BYTES_MAX:
                    raise errors.too_large(f"the copy operations of a JSON patch may copy {COPIED_BYTES_MAX} bytes")
            out = jsonpatch.JsonPatch([op]).apply(out, in_place=True)
        return out
    except jsonpatch.InvalidJsonPatch as e:
        raise errors.bad_request(f"not a JSON patch: {e}") from e
    except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException, KeyError, TypeError, IndexError) as e:
        message = "the server rejected our request due to an error in our request"  # it doesn't say which operation
        raise errors.StatusError(422, "Invalid", message) from e


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
