"""What the Deployment says is run as its pod would run it (as_pod.py), against our own API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cloud.bridge import kinds
from ops.install import cluster, objects
from ops.install.values import Values
from tests.contract.bridge.worlds import pod, until
from tests.contract.install.as_pod import AsPod
from tests.contract.kube_served import Served, served
from tests.contract.kubelet.certificates import ClientCa

pytestmark = [pytest.mark.contract, pytest.mark.timeout(240)]

VALUES = Values(host="127.0.0.1")


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path / "cluster", rights=True) as made:
        (tmp_path / "ca").mkdir()
        published = {"client-ca-file": ClientCa(tmp_path / "ca").pem}  # as every cluster has it
        meta = {"name": "extension-apiserver-authentication"}
        await made.api.create("", "configmaps", "kube-system", {"metadata": meta, "data": published}, how=made.how())
        yield made


@pytest.fixture
async def installed(api: Served, tmp_path: Path) -> AsyncIterator[AsPod]:
    installer = cluster.Installer(api.kubeconfig, say=lambda _: None)
    try:
        await installer.install(VALUES, wait_s=0)
    finally:
        await installer.close()
    deployment = await api.api.get("apps", "deployments", VALUES.namespace, objects.NAME)
    token = (await api.ok("-n", VALUES.namespace, "create", "token", objects.NAME)).strip()
    made = AsPod(deployment["spec"]["template"], api.url, api.ca, token, VALUES.namespace, tmp_path)
    try:
        yield made
    finally:
        await asyncio.to_thread(made.processes.stop_all)


async def test_an_installed_bridge_carries_a_pod_to_the_log(api: Served, installed: AsPod) -> None:
    for _ in range(2):  # a pod that is started again finds the hub that is there
        ran = await asyncio.to_thread(installed.init)
        assert ran.code == 0, ran.err
    assert "tls://127.0.0.1" in ran.out and f"tls://skerry.{VALUES.namespace}.svc:" in ran.out
    installed.start("hub")
    installed.start("cloud")
    meta = {"name": "edge-1", "labels": {kinds.EDGE_LABEL: ""}}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": meta}
    await api.api.create("", "nodes", "", node, how=api.how())
    await api.api.create("", "pods", "default", pod(), how=api.how())

    last: list[str] = []

    async def told() -> bool:
        ran = await asyncio.to_thread(installed.exec, "replay", "at", "edge-1", "--time", "0m", "--hub", objects.HUB_DIR)
        last[:] = [ran.out, ran.err]
        return ran.code == 0 and "pods default/p" in ran.out

    try:
        async with asyncio.timeout(120):
            while not await told():
                await asyncio.sleep(0.5)
    except TimeoutError:
        pytest.fail(f"the node was never told of its pod: {last}")
    said = (installed.processes.logs / "cloud.log").read_text()
    assert "kubelet.serving" in said and "kubelet.client_ca" in said, said
    token = await asyncio.to_thread(installed.exec, "token", "create", "--node", "edge-1", "--hub", objects.HUB_DIR)
    assert token.code == 0 and token.out.startswith("skerry1.")
    await until(lambda: {r.name for r in installed.processes.alive()} == {"hub", "cloud"})
