"""What a connection has cost on the wire, from the kernel: with TLS, and with the headers of its packets.

Counters of our own would leave out TLS records and handshakes, which are most of what an idle link carries.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from bus.slim.connection import SlimConnection

PACKET_HEADER_BYTES = 52  # IPv4 20 and TCP 20 with timestamps 12
_INFO_BYTES = 232
_ACKED, _RECEIVED, _SEGMENTS_OUT, _SEGMENTS_IN = 120, 128, 136, 140  # linux/tcp.h, struct tcp_info


@dataclass(frozen=True, slots=True)
class Wire:
    """Bytes of TCP payload (TLS included) from the node and to it, and packets both ways."""

    sent: int = 0
    received: int = 0
    segments: int = 0

    @property
    def bytes(self) -> int:
        """All of it, with the headers of the packets."""
        return self.sent + self.received + self.segments * PACKET_HEADER_BYTES

    def __add__(self, other: Wire) -> Wire:
        return Wire(self.sent + other.sent, self.received + other.received, self.segments + other.segments)

    def __sub__(self, other: Wire) -> Wire:
        return Wire(self.sent - other.sent, self.received - other.received, self.segments - other.segments)


def of(connection: SlimConnection) -> Wire:
    """Since this TCP connection was made; nothing when there is none."""
    sock = connection.sock
    return Wire() if sock is None else of_socket(sock)


def of_socket(sock: socket.socket) -> Wire:
    """The same of any TCP connection."""
    if sock.fileno() < 0:
        return Wire()
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    if len(info) < _SEGMENTS_IN + 4:
        return Wire()
    sent, received = struct.unpack_from("=QQ", info, _ACKED)
    out, into = struct.unpack_from("=II", info, _SEGMENTS_OUT)
    return Wire(sent, received, out + into)
