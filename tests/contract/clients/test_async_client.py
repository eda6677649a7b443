"""kubernetes-asyncio against the API."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.contract.kube_served import TOKEN, WAIT_S, Served, served

pytestmark = pytest.mark.contract

k8s: Any = importlib.import_module("kubernetes_asyncio")


@asynccontextmanager
async def connected(api: Served) -> AsyncIterator[Any]:
    settings = k8s.client.Configuration(host=api.url)
    settings.ssl_ca_cert = str(api.ca)
    settings.api_key = {"BearerToken": TOKEN}
    settings.api_key_prefix = {"BearerToken": "Bearer"}
    async with k8s.client.ApiClient(settings) as connection:
        yield connection
    await asyncio.sleep(0)  # its TLS connections end one step later


async def test_objects_watch_and_dynamic_client(tmp_path: Path) -> None:
    async with served(tmp_path) as api, connected(api) as connection:
        core = k8s.client.CoreV1Api(connection)
        meta = k8s.client.V1ObjectMeta(name="x", labels={"a": "b"})
        made = await core.create_namespaced_config_map("default", k8s.client.V1ConfigMap(metadata=meta, data={"k": "1"}))
        assert made.metadata.uid
        seen: list[tuple[str, str]] = []
        watch = k8s.watch.Watch()
        async with (
            asyncio.timeout(WAIT_S),
            watch.stream(core.list_namespaced_config_map, "default", label_selector="a=b") as events,
        ):
            async for event in events:
                seen.append((event["type"], event["object"].data["k"]))
                if event["type"] == "ADDED":
                    await core.patch_namespaced_config_map("x", "default", {"data": {"k": "2"}})
                elif event["type"] == "MODIFIED":
                    await core.delete_namespaced_config_map("x", "default")
                else:
                    break
        assert seen == [("ADDED", "1"), ("MODIFIED", "2"), ("DELETED", "2")]
        with pytest.raises(k8s.client.ApiException) as gone:
            await core.read_namespaced_config_map("x", "default")
        assert gone.value.status == 404
        dynamic = await k8s.dynamic.DynamicClient(connection)
        devices = await dynamic.resources.get(api_version="devices.kubeedge.io/v1beta1", kind="Device")
        body = {"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device", "metadata": {"name": "d"}, "spec": {}}
        await devices.create(body=body, namespace="default")
        patch = {"spec": {"nodeName": "edge-1"}}
        content_type = "application/merge-patch+json"
        await devices.patch(body=patch, name="d", namespace="default", content_type=content_type)
        listed = await devices.get(namespace="default")
        assert [d.spec.nodeName for d in listed.items] == ["edge-1"]
        await devices.delete(name="d", namespace="default")
