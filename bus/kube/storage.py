"""What the Kubernetes API needs underneath: a reader that lists and watches, and a storage that also writes.

The storage of the standalone API is the CLUSTER stream (``cloud/standalone``); on a node it is the replica, read-only;
in tests it is memory.  A revision is one counter for everything (a stream sequence), so a list is complete at a revision and
a watch goes on from it.  Objects are plain JSON maps without ``metadata.resourceVersion``: the registry fills it in.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from schemas.subjects import ObjectKey

if TYPE_CHECKING:
    from bus.kube.ordered import Snapshot

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Origin:
    """Who wants a write, and because of which event.  ``source_rev``: the resourceVersion at the cluster that it mirrors."""

    actor: str
    cause: str | None = None
    trace: str | None = None
    source_rev: int = 0


@dataclass(frozen=True, slots=True)
class Stored:
    """An object as stored.  ``object`` is shared: never change it, copy it.  ``source_rev``: its resourceVersion at the
    cluster that it mirrors, 0 when it has no other source."""

    key: ObjectKey
    rev: int
    object: Object
    event_id: str = ""
    trace: str = ""
    source_rev: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """One change in revision order.  ``stored`` is the object after it (for DELETED: its last state, with the revision of
    the deletion); ``old`` the one before, which a selector needs to tell MODIFIED from ADDED and DELETED.
    A BOOKMARK has neither: all before ``rev`` was told.  ``time_us``: when the log stored it, 0 where that isn't known."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    rev: int
    stored: Stored | None = None
    old: Stored | None = None
    time_us: int = 0


Listing = list[Stored]  # a name of its own: inside a class with a ``list`` method, ``list`` is that method


class StorageError(Exception):
    """Base of what a storage can answer."""


class AlreadyExists(StorageError):
    pass


class Conflict(StorageError):
    """The expected revision is not the current one; ``current`` is None when the object is gone."""

    def __init__(self, message: str, current: int | None = None) -> None:
        super().__init__(message)
        self.current = current


class Expired(StorageError):
    """A watch was asked from a revision that is no longer held (HTTP 410)."""


class TooLarge(StorageError):
    """The object doesn't fit in an event."""


class NoRoom(StorageError):
    """What stores it has no room for it (HTTP 507); nothing was written."""


class Unavailable(StorageError):
    """The log could not be reached; whether a write happened is unknown until it is read again."""


class Reader(Protocol):
    def revision(self) -> int:
        """Everything up to here is in ``get`` and ``list``."""

    def get(self, key: ObjectKey) -> Stored | None: ...

    def changed(self, group: str, resource: str) -> int:
        """Another number whenever anything of a resource has changed, for those who cache what they made of it."""

    def list(self, group: str, resource: str, namespace: str | None = None) -> Listing:
        """All objects of a resource (of one namespace), sorted by namespace and name."""

    def at(self, group: str, resource: str, namespace: str | None, rev: int) -> Snapshot:
        """``list`` as it was at revision ``rev``, so that pages of one list fit each other; raises Expired."""

    def watch(self, group: str, resource: str, namespace: str | None = None, *, after: int) -> AsyncIterator[Change]:
        """Changes with a revision above ``after``, for ever; a BOOKMARK now and then when idle.

        Raises Expired at the first step, or later when the watcher was too slow for the bounded buffer."""


@runtime_checkable
class Storage(Reader, Protocol):
    """Writes return after the reader sees them (read your own writes)."""

    async def create(self, key: ObjectKey, obj: Object, origin: Origin) -> Stored:
        """Raises AlreadyExists, TooLarge, Unavailable."""

    async def replace(self, key: ObjectKey, obj: Object, expect: int, origin: Origin) -> Stored:
        """Raises Conflict, TooLarge, Unavailable."""

    async def delete(self, key: ObjectKey, expect: int, origin: Origin) -> Stored:
        """The last state with the revision of the deletion; raises Conflict, Unavailable."""
