"""A cluster that is given (SKERRY_TEST_KUBECONFIG), Skerry installed in it, and an edge node with real containers.

The cluster must be one that can be spared: definitions, roles and nodes are made and taken away again.  The installed pod's
commands run here, as its account with its rights and no more (tests/contract/install/as_pod.py), so the cluster's API server
must reach this machine at the address from which this machine reaches it.
"""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from cloud.bridge import credentials
from ops.install import objects
from ops.lab import setting
from ops.lab.world import World, free_port, node_ready, pod_ready
from tests.contract.install.as_pod import AsPod
from tests.contract.node_api.conftest import KUBECTL, Place

GIVEN = os.environ.get("SKERRY_TEST_KUBECONFIG", "")
NAMESPACE = "skerry-system"
WAIT_S = 90  # a cluster may be far away
GRACE_S = 8
BEAT_S = 2
IMAGE = "busybox:1.36"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if GIVEN:
        return
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="SKERRY_TEST_KUBECONFIG names no cluster"))


class Site(Place):
    """``node`` is the edge node; kubectl is the administrator's."""

    installed: AsPod
    folder: Path
    nobody: Path  # a kubeconfig of the cluster with no user in it

    def make(self, *found: dict[str, Any]) -> None:
        self.ok("create", "-f", "-", stdin=yaml.safe_dump_all(found).encode())

    def get(self, *args: str) -> dict[str, Any]:
        return self.world.get(*args)

    def until(self, what: str, check: Callable[[], object]) -> Any:
        return self.world.until(what, check, seconds=WAIT_S)

    def run_as(self, *args: str) -> subprocess.CompletedProcess[bytes]:
        """With ``--token``, and without who the administrator is."""
        argv = [KUBECTL, "--kubeconfig", str(self.nobody), *args]
        return subprocess.run(argv, capture_output=True, timeout=WAIT_S, check=False)

    def ok_as(self, *args: str) -> bytes:
        done = self.run_as(*args)
        assert done.returncode == 0, (args, done.stderr)
        return done.stdout

    def said(self, name: str = "cloud") -> str:
        return (self.installed.processes.logs / f"{name}.log").read_text()

    @contextlib.contextmanager
    def namespace(self) -> Iterator[str]:
        name = f"skerry-test-{secrets.token_hex(4)}"
        self.ok("create", "namespace", name)
        self.until("its account", lambda: self.get("-n", name, "serviceaccount", "default"))
        try:
            yield name
        finally:
            self.ok("delete", "namespace", name, "--wait=false")
            self.until("its pods are gone", lambda: not self.get("-n", name, "pods").get("items"))

    def another(self, *, address: str = "", **env: str) -> AsPod:
        """A second pod of the installation, on the same volume; ``env`` as an administrator would set it."""
        return as_pod(self.world, self.folder / "another", volume=self.installed.volume, address=address, env=env)

    def pods_of(self, namespace: str, app: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("-n", namespace, "pods", "-l", f"app={app}").get("items", [])
        return found

    def ready(self, namespace: str, app: str, count: int) -> list[dict[str, Any]]:
        """The pods, when there are so many and all are ready."""

        def look() -> list[dict[str, Any]]:
            found = self.pods_of(namespace, app)
            return found if len(found) == count and all(pod_ready(p) for p in found) else []

        made: list[dict[str, Any]] = self.until(f"{count} ready pods of {app}", look)
        return made

    def node_is(self, status: str) -> None:
        self.until(f"the node's Ready is {status}", lambda: node_ready(self.get("node", self.node)) == status)


def meta(name: str, namespace: str) -> dict[str, Any]:
    return {"name": name, "namespace": namespace}


def template(app: str, *containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    made = [{"image": IMAGE, **c} for c in containers]
    return {
        "metadata": {"labels": {"app": app}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "nodeSelector": {"node-role.kubernetes.io/edge": ""},
            "containers": made,
            **spec,
        },
    }


def workload(kind: str, namespace: str, app: str, pod: dict[str, Any], **spec: Any) -> dict[str, Any]:
    version = "batch/v1" if kind in ("Job", "CronJob") else "apps/v1"
    selector = {} if version == "batch/v1" else {"selector": {"matchLabels": {"app": app}}}
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": meta(app, namespace),
        "spec": {**selector, "template": pod, **spec},
    }


def sleeper(name: str = "c", **more: Any) -> dict[str, Any]:
    return {"name": name, "command": ["sleep", "100000"], **more}


def local_address(url: str) -> str:
    """From which this machine reaches the API server."""
    at = urlsplit(url)
    with socket.create_connection((str(at.hostname), at.port or 443), timeout=10) as s:
        return str(s.getsockname()[0])


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("any-cluster")
    world = World(folder / "world")
    world.folder.mkdir()
    world.kubeconfig = Path(GIVEN)
    node = f"edge-{secrets.token_hex(4)}"
    try:
        # A cluster may check kubelets' certificates (--kubelet-certificate-authority): then it has to sign ours.
        how = ("--host", "127.0.0.1", "--kubelet-csr", "approve", "--wait", "0")
        world.skerry("install", "--kubeconfig", GIVEN, *how)
        pod = as_pod(world, folder)
        ran = pod.init()
        assert ran.code == 0, ran.err
        world.hub = pod.volume / "hub"
        pod.start("hub")
        world.until("the hub answers", lambda: _answers(world), seconds=WAIT_S)
        pod.start("cloud", "--grace", str(GRACE_S))
        made = Site(world, setting.wire(world, node), node)
        made.installed, made.folder, made.nobody = pod, folder, folder / "nobody"
        made.nobody.write_text(_anonymous(Path(GIVEN), folder / "ca.crt"))
        made.until("the kubelets are served", lambda: "kubelet.serving" in made.said())
        made.until("with a certificate of the cluster's", lambda: "kubelet.certificate" in made.said())
        join(made, node)
        setting.start_edge(world, node, beat_s=BEAT_S)
        made.node_is("True")
        yield made
    finally:
        _down(world, node)


def as_pod(
    world: World, folder: Path, *, volume: Path | None = None, address: str = "", env: dict[str, str] | None = None
) -> AsPod:
    """The installed Deployment's pod, with a token that the cluster gives for its account."""
    folder.mkdir(exist_ok=True)
    deployment = world.get("-n", NAMESPACE, "deployment", objects.NAME)
    token = world.kubectl("-n", NAMESPACE, "create", "token", objects.NAME).strip()
    url, ca = credentials.load(Path(GIVEN)).url, folder / "ca.crt"
    ca.write_text(_ca(Path(GIVEN)))
    return AsPod(
        deployment["spec"]["template"],
        url,
        ca,
        token,
        NAMESPACE,
        folder,
        kubelet_port=free_port(),
        volume=volume,
        address=address or local_address(url),
        env=env,
        processes=world.processes,
    )


def _answers(world: World) -> bool:
    return ": ok" in world.skerry("hub", "status", "--data", str(world.hub), check=False)


def join(site: Site, node: str) -> None:
    ran = site.installed.exec("token", "create", "--node", node, "--hub", objects.HUB_DIR)
    assert ran.code == 0, ran.err
    url = f"tls://127.0.0.1:{site.wire.port}"
    where = ("--data", str(site.world.node_dir(node)), "--leaf-port", "0", "--leaf-url", url)
    site.world.skerry("edge", "join", ran.out.strip().splitlines()[-1], "--node", node, *where)


def _anonymous(kubeconfig: Path, ca: Path) -> str:
    where = {"server": credentials.load(kubeconfig).url, "certificate-authority": str(ca)}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": where}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": ""}}],
        "current-context": "c",
    }
    return yaml.safe_dump(config)


def _ca(kubeconfig: Path) -> str:
    config = yaml.safe_load(kubeconfig.read_text())
    name = next(c["context"]["cluster"] for c in config["contexts"] if c["name"] == config["current-context"])
    cluster = next(c["cluster"] for c in config["clusters"] if c["name"] == name)
    if "certificate-authority-data" in cluster:
        return base64.b64decode(cluster["certificate-authority-data"]).decode()
    return (kubeconfig.parent / cluster["certificate-authority"]).read_text()


def _down(world: World, node: str) -> None:
    world.kubectl("delete", "node", node, "--ignore-not-found", check=False)
    if (world.hub / "hub.json").exists():
        setting.down(world)
    else:
        world.processes.stop_all()
        shutil.rmtree(world.folder, ignore_errors=True)
    world.skerry("uninstall", "--kubeconfig", GIVEN, "--data", "--definitions", check=False)
    world.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=false", check=False)
