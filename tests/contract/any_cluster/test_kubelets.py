"""kubectl through the cluster's own API server to the kubelet of a node that has no open port."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.any_cluster.conftest import WAIT_S, Site, template, workload
from tests.contract.clients import binaries
from tests.contract.node_api.conftest import shell

pytestmark = [pytest.mark.contract, pytest.mark.timeout(400)]
WAYS = {"websocket": "true", "spdy": "false"}
SERVER = "mkdir /www; cd /www; echo hello > index.html; echo begun; echo err >&2; exec httpd -f -p 8080"


@pytest.fixture(scope="module")
def web(site: Site) -> Iterator[tuple[str, str]]:
    """(namespace, pod) with two containers."""
    probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    reader = "while read line; do echo heard $line; done; exec sleep 100000"
    with site.namespace() as n:
        pod = template("web", shell("c", SERVER, readinessProbe=probe), shell("reader", reader, stdin=True))
        site.make(workload("Deployment", n, "web", pod))
        yield n, site.ready(n, "web", 1)[0]["metadata"]["name"]


def run(site: Site, program: Path, way: str, *args: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    env = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": WAYS[way], "KUBECTL_PORT_FORWARD_WEBSOCKETS": WAYS[way]}
    argv = [str(program), *site.argv(*args)[1:]]
    return subprocess.run(argv, input=stdin, env={**os.environ, **env}, capture_output=True, timeout=WAIT_S, check=False)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("minor", binaries.MINORS)
def test_logs_and_exec(site: Site, web: tuple[str, str], minor: str, way: str) -> None:
    program, (n, pod) = binaries.kubectl(minor), web
    into = ("-n", n, "exec", "-i", pod, "-c", "c", "--")
    done = run(site, program, way, "-n", n, "logs", pod, "-c", "c")
    assert (done.returncode, sorted(done.stdout.split())) == (0, [b"begun", b"err"]), done.stderr
    done = run(site, program, way, *into, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout) == (7, b"out\n"), done.stderr
    assert done.stderr.startswith(b"err\n") and b"exit code 7" in done.stderr
    data = random.Random(1).randbytes(1_000_000)
    done = run(site, program, way, *into, "sha256sum", stdin=data)
    assert done.stdout.split()[:1] == [hashlib.sha256(data).hexdigest().encode()], done.stderr
    done = run(site, program, way, *into, "head", "-c", "1000000", "/dev/zero")
    assert done.stdout == bytes(1_000_000), done.stderr


@pytest.mark.parametrize("way", WAYS)
def test_port_forward_and_attach(site: Site, web: tuple[str, str], way: str) -> None:
    n, pod = web
    env = {**os.environ, "KUBECTL_PORT_FORWARD_WEBSOCKETS": WAYS[way], "KUBECTL_REMOTE_COMMAND_WEBSOCKETS": WAYS[way]}
    pipe = subprocess.PIPE
    argv = site.argv("-n", n, "port-forward", pod, ":8080")
    with subprocess.Popen(argv, stdout=pipe, stderr=pipe, env=env) as client, ended(client):
        assert client.stdout is not None
        found = re.match(rb"Forwarding from 127\.0\.0\.1:(\d+)", client.stdout.readline())
        assert found, client.stderr and client.stderr.read()
        for _ in range(3):
            with urllib.request.urlopen(f"http://127.0.0.1:{int(found[1])}/index.html", timeout=WAIT_S) as answer:
                assert answer.read() == b"hello\n"
    argv = site.argv("-n", n, "attach", "-i", pod, "-c", "reader")
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, env=env) as client, ended(client):
        assert client.stdin is not None and client.stdout is not None
        client.stdin.write(b"one\n")
        client.stdin.flush()
        assert client.stdout.readline() == b"heard one\n"


@contextlib.contextmanager
def ended(client: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        client.kill()


def test_files_debug_and_what_the_node_proxy_gives(site: Site, web: tuple[str, str], tmp_path: Path) -> None:
    n, pod = web
    (tmp_path / "in").write_bytes(random.Random(2).randbytes(300_000))
    site.ok("-n", n, "cp", str(tmp_path / "in"), f"{pod}:/tmp/in", "-c", "c")
    site.ok("-n", n, "cp", f"{pod}:/tmp/in", str(tmp_path / "out"), "-c", "c")
    assert (tmp_path / "out").read_bytes() == (tmp_path / "in").read_bytes()
    site.ok("-n", n, "debug", pod, "--image=busybox:1.36", "--target=c", "-c", "look", "--", "ps")
    site.until("the debugger saw it", lambda: b"httpd" in site.run("-n", n, "logs", pod, "-c", "look").stdout)


def test_who_may_not_is_told_so_by_the_cluster(site: Site, web: tuple[str, str]) -> None:
    n, pod = web
    site.ok("-n", n, "create", "role", "looks", "--verb=get", "--resource=pods")
    site.ok("-n", n, "create", "rolebinding", "looks", "--role=looks", "--user=somebody")
    refused = site.run("-n", n, "--as", "somebody", "exec", pod, "-c", "c", "--", "true")
    assert refused.returncode != 0 and b'"pods/exec"' in refused.stderr, refused.stderr
    for args, said in (
        (("exec", pod, "-c", "nope", "--", "true"), "container nope is not valid for pod"),
        (("logs", pod, "-c", "nope"), "container nope is not valid for pod"),
        (("logs", pod, "-c", "c", "--previous"), "previous"),
    ):
        done = site.run("-n", n, *args)
        assert done.returncode == 1 and said in done.stderr.decode(), (args, done.stderr)
