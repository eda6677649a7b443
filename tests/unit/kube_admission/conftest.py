"""The standalone API's rules over memory, with everything that a write must pass; no controllers."""

from __future__ import annotations

from typing import Any

import pytest

from bus.identity import api_keys
from bus.kube import memory, upkeep
from bus.kube.deletion import DeleteOptions
from bus.kube.errors import StatusError
from bus.kube.storage import Origin
from bus.kube.targets import Write
from cloud.standalone import rules

Object = dict[str, Any]


class Rules:
    def __init__(self) -> None:
        self.storage = memory.MemoryStorage()
        self.keys = api_keys.lone()
        self.issuer = rules.make_issuer(self.storage, self.keys)
        self.api = rules.make_registry(self.storage, issuer=self.issuer)
        self.how = Write(Origin("test"))

    async def create(self, resource: str, body: Object, namespace: str = "default", group: str = "") -> Object:
        return await self.api.create(group, resource, namespace, body, how=self.how)

    async def pod(self, name: str = "p", namespace: str = "default", container: Object | None = None, **spec: Any) -> Object:
        one = {"name": "c", "image": "i", **(container or {})}
        body = {"metadata": {"name": name}, "spec": {"containers": [one], **spec}}
        return await self.create("pods", body, namespace)

    async def get(self, resource: str, name: str, namespace: str = "default", group: str = "") -> Object:
        return await self.api.get(group, resource, namespace, name)

    async def delete(self, resource: str, name: str, namespace: str = "default", group: str = "") -> None:
        await self.api.delete(group, resource, namespace, name, how=self.how, options=DeleteOptions(grace_s=0))

    async def patch(self, resource: str, name: str, patch: Object, sub: str = "", group: str = "") -> Object:
        args = (group, resource, "default", name, patch)
        return await self.api.patch(*args, kind="merge", how=self.how, subresource=sub)

    async def refused(self, *args: Any, **kwargs: Any) -> StatusError:
        """What is said to a pod that is refused."""
        with pytest.raises(StatusError) as e:
            await self.pod(*args, **kwargs)
        return e.value


@pytest.fixture
async def rig() -> Rules:
    r = Rules()
    await upkeep.bootstrap(r.api, Origin("test"))
    return r
