"""A registry over memory, with a clock and a random source that tests hold in their hands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bus.kube import upkeep
from bus.kube.errors import StatusError
from bus.kube.memory import MemoryStorage
from bus.kube.registry import Registry
from bus.kube.storage import Origin
from bus.kube.targets import Write

ME = Origin("tester")
NS = "default"


class Clock:
    def __init__(self) -> None:
        self.us = 1_790_000_000_000_000

    def __call__(self) -> int:
        return self.us


class Api:
    """Shorter words for what tests do most."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.storage = MemoryStorage()
        self._count = 0
        self.rules = Registry(self.storage, clock=self.clock, random=self._random)

    def _random(self, n: int) -> bytes:
        self._count += 1
        return self._count.to_bytes(n, "little")

    async def create(self, resource: str, obj: dict[str, Any], group: str = "", namespace: str = NS, **how: Any) -> Any:
        return await self.rules.create(group, resource, namespace, obj, how=Write(ME, **how))

    async def get(self, resource: str, name: str, group: str = "", namespace: str = NS) -> Any:
        return await self.rules.get(group, resource, namespace, name)

    async def update(self, resource: str, obj: dict[str, Any], group: str = "", sub: str = "", **how: Any) -> Any:
        name = obj["metadata"]["name"]
        return await self.rules.update(group, resource, NS, name, obj, how=Write(ME, **how), subresource=sub)

    async def patch(
        self, resource: str, name: str, patch: Any, kind: str = "merge", group: str = "", sub: str = "", **how: Any
    ) -> Any:
        return await self.rules.patch(group, resource, NS, name, patch, kind=kind, how=Write(ME, **how), subresource=sub)

    async def delete(self, resource: str, name: str, group: str = "", namespace: str = NS, **options: Any) -> Any:
        from bus.kube.deletion import DeleteOptions

        return await self.rules.delete(group, resource, namespace, name, how=Write(ME), options=DeleteOptions(**options))


@pytest.fixture
async def api() -> Api:
    found = Api()
    await upkeep.bootstrap(found.rules, ME)
    return found


@pytest.fixture
def refused() -> Callable[..., Any]:
    """``await refused(coroutine, 409, "Conflict")`` gives the error, and fails for anything else."""

    async def check(attempt: Any, code: int, reason: str) -> StatusError:
        with pytest.raises(StatusError) as e:
            await attempt
        assert (e.value.code, e.value.reason) == (code, reason), e.value.message
        return e.value

    return check


def config_map(name: str = "x", **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def pod(name: str = "p", **spec: Any) -> dict[str, Any]:
    base = {"containers": [{"name": "main", "image": "busybox:1"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {**base, **spec}}


def deployment(name: str = "web", **spec: Any) -> dict[str, Any]:
    template = {"metadata": {"labels": {"app": name}}, "spec": pod()["spec"]}
    base = {"selector": {"matchLabels": {"app": name}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {**base, **spec}}
