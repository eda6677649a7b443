"""What the API tells Prometheus: few series, cheap to keep, named as kube-apiserver names them where they mean the same.

Labels come from the server's own lists (verbs, resources that are served, codes), so a client can't make series; their
number is bounded all the same.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

BUCKETS_S = (0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0, 60.0)
SERIES_MAX = 5_000
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = tuple[str, str, str, str]  # verb, group, resource, code


class Metrics:
    """Counted per request when it ends."""

    def __init__(self) -> None:
        self._requests: dict[Labels, int] = {}
        self._durations: dict[str, tuple[list[int], list[float]]] = {}  # by verb: counts by bucket, and the sum

    def request(self, verb: str, group: str, resource: str, code: int, seconds: float) -> None:
        labels = (verb, group, resource, str(code))
        if labels not in self._requests and len(self._requests) >= SERIES_MAX:
            labels = (verb, "", "other", str(code))
        self._requests[labels] = self._requests.get(labels, 0) + 1
        if verb == "WATCH":
            return  # it lasts as long as its client likes
        counts, total = self._durations.setdefault(verb, ([0] * (len(BUCKETS_S) + 1), [0.0]))
        counts[bisect_left(BUCKETS_S, seconds)] += 1
        total[0] += seconds

    def text(self, gauges: Iterable[tuple[str, str, float]]) -> str:
        """``gauges``: (name with labels, help, value)."""
        out = [
            "# HELP apiserver_request_total Requests by verb, resource and code.",
            "# TYPE apiserver_request_total counter",
        ]
        for (verb, group, resource, code), count in sorted(self._requests.items()):
            out.append(
                f'apiserver_request_total{{verb="{verb}",group="{group}",resource="{resource}",code="{code}"}} {count}'
            )
        name = "apiserver_request_duration_seconds"
        out += [f"# HELP {name} Time to answer, by verb; watches are not counted.", f"# TYPE {name} histogram"]
        for verb, (counts, total) in sorted(self._durations.items()):
            below = 0
            for limit, count in zip((*BUCKETS_S, "+Inf"), counts, strict=True):
                below += count
                out.append(f'{name}_bucket{{verb="{verb}",le="{limit}"}} {below}')
            out += [f'{name}_sum{{verb="{verb}"}} {total[0]:.6f}', f'{name}_count{{verb="{verb}"}} {below}']
        said: set[str] = set()
        for full, about, value in gauges:
            bare = full.partition("{")[0]
            if bare not in said:
                kind = "counter" if bare.endswith("_total") else "gauge"
                out += [f"# HELP {bare} {about}", f"# TYPE {bare} {kind}"]
            said.add(bare)
            out.append(f"{full} {value:g}")
        return "\n".join(out) + "\n"
