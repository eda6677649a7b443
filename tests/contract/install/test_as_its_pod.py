"""What the Deployment says is run as its pod would run it.

Its commands and environment, its volume and its account's files in their places, in a mount namespace of their own.  It is
not a container, since CI has no registry with a base image in it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from cloud.bridge import kinds
from ops.install import cluster, objects
from ops.install.values import Values
from ops.lab.processes import Processes
from tests.contract.bridge.worlds import pod, until
from tests.contract.kube_served import Ran, Served, served
from tests.contract.kubelet.certificates import ClientCa

pytestmark = [pytest.mark.contract, pytest.mark.timeout(240)]

VALUES = Values(host="127.0.0.1")
ACCOUNT = "/run/secrets/kubernetes.io/serviceaccount"  # /var/run is a link to /run
# What a container engine and a kubelet do before the command is run.
ROOT = """\
set -e
mount -t tmpfs none /run
mkdir -p "$ACCOUNT" && cp "$FILES"/* "$ACCOUNT"
mount -t tmpfs none /var/lib
mkdir -p "$DATA" && mount --bind "$VOLUME" "$DATA"
exec "$@"
"""


class Pod:
    """One pod of the Deployment in a cluster."""

    def __init__(self, api: Served, template: dict[str, Any], folder: Path) -> None:
        self._spec, self._folder = template["spec"], folder
        url = urlsplit(api.url)
        self._env = {
            "KUBERNETES_SERVICE_HOST": str(url.hostname),
            "KUBERNETES_SERVICE_PORT": str(url.port),
            "ACCOUNT": ACCOUNT,
            "FILES": str(folder / "account"),
            "DATA": objects.DATA,
            "VOLUME": str(folder / "volume"),
            # The machine's own ports may be taken.
            **{f"SKERRY_HUB_INIT_{name}": "0" for name in ("PORT", "LEAF_PORT", "WEBSOCKET_PORT")},
        }
        self._ports = {"SKERRY_CLOUD_RUN_KUBELET": "0.0.0.0:0"}
        self.processes = Processes(folder)

    def command(self, name: str) -> tuple[list[str], dict[str, str]]:
        container = next(c for c in (*self._spec["initContainers"], *self._spec["containers"]) if c["name"] == name)
        told = {e["name"]: e.get("value", "127.0.0.1") for e in container.get("env", [])}  # the other is the pod's address
        env = self._env | told | {k: v for k, v in self._ports.items() if k in told}
        return self._within([sys.executable, "-m", "ops.cli", *container["args"]]), env

    def _within(self, argv: list[str]) -> list[str]:
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", ROOT, "pod", *argv]

    async def exec(self, *args: str) -> Ran:
        """``kubectl exec deploy/skerry -- skerry ARGS``."""
        argv, env = self._within([sys.executable, "-m", "ops.cli", *args]), {**os.environ, **self._env}
        return await _run(argv, env)

    async def init(self) -> Ran:
        argv, env = self.command("init")
        return await _run(argv, {**os.environ, **env})

    def start(self, name: str) -> None:
        argv, env = self.command(name)
        self.processes.start(name, argv, env=env)


async def _run(argv: list[str], env: dict[str, str]) -> Ran:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*argv, stdout=pipe, stderr=pipe, env=env)
    out, err = await process.communicate()
    return Ran(process.returncode or 0, out.decode(), err.decode())


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path / "cluster", rights=True) as made:
        (tmp_path / "ca").mkdir()
        published = {"client-ca-file": ClientCa(tmp_path / "ca").pem}  # as every cluster has it
        meta = {"name": "extension-apiserver-authentication"}
        await made.api.create("", "configmaps", "kube-system", {"metadata": meta, "data": published}, how=made.how())
        yield made


@pytest.fixture
async def installed(api: Served, tmp_path: Path) -> AsyncIterator[Pod]:
    installer = cluster.Installer(api.kubeconfig, say=lambda _: None)
    try:
        await installer.install(VALUES, wait_s=0)
    finally:
        await installer.close()
    deployment = await api.api.get("apps", "deployments", VALUES.namespace, objects.NAME)
    for name in ("account", "volume"):
        (tmp_path / name).mkdir()
    account = tmp_path / "account"
    (account / "token").write_text((await api.ok("-n", VALUES.namespace, "create", "token", objects.NAME)).strip())
    (account / "namespace").write_text(VALUES.namespace)
    shutil.copy(api.ca, account / "ca.crt")
    made = Pod(api, deployment["spec"]["template"], tmp_path)
    try:
        yield made
    finally:
        await asyncio.to_thread(made.processes.stop_all)


async def test_an_installed_bridge_carries_a_pod_to_the_log(api: Served, installed: Pod) -> None:
    for _ in range(2):  # a pod that is started again finds the hub that is there
        ran = await installed.init()
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
        ran = await installed.exec("replay", "at", "edge-1", "--time", "0m", "--hub", objects.HUB_DIR)
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
    token = await installed.exec("token", "create", "--node", "edge-1", "--hub", objects.HUB_DIR)
    assert token.code == 0 and token.out.startswith("skerry1.")
    await until(lambda: {r.name for r in installed.processes.alive()} == {"hub", "cloud"})
