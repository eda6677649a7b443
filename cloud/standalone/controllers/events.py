"""Events about objects: one for each message, that counts.  Source: Kubernetes API reference, Event."""

from __future__ import annotations

import hashlib
from typing import Literal

from cloud.core.writes import Write
from cloud.standalone.controllers import base
from cloud.standalone.controllers.base import EVENTS, Seen, View
from schemas import times
from schemas.subjects import ObjectKey

SAY_US = 60 * times.US_PER_S  # the same message again at most once in this time
MESSAGE_CHARS_MAX = 1024  # as the API server validates it
OF_CLUSTER = "default"  # the namespace for what has none


def tell(
    view: View,
    about: Seen,
    reason: str,
    message: str,
    now_us: int,
    component: str,
    *,
    kind: Literal["Warning", "Normal"] = "Warning",
    say_us: int = SAY_US,
    series: str | None = None,
) -> list[Write]:
    """At most one write: the Event, or its next count.  ``series``: what counts in one, whatever the message; None: the
    message itself."""
    same = message if series is None else series
    tail = hashlib.blake2b(f"{base.uid(about.object)}\0{reason}\0{same}".encode(), digest_size=8).hexdigest()
    space = about.key.namespace or OF_CLUSTER
    key = ObjectKey(*EVENTS, space, f"{about.key.name[:236]}.{tail}")
    now = times.rfc3339(now_us)
    shown = message if len(message) <= MESSAGE_CHARS_MAX else f"{message[: MESSAGE_CHARS_MAX - 4]} ..."
    known = view.get(key)
    if known is not None:
        if now_us - (times.micros(known.object.get("lastTimestamp")) or 0) < say_us:
            return []
        count = int(known.object.get("count") or 1) + 1
        again = {**known.object, "count": count, "lastTimestamp": now, "message": shown}
        return [base.update(known, again, about)]
    involved = {
        "apiVersion": about.object.get("apiVersion"),
        "kind": about.object.get("kind"),
        "name": about.key.name,
        "uid": base.uid(about.object),
    }
    if about.key.namespace:
        involved["namespace"] = about.key.namespace
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": key.name, "namespace": key.namespace},
        "involvedObject": involved,
        "type": kind,
        "reason": reason,
        "message": shown,
        "count": 1,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "source": {"component": component},
        "reportingComponent": component,
        "reportingInstance": component,
    }
    return [base.create(EVENTS, key.namespace, event, about)]
