"""Objects of one resource in the order of lists (namespace, name), so that a page costs what is on it.

Names are sorted when somebody first lists them and kept in order from then on: whoever never lists (and a log that is being
read for the first time) pays nothing.  A ``Snapshot`` is the list as it was at a revision: the present, with the few
changes since undone.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator

from bus.kube.storage import Stored
from schemas.subjects import ObjectKey

Place = tuple[str, str]  # namespace and name
START: Place = ("", "")


class Ordered:
    """The present."""

    __slots__ = ("_names", "_spaces", "namespaces")

    def __init__(self) -> None:
        self.namespaces: dict[str, dict[str, Stored]] = {}
        self._spaces: list[str] | None = None
        self._names: dict[str, list[str]] = {}

    def put(self, stored: Stored) -> None:
        space, name = stored.key.namespace, stored.key.name
        held = self.namespaces.get(space)
        if held is None:
            held = self.namespaces[space] = {}
            if self._spaces is not None:
                insort(self._spaces, space)
        if name not in held and space in self._names:
            insort(self._names[space], name)
        held[name] = stored

    def pop(self, key: ObjectKey) -> Stored | None:
        held = self.namespaces.get(key.namespace)
        old = held.pop(key.name, None) if held is not None else None
        if old is None or held is None:
            return None
        names = self._names.get(key.namespace)
        if names is not None:
            del names[bisect_left(names, key.name)]
        if not held:
            del self.namespaces[key.namespace]
            self._names.pop(key.namespace, None)
            if self._spaces is not None:
                del self._spaces[bisect_left(self._spaces, key.namespace)]
        return old

    def get(self, key: ObjectKey) -> Stored | None:
        return self.namespaces.get(key.namespace, {}).get(key.name)

    def spaces(self) -> list[str]:
        if self._spaces is None:
            self._spaces = sorted(self.namespaces)
        return self._spaces

    def names(self, space: str) -> list[str]:
        """Of one namespace."""
        found = self._names.get(space)
        if found is None:
            if space not in self.namespaces:
                return []
            found = self._names[space] = sorted(self.namespaces[space])
        return found

    def walk(self, namespace: str | None, after: Place = START) -> Iterator[Stored]:
        """What comes after a place, in order.  Nothing may change meanwhile."""
        spaces = [namespace] if namespace is not None else self.spaces()
        for space in spaces[bisect_left(spaces, after[0]) :]:
            names, held = self.names(space), self.namespaces.get(space, {})
            start = bisect_right(names, after[1]) if space == after[0] else 0
            for i in range(start, len(names)):
                yield held[names[i]]

    def count(self, namespace: str | None, after: Place) -> int:
        """How many come after a place, without going through them."""
        spaces = [namespace] if namespace is not None else self.spaces()
        total = 0
        for space in spaces[bisect_left(spaces, after[0]) :]:
            total += len(self.namespaces.get(space, ()))
            if space == after[0]:
                total -= bisect_right(self.names(space), after[1])
        return total


class Snapshot:
    """A list as it was; ``undone`` holds what other objects there were then (None: there was none)."""

    def __init__(self, present: Ordered, namespace: str | None, undone: dict[Place, Stored | None]) -> None:
        self._present, self._namespace, self._undone = present, namespace, undone

    def walk(self, after: Place = START) -> Iterator[Stored]:
        """What comes after a place, in order.  Consume it without giving others a turn."""
        now = self._present.walk(self._namespace, after)
        if not self._undone:
            return now
        kept = (s for s in now if (s.key.namespace, s.key.name) not in self._undone)
        then = (self._undone[place] for place in sorted(self._undone) if place > after)
        had = (stored for stored in then if stored is not None)
        return heapq.merge(kept, had, key=lambda s: (s.key.namespace, s.key.name))

    def count(self, after: Place) -> int:
        """How many come after a place."""
        total = self._present.count(self._namespace, after)
        for (space, name), then in self._undone.items():
            if (space, name) > after:
                total += (then is not None) - (name in self._present.namespaces.get(space, {}))
        return total
