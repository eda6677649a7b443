"""metrics.k8s.io, for ``kubectl top``: the nodes are asked when somebody looks, so it costs nothing while nobody does.

A node that is cut off, or too slow, is not in the list, as with metrics-server; kubectl says ``<unknown>`` for it.
Source: Kubernetes documentation, "Resource metrics pipeline"; the types of k8s.io/metrics v1beta1.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any

import structlog
from aiohttp import web

from bus.kube import errors, times
from bus.kube.catalog import Resource, Version
from bus.kube.http import answers
from bus.kube.registry import Registry
from bus.kube.targets import Target
from bus.tunnel import Dialer, NodeUnreachable, TunnelBroken, TunnelRefused
from schemas import codec, tunnel, usage

logger = structlog.get_logger(__name__)

GROUP, VERSION = "metrics.k8s.io", "v1beta1"
FRESH_S = 10.0  # an answer is good for this long: ``watch kubectl top`` must not keep a fleet busy
ANSWER_S = 8.0  # for a node to measure (a second) and tell
ASKED_AT_ONCE_MAX = 256  # nodes
ANSWER_BYTES_MAX = 1 << 20
NOBODY = "-"  # a question about the whole node is about no pod

Object = dict[str, Any]
Answer = tuple[int, usage.NodeUsage]  # when, microseconds since 1970


def _kind(resource: str, kind: str, namespaced: bool) -> Resource:
    versions = {VERSION: Version(VERSION, {"type": "object"})}
    return Resource(
        GROUP, resource, kind, f"{kind}List", "", namespaced, (), (), versions, VERSION, False, [VERSION], read_only=True
    )


NODES = _kind("nodes", "NodeMetrics", False)
PODS = _kind("pods", "PodMetrics", True)


class Metrics:
    def __init__(self, dialer: Dialer, rules: Registry) -> None:
        self._dialer, self._rules = dialer, rules
        self._known: dict[str, tuple[float, Answer | None]] = {}
        self._asking: dict[str, asyncio.Task[Answer | None]] = {}
        self._slots = asyncio.Semaphore(ASKED_AT_ONCE_MAX)

    async def nodes(self, request: web.Request, target: Target, actor: str) -> web.StreamResponse:
        """Raises StatusError 404, 405."""
        _only_reads(request, target)
        selector = request.query.get("labelSelector", "")
        found, _ = await self._rules.list("", "nodes", None, labels=selector)
        wanted = [n for n in found if target.name in ("", n["metadata"]["name"])]
        used = await self._ask(n["metadata"]["name"] for n in wanted)
        items = [
            _entry(n, "NodeMetrics", answer, usage=_amounts(answer[1].cpu_nano, answer[1].memory_bytes))
            for n in wanted
            if (answer := used.get(n["metadata"]["name"])) is not None
        ]
        return _answer(target, items)

    async def pods(self, request: web.Request, target: Target, actor: str) -> web.StreamResponse:
        """Raises StatusError 404, 405."""
        _only_reads(request, target)
        labels, fields = request.query.get("labelSelector", ""), request.query.get("fieldSelector", "")
        found, _ = await self._rules.list("", "pods", target.namespace or None, labels=labels, fields=fields)
        wanted = [p for p in found if p["spec"].get("nodeName") and target.name in ("", p["metadata"]["name"])]
        used = await self._ask(dict.fromkeys(p["spec"]["nodeName"] for p in wanted))
        items = []
        for p in wanted:
            answer = used.get(p["spec"]["nodeName"])
            told = next((u for u in answer[1].pods if u.uid == p["metadata"]["uid"]), None) if answer else None
            if answer is not None and told is not None:
                each = [{"name": c.name, "usage": _amounts(c.cpu_nano, c.memory_bytes)} for c in told.containers]
                items.append(_entry(p, "PodMetrics", answer, containers=each))
        return _answer(target, items)

    async def stop(self) -> None:
        for task in self._asking.values():
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)

    # --- asking ----------------------------------------------------------------------------------------------------

    async def _ask(self, names: Iterable[str]) -> dict[str, Answer | None]:
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
                answer = self._rules.now_us(), codec.decode_as(usage.NodeUsage, await self._read(node))
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


def _only_reads(request: web.Request, target: Target) -> None:
    if request.method not in ("GET", "HEAD"):
        raise errors.method_not_allowed(GROUP, target.resource.resource, request.method)
    if target.subresource:
        raise errors.no_such_path()


def _entry(obj: Object, kind: str, answer: Answer, **more: Any) -> Object:
    meta = obj["metadata"]
    head = {k: meta[k] for k in ("name", "namespace", "labels") if k in meta}
    at = times.of_micros(answer[0])
    return {
        "kind": kind,
        "apiVersion": f"{GROUP}/{VERSION}",
        "metadata": {**head, "creationTimestamp": at},
        "timestamp": at,
        "window": f"{answer[1].window_ms / 1000:g}s",
        **more,
    }


def _amounts(cpu_nano: int, memory_bytes: int) -> Object:
    return {"cpu": f"{cpu_nano}n" if cpu_nano else "0", "memory": f"{memory_bytes >> 10}Ki"}


def _answer(target: Target, items: list[Object]) -> web.Response:
    res = target.resource
    if target.name:
        if not items:
            raise errors.not_found(GROUP, res.resource, target.name)
        return answers.respond(items[0])
    head = {"kind": res.list_kind, "apiVersion": f"{GROUP}/{VERSION}", "metadata": {}}
    return answers.respond({**head, "items": items})
