"""What a quota has let through and its controller has not seen yet: beside the quota's status, in an annotation.

Admission counts an object before it is stored.  A controller that counts what is stored would forget it in between, and the
quota could be overrun; so what was let through is written down with the count, and is struck off when the object is there
as it was let through, or its time is over.  Pure.

    {"<uid>": ["<group>/<resource>/<name>", revision before, when it is over in s, {"pods": "1"}]}
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NamedTuple, Protocol

from bus.kube.admission import usage
from bus.kube.admission.usage import Kind, Usage
from bus.kube.storage import Object
from schemas.subjects import ObjectKey

ANNOTATION = "quota.skerry.io/admitted"
WAIT_S = 90  # a request has a minute
RESERVED_MAX = 500  # of one quota at once: an annotation has 256 kB


class Seen(Protocol):
    """An object as it is stored."""

    @property
    def rev(self) -> int: ...
    @property
    def object(self) -> Object: ...


class Reserved(NamedTuple):
    where: str
    before: int  # revision of the object that was changed, 0 for a new one
    until_s: int
    amounts: Usage


def read(quota: Object) -> dict[str, Reserved]:
    """By the object's uid; what somebody made unreadable counts as nothing."""
    text = (quota["metadata"].get("annotations") or {}).get(ANNOTATION)
    try:
        raw = json.loads(text) if text else {}
        return {str(k): Reserved(str(w), int(r), int(s), usage.amounts(a)) for k, (w, r, s, a) in raw.items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def where(kind: Kind, name: str) -> str:
    return f"{kind[0]}/{kind[1]}/{name}"


def unseen(quota: Object, get: Callable[[ObjectKey], Seen | None], now_us: int) -> dict[str, Reserved]:
    """What a quota has let through and ``get`` doesn't show yet, by the object's uid."""
    space = str(quota["metadata"].get("namespace") or "")

    def seen(uid: str, r: Reserved) -> bool:
        group, _, rest = r.where.partition("/")
        resource, _, name = rest.partition("/")
        there = get(ObjectKey(group, resource, space, name))
        return there is not None and there.object["metadata"].get("uid") == uid and there.rev > r.before

    return {u: r for u, r in read(quota).items() if r.until_s * 1_000_000 > now_us and not seen(u, r)}


def write(quota: Object, found: dict[str, Reserved]) -> None:
    """In place."""
    notes = {k: v for k, v in (quota["metadata"].get("annotations") or {}).items() if k != ANNOTATION}
    if found:
        raw = {
            u: [r.where, r.before, r.until_s, {k: str(v) for k, v in sorted(r.amounts.items())}]
            for u, r in sorted(found.items())
        }
        notes[ANNOTATION] = json.dumps(raw, separators=(",", ":"))
    if notes:
        quota["metadata"]["annotations"] = notes
    else:
        quota["metadata"].pop("annotations", None)


def total(found: dict[str, Reserved]) -> Usage:
    out: Usage = {}
    for r in found.values():
        out = usage.plus(out, r.amounts)
    return out
