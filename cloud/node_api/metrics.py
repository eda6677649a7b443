"""metrics.k8s.io, for ``kubectl top``: the nodes are asked when somebody looks, so it costs nothing while nobody does.

A node that is cut off, or too slow, is not in the list, as with metrics-server; kubectl says ``<unknown>`` for it.
Source: Kubernetes documentation, "Resource metrics pipeline"; the types of k8s.io/metrics v1beta1.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from bus.kube import errors, times
from bus.kube.catalog import Resource, Version
from bus.kube.http import answers
from bus.kube.registry import Registry
from bus.kube.targets import Target
from cloud.node_api import usages
from cloud.node_api.usages import Answer

GROUP, VERSION = "metrics.k8s.io", "v1beta1"

Object = dict[str, Any]


def _kind(resource: str, kind: str, namespaced: bool) -> Resource:
    versions = {VERSION: Version(VERSION, {"type": "object"})}
    return Resource(
        GROUP, resource, kind, f"{kind}List", "", namespaced, (), (), versions, VERSION, False, [VERSION], read_only=True
    )


NODES = _kind("nodes", "NodeMetrics", False)
PODS = _kind("pods", "PodMetrics", True)


class Metrics:
    def __init__(self, used: usages.Usages, rules: Registry) -> None:
        self._used, self._rules = used, rules

    async def nodes(self, request: web.Request, target: Target, actor: str) -> web.StreamResponse:
        """Raises StatusError 404, 405."""
        _only_reads(request, target)
        selector = request.query.get("labelSelector", "")
        found, _ = await self._rules.list("", "nodes", None, labels=selector)
        wanted = [n for n in found if target.name in ("", n["metadata"]["name"])]
        used = await self._used.ask(n["metadata"]["name"] for n in wanted)
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
        used = await self._used.ask(dict.fromkeys(p["spec"]["nodeName"] for p in wanted))
        items = []
        for p in wanted:
            answer = used.get(p["spec"]["nodeName"])
            told = next((u for u in answer[1].pods if u.uid == p["metadata"]["uid"]), None) if answer else None
            if answer is not None and told is not None:
                each = [{"name": c.name, "usage": _amounts(c.cpu_nano, c.memory_bytes)} for c in told.containers]
                items.append(_entry(p, "PodMetrics", answer, containers=each))
        return _answer(target, items)


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
