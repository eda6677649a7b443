"""A free port for a server that must get the same one again at its next start.

So not one that the kernel hands out: while the server is down for a moment, any outgoing connection of any process could get
a port of that range, and the server would not come back.
"""

from __future__ import annotations

import random
import socket
from pathlib import Path

LOWEST = 10_240
TRIES_MAX = 200
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


class NoFreePort(Exception):
    """Nothing free was found."""


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Different ports on which nobody listens now.  Raises NoFreePort."""
    try:
        end = int(_EPHEMERAL.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        end = 32_768  # Linux's default
    if end - LOWEST < 1000:  # a machine whose range begins low: any port is as good as another then
        end = 65_536
    found: list[int] = []
    for _ in range(TRIES_MAX):
        port = random.randrange(LOWEST, end)
        with socket.socket() as s:
            try:
                s.bind((host, port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
        if len(found) == count:
            return found
    raise NoFreePort(f"no {count} free ports between {LOWEST} and {end} on {host}")
