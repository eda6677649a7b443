"""Indexes of a Job's pods: which are done, written as ``1,3-5``, and how a pod learns its own.

Source: Kubernetes documentation, "Jobs", "Completion mode".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from cloud.standalone.controllers import base
from cloud.standalone.controllers.base import Object

INDEX = "batch.kubernetes.io/job-completion-index"
VARIABLE = "JOB_COMPLETION_INDEX"


def parse(done: str) -> list[int]:
    out: list[int] = []
    for part in done.split(","):
        first, _, last = part.partition("-")
        if first.isdecimal():
            out += range(int(first), int(last if last.isdecimal() else first) + 1)
    return out


def text(numbers: Iterable[int]) -> str:
    spans: list[list[int]] = []
    for n in sorted(dict.fromkeys(numbers)):
        if spans and n == spans[-1][1] + 1:
            spans[-1][1] = n
        else:
            spans.append([n, n])
    words = [str(a) if a == b else f"{a},{b}" if b == a + 1 else f"{a}-{b}" for a, b in spans]
    return ",".join(words)


def of(pod: Object) -> int | None:
    found = base.notes(pod).get(INDEX, "")
    return int(found) if found.isdecimal() else None


def free(completions: int, done: str, taken: Sequence[int], count: int) -> list[int]:
    """The lowest indexes that are neither done nor running."""
    busy = frozenset([*parse(done), *taken])

    def rest() -> Iterator[int]:
        yield from (n for n in range(completions) if n not in busy)

    return list(islice(rest(), count))


def mark(pod: Object, job: str, index: int) -> Object:
    """The pod as the one of an index: its name, its labels, its environment."""
    meta, spec = pod["metadata"], pod["spec"]
    said = {INDEX: str(index)}
    meta = {
        **meta,
        "generateName": f"{job}-{index}-",
        "labels": {**(meta.get("labels") or {}), **said},
        "annotations": {**(meta.get("annotations") or {}), **said},
    }
    variable = {"name": VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX}']"}}}
    told = {f: [_told(c, variable) for c in spec[f]] for f in ("containers", "initContainers") if spec.get(f)}
    return {**pod, "metadata": meta, "spec": {**spec, **told, "hostname": spec.get("hostname") or f"{job}-{index}"}}


def _told(container: Object, variable: Object) -> Object:
    env = [e for e in base.maps(container.get("env")) if e.get("name") != VARIABLE]
    return {**container, "env": [*env, variable]}
