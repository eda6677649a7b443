"""A pod's own token, on its node: who it is, what it may, without a link, and when its pod goes."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract.node_api.conftest import WAIT_S, Place, shell

pytestmark = [pytest.mark.contract, pytest.mark.timeout(180)]
k8s: Any = importlib.import_module("kubernetes")

FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"


def held(place: Place, pod: str, container: str, file: str) -> bytes:
    """A file of the token's volume; the authority's comes when its config map does, and a pod doesn't wait for that."""
    command = ("exec", pod, "-c", container, "--", "cat", f"{FOLDER}/{file}")
    place.world.until(f"{file} is there", lambda: place.run(*command).returncode == 0, seconds=WAIT_S)
    return place.ok(*command)


@contextmanager
def inside(place: Place, tmp_path: Path, pod: str, container: str, where: tuple[str, str] | None = None) -> Iterator[Any]:
    """A client that finds the API as a program in that pod does: by its files, and the two variables."""
    for file in ("token", "ca.crt", "namespace"):
        (tmp_path / file).write_bytes(held(place, pod, container, file))
    url = yaml.safe_load(place.world.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
    host, _, port = url.removeprefix("https://").rpartition(":")
    if where is not None:
        host, port = where
    loader = k8s.config.incluster_config.InClusterConfigLoader(
        token_filename=str(tmp_path / "token"),
        cert_filename=str(tmp_path / "ca.crt"),
        environ={"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port},
    )
    settings = k8s.client.Configuration()
    loader.load_and_set(settings)
    with k8s.client.ApiClient(settings) as client:
        yield client


def test_a_pod_is_its_account_and_may_what_its_roles_say(place: Place, tmp_path: Path) -> None:
    assert held(place, "two", "main", "namespace") == b"default"
    with inside(place, tmp_path, "two", "side") as client:
        me = k8s.client.AuthenticationV1Api(client).create_self_subject_review({}).status.user_info
        assert me.username == "system:serviceaccount:default:default"
        extra = {k.rpartition("/")[2]: v for k, v in me.extra.items()}
        assert (extra["pod-name"], extra["node-name"]) == (["two"], [place.node])
        core = k8s.client.CoreV1Api(client)
        with pytest.raises(k8s.client.ApiException) as refused:
            core.list_namespaced_pod("default")
        assert refused.value.status == 403
        place.ok("create", "rolebinding", "viewers", "--clusterrole=view", "--serviceaccount=default:default")
        try:
            assert "two" in [p.metadata.name for p in core.list_namespaced_pod("default").items]
        finally:
            place.ok("delete", "rolebinding", "viewers")


def test_a_pod_without_a_link_keeps_its_token(place: Place) -> None:
    token = held(place, "two", "main", "token")
    container = place.world.containers(place.node)["two/main"][0]
    place.wire.cut()
    try:
        kept = place.world.docker("exec", container, "cat", f"{FOLDER}/token")
        assert kept.encode() == token
    finally:
        place.wire.heal()
    place.world.until("the link is back", lambda: place.run("logs", "two", "-c", "side").stdout == b"beside\n")


def test_the_token_ends_with_its_pod(place: Place, tmp_path: Path) -> None:
    place.pod("short", shell("c", "exec sleep 100000"))
    with inside(place, tmp_path, "short", "c") as client:
        reviews = k8s.client.AuthenticationV1Api(client)
        assert reviews.create_self_subject_review({}).status.user_info.username.endswith(":default")
        place.ok("delete", "pod", "short", f"--timeout={WAIT_S}s")
        with pytest.raises(k8s.client.ApiException) as refused:
            reviews.create_self_subject_review({})
        assert refused.value.status == 401


def test_an_api_on_loopback_alone_is_not_promised_to_pods(place: Place) -> None:
    assert place.ok("get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}") == b"10.96.0.1"
    variables = place.ok("exec", "two", "-c", "side", "--", "env")
    assert b"KUBERNETES_SERVICE_HOST" not in variables, "from a container its own loopback leads nowhere"


def test_an_api_that_can_be_reached_is_named_to_pods_and_known_by_its_authority(place: Place, tmp_path: Path) -> None:
    """A second API server, at the address by which containers reach this machine."""
    world, config = place.world, tmp_path / "kubeconfig"
    routes = place.ok("exec", "two", "-c", "side", "--", "ip", "route").decode().split()
    gateway = routes[routes.index("default") + 2]
    where = ("--hub", str(world.hub), "--listen", "0.0.0.0:0", "--host", gateway, "--kubeconfig", str(config))
    world.start("reached", "cloud", "run", "--part", "api", *where)
    try:
        named = ("get", "service", "kubernetes", "-o", "jsonpath={.spec.externalIPs[0]}")
        world.until("the service names it", lambda: place.run(*named).stdout.decode() == gateway, seconds=WAIT_S)
        place.pod("client", shell("c", "exec sleep 100000"))
        script = "a=$KUBERNETES_SERVICE_HOST p=$KUBERNETES_SERVICE_PORT; echo $a $p; echo | nc -w 30 $a $p >/dev/null"
        host, port = place.ok("exec", "client", "-c", "c", "--", "sh", "-c", script).decode().split()
        assert host == gateway
        with inside(place, tmp_path, "client", "c", (host, port)) as client:
            me = k8s.client.AuthenticationV1Api(client).create_self_subject_review({}).status.user_info
            assert me.extra["authentication.kubernetes.io/pod-name"] == ["client"]
    finally:
        world.processes.stop("reached")
