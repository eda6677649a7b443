"""What nodes use now: asked when somebody looks, so it costs nothing while nobody does.

A node that is cut off, or too slow, has no answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

import structlog

from bus.tunnel import Dialer, NodeUnreachable, TunnelBroken, TunnelRefused
from schemas import codec, tunnel, usage

logger = structlog.get_logger(__name__)

FRESH_S = 10.0  # an answer is good for this long: ``watch kubectl top`` must not keep a fleet busy
ANSWER_S = 8.0  # for a node to measure (a second) and tell
ASKED_AT_ONCE_MAX = 256  # nodes
ANSWER_BYTES_MAX = 1 << 20
NOBODY = "-"  # a question about the whole node is about no pod

Answer = tuple[int, usage.NodeUsage]  # when, microseconds since 1970


class Usages:
    """``now_us``: the wall clock.  ``stop`` it."""

    def __init__(self, dialer: Dialer, now_us: Callable[[], int]) -> None:
        self._dialer, self._now_us = dialer, now_us
        self._known: dict[str, tuple[float, Answer | None]] = {}
        self._asking: dict[str, asyncio.Task[Answer | None]] = {}
        self._slots = asyncio.Semaphore(ASKED_AT_ONCE_MAX)

    async def stop(self) -> None:
        for task in self._asking.values():
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)

    async def ask(self, names: Iterable[str]) -> dict[str, Answer | None]:
        nodes = list(names)
        for gone in [n for n, (at, _) in self._known.items() if time.monotonic() - at > FRESH_S]:
            del self._known[gone]
        told = await asyncio.gather(*(self._one(n) for n in nodes))
        return dict(zip(nodes, told, strict=True))

    async def _one(self, node: str) -> Answer | None:
        """Who asks at the same time shares one question."""
        known = self._known.get(node)
        if known is not None:
            return known[1]
        task = self._asking.get(node)
        if task is None:
            task = self._asking[node] = asyncio.create_task(self._fetch(node), name=f"usage of {node}")
            task.add_done_callback(lambda _: self._asking.pop(node, None))
        return await asyncio.shield(task)

    async def _fetch(self, node: str) -> Answer | None:
        answer: Answer | None = None
        try:
            async with self._slots, asyncio.timeout(ANSWER_S):
                answer = self._now_us(), codec.decode_as(usage.NodeUsage, await self._read(node))
        except (NodeUnreachable, TunnelBroken, TunnelRefused, TimeoutError, codec.DecodeError) as e:
            logger.info("metrics.no_answer", node=node, reason=str(e) or type(e).__name__)
        self._known[node] = time.monotonic(), answer
        return answer

    async def _read(self, node: str) -> bytes:
        session = await self._dialer.open(node, NOBODY, NOBODY, NOBODY, tunnel.Usage(kind="usage"))
        try:
            await session.started()
            told = b""
            while (data := await session.receive(tunnel.STDOUT)) is not None:
                told += data
                if len(told) > ANSWER_BYTES_MAX:
                    raise TunnelBroken(f"node {node} tells more than {ANSWER_BYTES_MAX} bytes")
            return told
        finally:
            await session.close()
