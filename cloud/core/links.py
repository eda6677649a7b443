"""Which nodes' links are up: beats in, and who has been silent for too long out.  No clock: the time comes with the call."""

from __future__ import annotations

from schemas import times


class Links:
    """Nodes that are up are kept in the order of their last sign of life, so that time costs only those it runs out for."""

    def __init__(self, grace_us: int) -> None:
        self._grace_us = grace_us
        self._alive: dict[str, int] = {}
        self._unknown: dict[str, str] = {}

    def knows(self, node: str) -> bool:
        return node in self._alive or node in self._unknown

    def unknown(self, node: str) -> str | None:
        """``unknown since <RFC 3339>`` for a node whose link is lost."""
        return self._unknown.get(node)

    def seen(self, node: str, now_us: int) -> bool:
        """A sign of life; True when the link was lost or never seen before."""
        came = self._alive.pop(node, None) is None
        self._alive[node] = now_us
        self._unknown.pop(node, None)
        return came

    def lost(self, node: str, now_us: int) -> bool:
        """The link is gone now; True when that is news."""
        if node in self._unknown:
            return False
        self._unknown[node] = f"unknown since {times.rfc3339(self._alive.pop(node, now_us))}"
        return True

    def remember_lost(self, node: str, message: str) -> None:
        """It was lost before this worker started, and says since when."""
        self._alive.pop(node, None)
        self._unknown[node] = message

    def forget(self, node: str) -> None:
        self._alive.pop(node, None)
        self._unknown.pop(node, None)

    def expire(self, now_us: int) -> list[str]:
        """Nodes that were silent for the grace: they are lost from now on."""
        silent = []
        for node, at in self._alive.items():
            if now_us - at <= self._grace_us:
                break
            silent.append(node)
        for node in silent:
            self.lost(node, now_us)
        return silent
