"""A program with the official Python client, as users have them: run by test_pod_python_client.py in a process of its own,
because the client leaves sockets to the garbage collector.

Arguments: kubeconfig, what to do.  Asserts; its exit code tells."""

from __future__ import annotations

import importlib
import sys
import time
from typing import Any

k8s: Any = importlib.import_module("kubernetes")
streams: Any = importlib.import_module("kubernetes.stream")

WAIT_S = 60


def commands(core: Any) -> None:
    assert core.read_namespaced_pod_log("two", "default", container="side") == "beside\n"
    run = core.connect_get_namespaced_pod_exec
    options = {"container": "main", "stdout": True, "stderr": True, "tty": False}
    assert streams.stream(run, "two", "default", command=["echo", "hello"], stdin=False, **options) == "hello\n"
    talk = streams.stream(run, "two", "default", command=["sh"], stdin=True, _preload_content=False, **options)
    talk.write_stdin("echo got; echo bad >&2; exit 7\n")
    talk.run_forever(timeout=WAIT_S)
    said = (talk.read_stdout(), talk.read_stderr(), talk.returncode)
    assert said == ("got\n", "bad\n", 7), said


def ports(core: Any) -> None:
    """The pod ``echo2`` answers on 9000 with what it is told."""
    ask = core.connect_get_namespaced_pod_portforward
    deadline = time.monotonic() + WAIT_S
    while True:
        forward = streams.portforward(ask, "echo2", "default", ports="9000")
        sock = forward.socket(9000)
        sock.settimeout(WAIT_S)
        sock.sendall(b"are you there")
        if sock.recv(100) == b"are you there":
            break
        assert "refused" in forward.error(9000)  # it doesn't listen yet
        assert time.monotonic() < deadline
    sent, got = bytes(range(256)) * 8_000, b""
    for at in range(0, len(sent), 100_000):
        sock.sendall(sent[at : at + 100_000])
        while len(got) < min(at + 100_000, len(sent)):
            got += sock.recv(1 << 20)
    assert got == sent
    forward.close()
    refused = streams.portforward(ask, "echo2", "default", ports="1")
    sock = refused.socket(1)
    sock.settimeout(WAIT_S)
    assert sock.recv(10) == b""
    assert "connection refused" in refused.error(1), refused.error(1)


if __name__ == "__main__":
    with k8s.config.new_client_from_config(config_file=sys.argv[1]) as connection:
        {"commands": commands, "ports": ports}[sys.argv[2]](k8s.client.CoreV1Api(connection))
