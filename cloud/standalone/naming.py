"""Names for what controllers create from a ``generateName``: the same for everybody who looks at the same state.

A random name makes every create a new object: two controllers that both find a pod missing (one was stopped while it led,
and goes on minutes later) would make two.  Here the n-th place of an owner has one name, and the free place with the lowest
number is filled; so both make *the same* object, and the log refuses the second (create expects that there is none).
The look is Kubernetes' own: prefix and five letters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from bus.kube import objectmeta
from cloud.core.writes import Write
from schemas.subjects import ObjectKey


def fixed(writes: Iterable[Write], exists: Callable[[ObjectKey], bool]) -> Iterator[Write]:
    """The writes of one plan, with names; ``exists`` tells what is there now, whether or not it is going."""
    places: dict[tuple[str, str], int] = {}
    for w in writes:
        meta = (w.object or {}).get("metadata") or {}
        owner = next((r for r in meta.get("ownerReferences") or [] if r.get("controller")), None)
        if w.verb != "create" or w.key.name or meta.get("name") or not meta.get("generateName") or owner is None:
            yield w
            continue
        prefix, uid = meta["generateName"], str(owner["uid"])
        place = places.get((uid, prefix), 0)
        while exists(key := w.key._replace(name=name_of(prefix, uid, place))):
            place += 1
        places[uid, prefix] = place + 1
        yield replace(w, key=key, object={**(w.object or {}), "metadata": {**meta, "name": key.name}})


def name_of(prefix: str, uid: str, place: int) -> str:
    return objectmeta.generated(prefix, lambda n: hashlib.sha256(f"{uid}/{place}".encode()).digest()[:n])
