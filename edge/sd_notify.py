"""Tells systemd how we are: ready, alive, and a sentence for `systemctl status`.

The protocol is one datagram of NAME=value lines to the socket in $NOTIFY_SOCKET (sd_notify(3)): too little for a dependency.
"""

from __future__ import annotations

import os
import socket

SEND_TIMEOUT_S = 1.0  # systemd reads at once; a stuck receiver must not stop a node


def notify(*lines: str) -> bool:
    """Sends lines such as ``READY=1``; False when nobody asked for them or the socket does not take them."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]  # the abstract namespace (unix(7))
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.settimeout(SEND_TIMEOUT_S)
            sock.connect(address)
            sock.sendall("\n".join(lines).encode())
    except OSError:
        return False
    return True


def watchdog_s() -> float | None:
    """Seconds within which systemd wants to hear WATCHDOG=1, None when it doesn't (sd_watchdog_enabled(3))."""
    try:
        us = int(os.environ.get("WATCHDOG_USEC", ""))
        pid = int(os.environ.get("WATCHDOG_PID", os.getpid()))
    except ValueError:
        return None
    return us / 1_000_000 if us > 0 and pid == os.getpid() else None
