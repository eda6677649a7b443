"""The sync service in the simulation: cloud/sync.py's own rules over the model of the log."""

from __future__ import annotations

from cloud import sync as service
from ops.sim.hub import Hub
from schemas import subjects, sync


class SyncService:
    """``page_bytes`` far below production's, so that resets take many pages; ``history``: as above 1,024 objects."""

    def __init__(self, hub: Hub, *, page_bytes: int, history: bool) -> None:
        self._hub, self._page_bytes, self._history = hub, page_bytes, history
        self.up = True
        self.partial: set[tuple[str, str, int]] = set()  # (scope, epoch, up_to) of pages with more to come, for a checker

    def answer(self, node: str, request: sync.SyncRequest) -> sync.SyncAnswer:
        assert all(c.scope in service.scopes_of(node) for c in request.scopes)
        if not self.up:
            return sync.SyncAnswer(status="busy", message="starting")
        room, pages = self._page_bytes, []
        for asked in request.scopes:
            stream = f"META-{subjects.shard_of(asked.scope, self._hub.shards)}"
            info = self._hub.info(stream)
            after = 0 if service.starts_anew(asked, info) else asked.cursor
            filter_ = subjects.meta_scope(asked.scope, self._hub.shards)
            last = self._hub.last(stream, filter_, after=after, bytes_max=room, history=self._history)
            page = service.page_of(asked, info, last)
            pages.append(page)
            if page.more:
                self.partial.add((page.scope, page.epoch, page.up_to))
            room = max(1, room - sum(len(e.event) + len(e.subject) for e in page.events))
        return sync.SyncAnswer(pages=pages)
