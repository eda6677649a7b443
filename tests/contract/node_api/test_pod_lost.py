"""What readers are told when the node goes away under them."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator

import pytest

from ops.lab import setting
from tests.contract.node_api.conftest import WAIT_S, Place, forwarded, shell

pytestmark = [pytest.mark.contract, pytest.mark.timeout(180)]

SILENT = b"nothing was heard from node"


@contextlib.contextmanager
def begun(place: Place, *args: str) -> Iterator[subprocess.Popen[bytes]]:
    """kubectl, after the first line that it wrote."""
    with subprocess.Popen(place.argv(*args), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as client:
        assert client.stdout is not None
        try:
            assert client.stdout.readline()
            yield client
        finally:
            client.kill()


def test_a_cut_link_is_told_and_not_taken_for_the_end(place: Place) -> None:
    place.pod("echo", shell("c", "exec nc -ll -p 9000 -e cat", readinessProbe={"tcpSocket": {"port": 9000}}))
    command = ("exec", "two", "-c", "main", "--", "sh", "-c", "echo begun; exec sleep 1000")
    with (
        begun(place, "logs", "-f", "two", "-c", "side") as logs,
        begun(place, *command) as commanded,
        forwarded(place, "echo", 9000) as (port, forward),
        socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as connection,
    ):
        connection.sendall(b"x")
        assert connection.recv(10) == b"x"
        place.wire.cut()
        try:
            rest, err = logs.communicate(timeout=WAIT_S)
            assert (logs.returncode, rest) == (1, b"") and b"EOF" in err, err
            _, err = commanded.communicate(timeout=WAIT_S)
            assert commanded.returncode != 0 and SILENT in err, err
            with contextlib.suppress(ConnectionResetError):
                assert connection.recv(10) == b""
            forward.wait(WAIT_S)
            assert forward.stderr is not None and SILENT in forward.stderr.read()
            for args in (("logs", "two", "-c", "side"), ("exec", "two", "-c", "main", "--", "true")):
                done = place.run(*args)
                assert done.returncode != 0
                assert f"node {place.node} can't be reached" in done.stderr.decode(), done.stderr
        finally:
            place.wire.heal()
    place.world.until("the link is back", lambda: place.run("logs", "two", "-c", "side").stdout == b"beside\n")


def test_a_killed_daemon_is_told_and_its_successor_serves(place: Place) -> None:
    with begun(place, "exec", "two", "-c", "main", "--", "sh", "-c", "echo begun; exec sleep 1000") as client:
        place.world.processes.kill_9(place.node)
        try:
            _, err = client.communicate(timeout=WAIT_S)
            assert client.returncode != 0 and SILENT in err, err
            done = place.run("exec", "two", "-c", "main", "--", "true")
            assert done.returncode != 0 and b"can't be reached" in done.stderr, done.stderr
        finally:
            setting.start_edge(place.world, place.node, beat_s=1)
    place.world.until("the node serves", lambda: place.run("exec", "two", "-c", "main", "--", "true").returncode == 0)
