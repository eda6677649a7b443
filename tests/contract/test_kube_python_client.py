"""The official Python client against the API."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.kube_served import TOKEN, Served, served

pytestmark = pytest.mark.contract

k8s: Any = importlib.import_module("kubernetes")


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as found:
        yield found


def client_of(api: Served) -> Any:
    settings = k8s.client.Configuration(host=api.url)
    settings.ssl_ca_cert = str(api.ca)
    settings.api_key = {"authorization": TOKEN}
    settings.api_key_prefix = {"authorization": "Bearer"}
    return k8s.client.ApiClient(settings)


async def test_create_read_list_replace_patch_delete(api: Served) -> None:
    def work() -> None:
        with client_of(api) as connection:
            core = k8s.client.CoreV1Api(connection)
            meta = k8s.client.V1ObjectMeta(name="x", labels={"a": "b"})
            made = core.create_namespaced_config_map("default", k8s.client.V1ConfigMap(metadata=meta, data={"k": "1"}))
            assert made.metadata.uid and core.read_namespaced_config_map("x", "default").data == {"k": "1"}
            made.data = {"k": "2"}
            core.replace_namespaced_config_map("x", "default", made)
            with pytest.raises(k8s.client.ApiException) as stale:
                core.replace_namespaced_config_map("x", "default", made)
            assert stale.value.status == 409
            assert core.patch_namespaced_config_map("x", "default", {"data": {"l": "3"}}).data == {"k": "2", "l": "3"}
            assert len(core.list_namespaced_config_map("default", label_selector="a=b").items) == 1
            assert core.delete_namespaced_config_map("x", "default")["status"] == "Success"
            with pytest.raises(k8s.client.ApiException) as gone:
                core.read_namespaced_config_map("x", "default")
            assert gone.value.status == 404

    await asyncio.to_thread(work)


async def test_pages(api: Served) -> None:
    for i in range(7):
        obj = {"metadata": {"name": f"p{i}"}, "data": {}}
        await api.api.create("", "configmaps", "default", obj, how=api.how())

    def work() -> list[str]:
        found: list[str] = []
        with client_of(api) as connection:
            core, token = k8s.client.CoreV1Api(connection), None
            while True:
                page = core.list_namespaced_config_map("default", limit=3, _continue=token)
                found += [i.metadata.name for i in page.items]
                token = page.metadata._continue
                if not token:
                    return found

    assert await asyncio.to_thread(work) == [f"p{i}" for i in range(7)]


async def test_watch(api: Served) -> None:
    seen: list[tuple[str, str, str]] = []

    def work() -> None:
        with client_of(api) as connection:
            core, watch = k8s.client.CoreV1Api(connection), k8s.watch.Watch()
            for event in watch.stream(core.list_namespaced_pod, "default", timeout_seconds=20):
                pod = event["object"]
                seen.append((event["type"], pod.metadata.name, pod.status.phase))
                if event["type"] == "DELETED":
                    watch.stop()

    watching = asyncio.create_task(asyncio.to_thread(work))
    spec = {"containers": [{"name": "c", "image": "i"}]}
    await api.api.create("", "pods", "default", {"metadata": {"name": "p"}, "spec": spec}, how=api.how())
    body = {"status": {"phase": "Running"}}
    await api.api.patch("", "pods", "default", "p", body, kind="merge", how=api.how(), subresource="status")
    async with asyncio.timeout(20):
        while not seen:
            await asyncio.sleep(0.02)
    await api.api.delete("", "pods", "default", "p", how=api.how())
    await watching
    assert seen[-1] == ("DELETED", "p", "Running") and seen[0][0] == "ADDED"


async def test_custom_objects_and_deployments(api: Served) -> None:
    def work() -> None:
        with client_of(api) as connection:
            objects, apps = k8s.client.CustomObjectsApi(connection), k8s.client.AppsV1Api(connection)
            at = ("devices.kubeedge.io", "v1beta1", "default", "devices")
            device = {"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device", "metadata": {"name": "d"}}
            objects.create_namespaced_custom_object(*at, {**device, "spec": {"nodeName": "edge-1"}})
            assert objects.get_namespaced_custom_object(*at, "d")["spec"] == {"nodeName": "edge-1"}
            labels = {"app": "w"}
            pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
            body = {"metadata": {"name": "w"}, "spec": {"selector": {"matchLabels": labels}, "template": pod}}
            apps.create_namespaced_deployment("default", body)
            apps.patch_namespaced_deployment_scale("w", "default", {"spec": {"replicas": 3}})
            assert apps.read_namespaced_deployment("w", "default").spec.replicas == 3
            assert apps.read_namespaced_deployment_scale("w", "default").spec.replicas == 3

    await asyncio.to_thread(work)


async def test_dynamic_client(api: Served) -> None:
    def work() -> None:
        with client_of(api) as connection:
            dynamic = importlib.import_module("kubernetes.dynamic").DynamicClient(connection)
            configs = dynamic.resources.get(api_version="v1", kind="ConfigMap")
            made = configs.create(body={"metadata": {"name": "x"}, "data": {"a": "1"}}, namespace="default")
            assert made.metadata.uid
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": "2"}}
            applied = configs.server_side_apply(
                body=body, name="x", namespace="default", field_manager="me", force_conflicts=True
            )
            assert applied.data.a == "2"
            seen = []
            for event in configs.watch(namespace="default", timeout=20, name="x"):
                seen.append((event["type"], event["object"].data.a))
                if event["type"] == "DELETED":
                    break
                configs.delete(name="x", namespace="default")
            assert seen == [("ADDED", "2"), ("DELETED", "2")]
            deployments = dynamic.resources.get(api_version="apps/v1", kind="Deployment")
            assert {"scale", "status"} <= set(deployments.subresources)
            assert "devices.kubeedge.io" in {r.group for r in dynamic.resources.search(kind="Device")}

    await asyncio.to_thread(work)
