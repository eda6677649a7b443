"""What autoscaled pods use: asked of their nodes, and only of those, as often as autoscalers are looked at.

A question costs a node some hundred bytes, so a node without such pods is never asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from fractions import Fraction

from cloud.standalone.controllers import horizontal
from cloud.standalone.controllers.base import View
from cloud.standalone.controllers.replica_counts import Used
from schemas import times, usage

PERIOD_S = horizontal.LOOK_US / times.US_PER_S
Answer = tuple[int, usage.NodeUsage]  # when, microseconds since 1970
Ask = Callable[[Iterable[str]], Awaitable[Mapping[str, Answer | None]]]  # cloud/node_api/usages.py


class Gauges:
    """``run`` until cancelled.  ``ask(nodes)``: what they use; None of one that has no answer."""

    def __init__(self, ask: Ask, view: View) -> None:
        self._ask, self._view = ask, view
        self._figures: dict[str, Used] = {}

    def figures(self) -> Mapping[str, Used]:
        return self._figures

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(PERIOD_S)

    async def look(self) -> None:
        nodes = sorted(horizontal.nodes(self._view))
        told = await self._ask(nodes) if nodes else {}
        self._figures = dict(_figures(a for a in told.values() if a is not None))


def _figures(answers: Iterable[Answer]) -> Iterable[tuple[str, Used]]:
    for at_us, node in answers:
        for pod in node.pods:
            each = {c.name: (Fraction(c.cpu_nano, 1_000_000), c.memory_bytes) for c in pod.containers}
            yield pod.uid, Used(at_us, node.window_ms * 1000, each)
