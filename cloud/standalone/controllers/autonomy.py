"""How long a node that is cut off keeps its pods: the annotation ``skerry.io/autonomy`` of a Node.

A node at the edge that can't be heard has most likely lost its link, and not its life: its containers run, and they are
what the site needs now.  So nothing is ever evicted from it, unless somebody who knows the site says after how long a copy
elsewhere is worth more: ``kubectl annotate node edge-1 skerry.io/autonomy=8h``.  From then on the node has the taint
``node.kubernetes.io/unreachable:NoExecute``, and each pod's own tolerationSeconds count.
"""

from __future__ import annotations

import re

from cloud.standalone.controllers import base
from cloud.standalone.controllers.base import Object
from schemas import times

ANNOTATION = "skerry.io/autonomy"
FOREVER = ("forever", "never", "")  # until when it is left alone; when it is evicted: people think of both
_PART = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|d|h|m|s)")
_UNITS_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
DURATION_S_MAX = 10 * 365 * 86400


def duration_us(text: str) -> int | None:
    """``8h``, ``1h30m``, ``2d``; None for what is no duration or more than ten years."""
    rest, total = text.strip(), 0.0
    if not rest:
        return None
    while rest:
        part = _PART.match(rest)
        if part is None:
            return None
        total += float(part[1]) * _UNITS_S[part[2]]
        rest = rest[part.end() :]
    return round(total * times.US_PER_S) if total <= DURATION_S_MAX else None


def of(node: Object) -> int | None:
    """Microseconds, None for ever."""
    said = base.notes(node).get(ANNOTATION, "")
    return None if said in FOREVER else duration_us(said)


def problem(node: Object) -> str:
    """What is wrong with the annotation, "" for nothing: then it counts as not given."""
    said = base.notes(node).get(ANNOTATION, "")
    if said in FOREVER or duration_us(said) is not None:
        return ""
    return f'annotation {ANNOTATION}: "{said[:64]}" is no duration (8h, 1h30m, 2d, forever): the pods stay for ever'
