"""kubectl of three versions, over WebSocket and SPDY, through a cluster's API server to a node that has no open port."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import subprocess
import urllib.request
from pathlib import Path

import pytest

from tests.contract.clients import binaries
from tests.contract.kubelet.conftest import PLAIN, Bridged
from tests.contract.node_api.conftest import WAIT_S, forwarded, shell

pytestmark = [pytest.mark.contract, pytest.mark.timeout(180)]

INTO = ("exec", "two", "-c", "main")
WAYS = {"websocket": "true", "spdy": "false"}


def run(place: Bridged, program: Path, way: str, *args: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    env = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": WAYS[way], "KUBECTL_PORT_FORWARD_WEBSOCKETS": WAYS[way]}
    argv = [str(program), *place.argv(*args)[1:]]
    return subprocess.run(argv, input=stdin, env={**os.environ, **env}, capture_output=True, timeout=WAIT_S, check=False)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("minor", binaries.MINORS)
def test_a_version(place: Bridged, minor: str, way: str) -> None:
    program, before = binaries.kubectl(minor), len(place.cluster.front.upgraded)
    done = run(place, program, way, "logs", "two", "-c", "side")
    assert (done.returncode, done.stdout) == (0, b"beside\n"), done.stderr
    done = run(place, program, way, *INTO, "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout) == (7, b"out\n"), done.stderr
    assert done.stderr.startswith(b"err\n") and b"exit code 7" in done.stderr
    data = random.Random(1).randbytes(1_000_000)
    done = run(place, program, way, "exec", "-i", *INTO[1:], "--", "sha256sum", stdin=data)
    assert done.stdout.split()[:1] == [hashlib.sha256(data).hexdigest().encode()], done.stderr
    done = run(place, program, way, *INTO, "--", "head", "-c", "1000000", "/dev/zero")
    assert done.stdout == bytes(1_000_000), done.stderr
    spoken = place.cluster.front.upgraded[before:]
    assert spoken == ["v5.channel.k8s.io"] * 3, "the node's kubelet spoke it, not the API server"


@pytest.fixture(scope="module")
def web(place: Bridged) -> str:
    script = "mkdir /www; cd /www; echo hello > index.html; exec httpd -f -p 8080"
    probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    place.pod("web", shell("httpd", script, readinessProbe=probe), **PLAIN)
    return "web"


@pytest.mark.parametrize("way", WAYS)
def test_a_web_server_is_forwarded(place: Bridged, web: str, way: str) -> None:
    before = len(place.cluster.front.upgraded)
    with forwarded(place, web, 8080, KUBECTL_PORT_FORWARD_WEBSOCKETS=WAYS[way]) as (port, client):
        for _ in range(3):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/index.html", timeout=WAIT_S) as answer:
                assert answer.read() == b"hello\n"
        assert client.poll() is None
    expected = {"websocket": "SPDY/3.1+portforward.k8s.io", "spdy": "portforward.k8s.io"}
    assert place.cluster.front.upgraded[before:] == [expected[way]]


@pytest.mark.parametrize("way", WAYS)
def test_attach(place: Bridged, way: str) -> None:
    name = f"attached-{way}"
    loop = "while read line; do echo heard $line; echo err >&2; done"
    place.pod(name, shell("c", loop, stdin=True), **PLAIN)
    env = {**os.environ, "KUBECTL_REMOTE_COMMAND_WEBSOCKETS": WAYS[way]}
    pipe = subprocess.PIPE
    with subprocess.Popen(place.argv("attach", "-i", name), stdin=pipe, stdout=pipe, stderr=pipe, env=env) as client:
        assert client.stdin is not None and client.stdout is not None
        try:
            client.stdin.write(b"one\n")
            client.stdin.flush()
            assert client.stdout.readline() == b"heard one\n"
        finally:
            client.kill()


def test_options_of_logs_and_files_in_and_out(place: Bridged, tmp_path: Path) -> None:
    assert place.ok("logs", "two", "-c", "main", "--tail=2").count(b"\n") == 2
    assert b"Z " in place.ok("logs", "two", "-c", "main", "--timestamps", "--limit-bytes=200")
    (tmp_path / "in").write_bytes(random.Random(2).randbytes(300_000))
    place.ok("cp", str(tmp_path / "in"), "two:/tmp/in", "-c", "main")
    place.ok("cp", "two:/tmp/in", str(tmp_path / "out"), "-c", "main")
    assert (tmp_path / "out").read_bytes() == (tmp_path / "in").read_bytes()


@pytest.mark.parametrize("way", WAYS)
def test_refusals(place: Bridged, way: str) -> None:
    program = binaries.kubectl(binaries.MINORS[-1])
    for args, said in (
        (("exec", "two", "-c", "nope", "--", "true"), "container nope is not valid for pod two"),
        (("logs", "two", "-c", "nope"), "container nope is not valid for pod two"),
        (("logs", "two", "-c", "side", "--previous"), "previous"),
    ):
        done = run(place, program, way, *args)
        assert done.returncode == 1 and said in done.stderr.decode(), (args, done.stderr)


@pytest.mark.parametrize("way", WAYS)
def test_a_reader_that_reads_nothing_holds_up_no_other(place: Bridged, way: str) -> None:
    env = {**os.environ, "KUBECTL_REMOTE_COMMAND_WEBSOCKETS": WAYS[way]}
    argv = place.argv(*INTO, "--", "cat", "/dev/zero")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as slow:
        assert slow.stdout is not None
        try:
            assert slow.stdout.read(1) == b"\0"
            for _ in range(3):
                assert place.ok(*INTO, "--", "echo", "meanwhile") == b"meanwhile\n"
            assert place.ok("logs", "two", "-c", "side") == b"beside\n"
            assert slow.poll() is None
        finally:
            slow.kill()


def test_a_cut_link_is_told(place: Bridged) -> None:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}

    def begun(way: str, *args: str) -> subprocess.Popen[bytes]:
        env = {**os.environ, "KUBECTL_REMOTE_COMMAND_WEBSOCKETS": WAYS[way]}
        return subprocess.Popen(place.argv(*args), env=env, **pipes)

    with contextlib.ExitStack() as stack:
        command = (*INTO, "--", "sh", "-c", "echo begun; exec sleep 1000")
        commands = [stack.enter_context(begun(way, *command)) for way in WAYS]
        logs = stack.enter_context(begun("spdy", "logs", "-f", "two", "-c", "side"))
        try:
            for client in (*commands, logs):
                assert client.stdout is not None and client.stdout.readline()
            place.wire.cut()
            for client in commands:
                _, err = client.communicate(timeout=WAIT_S)
                assert client.returncode != 0 and b"nothing was heard from node" in err, err
            _, err = logs.communicate(timeout=WAIT_S)
            assert logs.returncode != 0 and b"EOF" in err, err
            done = place.run("logs", "two", "-c", "side")
            assert done.returncode != 0 and f"node {place.node} can't be reached" in done.stderr.decode(), done.stderr
        finally:
            place.wire.heal()
            for client in (*commands, logs):
                client.kill()
    place.world.until("the link is back", lambda: place.run("logs", "two", "-c", "side").stdout == b"beside\n")
