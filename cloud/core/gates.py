"""Which node floods, and for how long its door is shut.

``cloud/shares.py`` drops what is too much of a service's questions.  A report is not the cloud's to drop: the log has it
before anybody reads it.  So who floods the log, or goes on flooding a service, is shut out at the hub for a while
(``cloud/gatekeeper.py``), longer each time, and let in again without anybody's doing.

An honest node never comes near: its outbox keeps 10,000 reports while there is no link (``bus.outbox``) and sends them all
at once when there is one, so that much and twice is free; what it says otherwise is a few reports a second.
Pure: the caller passes the time in seconds.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

NODES_MAX = 200_000  # remembered; who was quiet longest is forgotten, which gives it a full share again


@dataclass(frozen=True, slots=True)
class Limits:
    """``*_at_once`` may come in one go, then ``*_a_s`` each second, of each service.  ``shut_s`` the first time, doubled up
    to ``shut_s_max``; ``forgiven_s`` after a door was opened the next time is a first one."""

    messages_a_s: float = 50.0
    messages_at_once: float = 20_000.0
    bytes_a_s: float = 512 << 10
    bytes_at_once: float = 64 << 20
    shut_s: float = 60.0
    shut_s_max: float = 3600.0
    forgiven_s: float = 24 * 3600.0


@dataclass(slots=True)
class _Bucket:
    messages: float
    bytes: float
    at_s: float


class Gates:
    """``spend`` for what a node sent; ``shut_for`` when it was too much."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._buckets: OrderedDict[tuple[str, str], _Bucket] = OrderedDict()

    def spend(self, service: str, node: str, messages: int, bytes_: int, now_s: float) -> str:
        """Why the node's door should be shut; "" as long as it has its share.  After a reason it has a full share again:
        what it sent before its door was shut is not counted twice."""
        limits = self.limits
        key = (service, node)
        bucket = self._buckets.pop(key, None)
        if bucket is None:
            bucket = _Bucket(limits.messages_at_once, limits.bytes_at_once, now_s)
        since = max(0.0, now_s - bucket.at_s)
        bucket.messages = min(limits.messages_at_once, bucket.messages + since * limits.messages_a_s) - messages
        bucket.bytes = min(limits.bytes_at_once, bucket.bytes + since * limits.bytes_a_s) - bytes_
        bucket.at_s = max(bucket.at_s, now_s)
        if bucket.messages < 0:
            return f"{service}: more than {limits.messages_at_once:g} messages, and {limits.messages_a_s:g} a second"
        if bucket.bytes < 0:
            return f"{service}: more than {limits.bytes_at_once:g} bytes, and {limits.bytes_a_s:g} a second"
        self._buckets[key] = bucket
        if len(self._buckets) > NODES_MAX:
            self._buckets.popitem(last=False)
        return ""

    def times(self, times: int, opened_s: float, now_s: float) -> int:
        """How often the door was shut before, as far as that is remembered.  ``opened_s``: when it opened last."""
        return 0 if now_s - opened_s > self.limits.forgiven_s else times

    def shut_for_s(self, times: int) -> float:
        """How long, the door having been shut ``times`` times before."""
        return float(min(self.limits.shut_s_max, self.limits.shut_s * 2.0 ** min(times, 30)))
