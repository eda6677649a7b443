"""``kubectl port-forward`` into a pod on a node that has no open port."""

from __future__ import annotations

import socket
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.contract.node_api.conftest import WAIT_S, Place, forwarded, shell

pytestmark = [pytest.mark.contract, pytest.mark.timeout(180)]

BIG = 3_000_000


@pytest.fixture(scope="module")
def web(place: Place) -> str:
    script = (
        f"mkdir /www; cd /www; echo hello > index.html; head -c {BIG} /dev/zero | tr '\\0' x > big; exec httpd -f -p 8080"
    )
    echo = "exec nc -ll -p 9000 -e cat"
    place.pod("web", shell("httpd", script, readinessProbe={"tcpSocket": {"port": 8080}}), shell("echo", echo))
    return "web"


def get(port: int, path: str) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=WAIT_S) as answer:
        return bytes(answer.read())


@pytest.mark.parametrize("websockets", ["true", "false"], ids=["in a WebSocket", "plain SPDY"])
def test_a_web_server_answers_one_and_many(place: Place, web: str, websockets: str) -> None:
    with forwarded(place, web, 8080, KUBECTL_PORT_FORWARD_WEBSOCKETS=websockets) as (port, client):
        assert get(port, "index.html") == b"hello\n"
        assert get(port, "big") == b"x" * BIG
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(lambda _: get(port, "index.html"), range(24))) == {b"hello\n"}
        assert client.poll() is None


def test_bytes_go_both_ways_and_a_half_closed_connection_still_hears(place: Place, web: str) -> None:
    with forwarded(place, web, 9000) as (port, _):
        with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as s:
            for word in (b"one", b"two" * 20_000):
                s.sendall(word)
                got = b""
                while len(got) < len(word):
                    got += s.recv(65536)
                assert got == word
        with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as s:
            s.sendall(b"again")
            assert s.recv(100) == b"again"


def test_a_port_where_nobody_listens_is_told(place: Place, web: str) -> None:
    with forwarded(place, web, 1) as (port, client):
        with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as s:
            assert s.recv(10) == b""
        client.wait(WAIT_S)
        assert client.stderr is not None
        said = client.stderr.read()
        assert b"error forwarding port 1 to pod web" in said and b"refused" in said, said


def test_refusals_before_the_upgrade(place: Place) -> None:
    for args, said in ((("port-forward", "nope", ":80"), 'pods "nope" not found'),):
        done = place.run(*args)
        assert done.returncode == 1
        assert said in done.stderr.decode()
