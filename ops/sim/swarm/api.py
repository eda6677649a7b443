"""The standalone API as a model: writes to CLUSTER with the expectations that the real one has, and nothing else."""

from __future__ import annotations

from typing import Any

from bus import log
from ops.sim.swarm.hub import Hub
from ops.sim.swarm.schedule import Schedule
from schemas import codec, event, subjects
from schemas.subjects import ObjectKey

Object = dict[str, Any]


class Conflict(log.LogError):
    """Not as the writer saw it: exists already, is gone, or has another revision or uid."""


class Api:
    def __init__(self, schedule: Schedule, hub: Hub) -> None:
        self._schedule, self._hub = schedule, hub

    def get(self, key: ObjectKey) -> tuple[int, event.Event] | None:
        last = self._hub.last_of(subjects.cluster(key))
        if last is None:
            return None
        ev = last.event()
        return None if ev.deleted else (last.seq, ev)

    def list(self) -> list[tuple[int, event.Event]]:
        return [(r.seq, ev) for r in self._hub.lasts("CLUSTER") if not (ev := r.event()).deleted]

    def put(self, key: ObjectKey, obj: Object, cause: str | None = None, trace: str | None = None) -> int:
        """Create or replace, whatever is there: a user with ``kubectl apply --force``."""
        return self._write(key, obj, obj["metadata"]["uid"], cause, trace)

    def remove(self, key: ObjectKey) -> int | None:
        current = self.get(key)
        return self._write(key, None, current[1].uid, None, None) if current else None

    def write(
        self,
        verb: str,
        key: ObjectKey,
        obj: Object | None,
        rev: int,
        uid: str,
        cause: str | None,
        trace: str | None,
    ) -> int:
        """As the reports core asks (cloud/core/report_words.py); raises Conflict."""
        current = self.get(key)
        if verb == "create":
            if current is not None:
                raise Conflict(f"{key} exists")
            assert obj is not None
            obj = {**obj, "metadata": {**obj["metadata"], "uid": f"u-{self._schedule.new_id()[-12:]}"}}
            return self._write(key, obj, obj["metadata"]["uid"], cause, trace)
        if current is None or (current[0] != rev and verb != "delete") or current[1].uid != uid:
            raise Conflict(f"{key} is not as it was at {rev}")
        return self._write(key, None if verb == "delete" else obj, uid, cause, trace)

    def _write(self, key: ObjectKey, obj: Object | None, uid: str, cause: str | None, trace: str | None) -> int:
        ident = self._schedule.new_id()
        ev = event.Event(
            id=ident,
            type=event.OBJECT_APPLIED if obj is not None else event.OBJECT_DELETED,
            group=key.group,
            resource=key.resource,
            namespace=key.namespace,
            name=key.name,
            uid=uid,
            time=self._schedule.now_us,
            source="cloud/api",
            cause=cause,
            trace=trace or ident,
            data=obj,
        )
        return self._hub.append(subjects.cluster(key), codec.encode_event(ev), ident)
