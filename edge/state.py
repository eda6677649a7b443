"""What a node changes about itself and what it says of it, in one transaction.

``commit`` is how every part of the daemon reports: its own durable state and the reports that tell of it are stored
together or not at all (DESIGN.md, invariant 3).  When the store can't be written (disk full), the outbox holds in memory
what was to be said, the newest of each subject, and sends it from there; state and reports are written when there is room:
the node goes on, and tells the truth, also that its disk is full.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog
from pydantic import BaseModel

from bus import outbox, stamp
from bus.stores import base
from schemas import event, subjects

logger = structlog.get_logger(__name__)

RETRY_S = 2.0


@dataclass(frozen=True, slots=True)
class Report:
    """One thing a node says: ``kind`` node, pod, twin or event; ``payload`` a model of schemas/reports.py."""

    kind: str
    namespace: str
    name: str
    payload: BaseModel
    cause: str | None = None
    trace: str | None = None


class NodeState:
    def __init__(
        self,
        node: str,
        shards: int,
        store: base.Store,
        box: outbox.Outbox,
        *,
        component: str = "edge",
        on_trouble: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._node, self._shards, self._store, self._box = node, shards, store, box
        self._source = stamp.source(component)
        self._on_trouble = on_trouble
        self._late_state: dict[bytes, bytes | None] = {}
        box.on_unclean = self._retry_later
        self._retry: asyncio.TimerHandle | None = None

    def get(self, key: bytes) -> bytes | None:
        return self._late_state[key] if key in self._late_state else self._store.get("state", key)

    def items(self, prefix: bytes) -> list[tuple[bytes, bytes]]:
        found = dict(self._store.items("state", prefix))
        for k, v in self._late_state.items():
            if k.startswith(prefix):
                if v is None:
                    found.pop(k, None)
                else:
                    found[k] = v
        return sorted(found.items())

    def commit_now(self, puts: Mapping[bytes, bytes | None], reports: Sequence[Report]) -> None:
        """Stores all of it or raises StoreError: for those who can ask their counterpart to say it again."""
        self._flush()
        made = [self._event(r) for r in reports]
        self._write(puts, made)

    def commit(self, puts: Mapping[bytes, bytes | None], reports: Sequence[Report]) -> None:
        """Never raises for a store that can't be written: it is tried again, and said through ``on_trouble``."""
        self._late_state.update(puts)
        self._flush([self._event(r) for r in reports])

    def _event(self, r: Report) -> tuple[str, event.Event]:
        now, new_id = stamp.now_us(), stamp.new_id()
        ev = event.Event(
            id=new_id,
            type=event.REPORT,
            scope=self._node,
            resource=r.kind,
            namespace=r.namespace,
            name=r.name,
            uid=getattr(r.payload, "uid", ""),
            time=now,
            mono=stamp.mono_us(),
            boot=stamp.boot_id(),
            source=self._source,
            actor=f"system:node:{self._node}",
            cause=r.cause,
            trace=r.trace or new_id,
            data=r.payload.model_dump(exclude_defaults=True),
        )
        name = r.name or None
        return subjects.report(self._node, r.kind, self._shards, r.namespace if name else None, name), ev

    def _flush(self, events: Sequence[tuple[str, event.Event]] = ()) -> None:
        if not (events or self._late_state or self._box.unclean):
            return
        try:
            self._write(self._late_state, events)
        except base.StoreError as e:
            for subject, ev in events:
                self._box.hold(subject, ev)
            logger.warning("node.state.late", reports=len(events), error=str(e))
            self._on_trouble(str(e))
            self._retry_later()
            return
        self._late_state.clear()
        self._on_trouble("")

    def _write(self, puts: Mapping[bytes, bytes | None], events: Sequence[tuple[str, event.Event]]) -> None:
        added: list[tuple[int, str]] = []
        with self._store.transact() as txn:
            tidied = self._box.tidy(txn)
            for k, v in puts.items():
                if v is None:
                    txn.delete("state", k)
                else:
                    txn.put("state", k, v)
            for subject, ev in events:
                added.append((self._box.add(txn, subject, ev), subject))
        self._box.tidied(tidied)
        self._box.committed(added)

    def _retry_later(self) -> None:
        if self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(RETRY_S, self._again)

    def _again(self) -> None:
        self._retry = None
        self._flush()

    def close(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
