"""Which part of a list a request asks for, and as of when (API concepts, "Resource versions", "Retrieving large results sets
in chunks").

A continue token names the revision of the first page and the last object told.  When the log no longer holds that revision,
the refusal carries another token, by which a client may go on without consistency.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass

from bus.kube import errors
from bus.kube.errors import Cause
from bus.kube.http.context import Context
from bus.kube.ordered import START, Place, Snapshot
from bus.kube.storage import Expired

VERSION = "meta.k8s.io/v1"
INCONSISTENT = -1  # the revision in a token of a client that goes on with whatever there is now
TOO_OLD = "The resourceVersion for the provided list is too old."
LOST = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without the "
    "continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing "
    "with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the "
    "time the first chunk was returned and now may show up in the list."
)


@dataclass(frozen=True, slots=True)
class Part:
    """``limit`` 0: all of it."""

    snapshot: Snapshot
    revision: int
    after: Place
    limit: int


async def part(ctx: Context) -> Part:
    """Raises StatusError 400, 410, 422, 504."""
    target, registry = ctx.target, ctx.server.registry
    namespace = target.namespace if target.resource.namespaced and ctx.address.namespace is not None else None
    limit = max(ctx.number("limit", minimum=-1) or 0, 0)
    ctx.number("timeoutSeconds", minimum=-1)
    _check(ctx)
    token, match, asked = ctx.query.get("continue", ""), ctx.query.get("resourceVersionMatch", ""), ctx.revision(listed=True)
    after, rev = START, asked or 0
    if token:
        if asked:
            raise errors.bad_request("specifying resource version is not allowed when using continue")
        rev, after = read(token, namespace)
    exact = match == "Exact" or (limit > 0 and not match and rev > 0) or (token != "" and rev != INCONSISTENT)
    if asked == 0:
        limit = 0  # from the real server's cache, which knows no pages
    if rev > 0:
        await registry.wait_revision(rev)
    now = registry.reader.revision()
    try:
        snapshot = registry.reader.at(*target.resource.place, namespace, rev if exact else now)
    except Expired as e:
        if token:
            raise errors.expired(LOST, write(INCONSISTENT, after, namespace)) from e
        raise errors.expired(TOO_OLD) from e
    return Part(snapshot, rev if exact else now, after, limit)


def _check(ctx: Context) -> None:
    match, given = ctx.query.get("resourceVersionMatch", ""), ctx.query.get("resourceVersion", "")
    causes: list[Cause] = []

    def forbidden(why: str, field: str = "resourceVersionMatch") -> None:
        causes.append(errors.not_permitted(field, why))

    if match:
        if not given:
            forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided")
        if ctx.query.get("continue", ""):
            forbidden("resourceVersionMatch is forbidden when continue is provided")
        if match not in ("Exact", "NotOlderThan"):
            causes.append(errors.not_supported("resourceVersionMatch", match, ("Exact", "NotOlderThan", "")))
        if match == "Exact" and given == "0":
            forbidden('resourceVersionMatch "exact" is forbidden for resourceVersion "0"')
    if "sendInitialEvents" in ctx.query:
        forbidden("sendInitialEvents is forbidden for list", "sendInitialEvents")
    if causes:
        raise errors.invalid("meta.k8s.io", "ListOptions", "", causes)


def write(rev: int, last: Place, namespace: str | None) -> str:
    """The token that goes on after ``last``."""
    key = last[1] if namespace is not None or not last[0] else f"{last[0]}/{last[1]}"
    text = json.dumps({"v": VERSION, "rv": rev, "start": f"/{key}\0"}, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read(token: str, namespace: str | None) -> tuple[int, Place]:
    """The revision and the last object told; raises StatusError 400."""
    try:
        raw = base64.urlsafe_b64decode(token.encode() + b"=" * (-len(token) % 4)) if _plain(token) else None
    except (binascii.Error, UnicodeError):
        raw = None
    if raw is None:
        at = next((i for i, c in enumerate(token) if not _plain(c)), len(token))
        raise _bad(f"illegal base64 data at input byte {at}")
    try:
        told = json.loads(raw)
    except (ValueError, RecursionError) as e:
        raise _bad(f"invalid character {_shown(raw)} looking for beginning of value") from e
    told = told if isinstance(told, dict) else {}
    version, rev, start = told.get("v", ""), told.get("rv", 0), told.get("start", "")
    if version != VERSION:
        raise _bad(f"server does not recognize this encoded version {str(version)[:80]}")
    if not isinstance(rev, int) or isinstance(rev, bool) or rev == 0:
        raise _bad(f"incorrect encoded start resourceVersion (version {VERSION})")
    if not isinstance(start, str) or not start:
        raise _bad(f"encoded start key empty (version {VERSION})")
    parts = start.lstrip("/").split("/")
    if ".." in parts or "." in parts:
        raise _bad(start[:80])
    last = "/".join(parts)
    name = last.removesuffix("\0") if last.endswith("\0") else _before(last)
    if namespace is not None:
        return rev, (namespace, name)
    space, slash, inner = name.partition("/")
    return rev, (space, inner) if slash else ("", name)


def _before(name: str) -> str:
    """The last text before one that is included."""
    return name[:-1] + chr(ord(name[-1]) - 1) + "\U0010ffff" if name and name[-1] > "\0" else name


def _plain(text: str) -> bool:
    return all(c.isascii() and (c.isalnum() or c in "-_") for c in text)


def _shown(raw: bytes) -> str:
    first = raw[:1].decode("latin1")
    if not first:
        return "' '"
    return f"'{first}'" if first.isprintable() and first.isascii() else f"'\\u{ord(first):04x}'"


def _bad(why: str) -> errors.StatusError:
    return errors.bad_request(f"invalid continue token: continue key is not valid: {why}")
