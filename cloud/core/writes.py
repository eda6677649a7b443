"""One write to the API, as a core asks for it.  ``cloud/api.py`` does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from schemas.subjects import ObjectKey

Verb = Literal["create", "update", "status", "delete", "bind", "finalize"]


@dataclass(frozen=True, slots=True)
class Write:
    """What each verb needs:

    * ``create``: ``object`` whole; the key's name may be empty when the object has a ``generateName``;
    * ``update``, ``status``, ``finalize``: ``object`` whole; ``rev`` is the revision it was made from, and only that one is
      replaced (0: whichever there is);
    * ``delete``: only if the uid is still ``uid`` (when given); ``grace_s`` None is the object's own grace;
    * ``bind``: ``object`` is a Binding of the pod.

    ``cause`` and ``trace``: the event that led to this, and the first of its chain.
    """

    verb: Verb
    key: ObjectKey
    object: dict[str, Any] | None = None
    rev: int = 0
    uid: str = ""
    cause: str | None = None
    trace: str | None = None
    grace_s: int | None = None
    propagation: Literal["Background", "Foreground", "Orphan"] | None = None
