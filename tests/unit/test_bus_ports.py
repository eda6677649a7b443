"""Ports for servers that must come back on the same one."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from bus.hub import ports


def test_ports_are_different_free_and_not_the_kernels_own() -> None:
    found = ports.free_ports(20)
    assert len(set(found)) == 20
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    for port in found:
        assert not low <= port <= high or low < ports.LOWEST + 1000
        with socket.socket() as s:
            s.bind(("127.0.0.1", port))


def test_a_port_in_use_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        used = taken.getsockname()[1]
        free = ports.free_ports(1)[0]
        answers = iter([used, free])
        monkeypatch.setattr(ports.random, "randrange", lambda *_: next(answers))
        assert ports.free_ports(1) == [free]
        monkeypatch.setattr(ports.random, "randrange", lambda *_: used)
        with pytest.raises(ports.NoFreePort):
            ports.free_ports(1)
