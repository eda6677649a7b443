"""TLS as a node needs it: short hellos, and coming back with the ticket of the last time.

A reconnect over a metered link is mostly its handshake.  Two things make that small:

* **Tickets** (RFC 8446, 2.2 and 4.6.1).  A server gives one at the end of each handshake; who brings it next time is sent
  no certificates and checks none.  It proves the same thing: only the server whose certificate was checked then can read
  it, and the keys of the new connection are fresh (``psk_dhe_ke``).  A ticket is kept in memory, for the one connection
  that got it, and used only for the same server.  A server that was restarted can't read the tickets of its former life,
  and the handshake is a whole one, without anybody having to notice.  When an attempt with a ticket fails, the next goes
  without.
* **No padding**: OpenSSL fills hellos up to 517 bytes for a load balancer of 2013, and sends empty records so that what
  stands between takes TLS 1.3 for its predecessor.  NATS greets before TLS begins, so nothing that could mind gets that far.
  WebSocket links do without this: what stands between them and the hub is made for HTTPS.

asyncio makes its TLS objects itself, by ``wrap_bio`` of the context it is given, in the context variables of who asked for
the handshake; that is where the ticket goes in.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import ssl
from collections.abc import Iterator
from pathlib import Path

SERVERS_MAX = 16  # whose tickets one connection keeps; a hub has three, or some more with fronts

_TLSEXT_PADDING = ssl.Options(1 << 4)  # SSL_OP_TLSEXT_PADDING of OpenSSL's ssl.h; Python has no name for it
# For a server that speaks nothing newer than TLS 1.2: what the default list has of forward secrecy and authenticated
# encryption.  The whole list is twice as long and says nothing more to ours, which take TLS 1.3.
_CIPHERS_BEFORE_13 = "ECDHE+AESGCM:ECDHE+CHACHA20"


class Tickets:
    """Of one connection, from the servers it has been connected to."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        # The TLS object of the last connection to a server: the ticket comes after the handshake, so it is asked for late.
        self._last: dict[str, tuple[ssl.SSLContext, ssl.SSLObject]] = {}

    @contextlib.contextmanager
    def dialing(self, server: str) -> Iterator[None]:
        """Whoever begins a TLS handshake inside begins it with ``server``'s ticket, when there is one."""
        token = _DIALING.set((self, server))
        try:
            yield
        finally:
            _DIALING.reset(token)

    def session(self, server: str, context: ssl.SSLContext) -> ssl.SSLSession | None:
        """What to come back with; once: it is forgotten until the server has given another."""
        of, last = self._last.pop(server, (None, None))
        if last is None or of is not context:  # the authority's file was replaced: everything is to be checked anew
            return None
        if last.version() is None:  # that handshake never ended: perhaps for the ticket that it began with
            return None
        session = last.session
        return session if session is not None and session.has_ticket else None

    def keep(self, server: str, context: ssl.SSLContext, made: ssl.SSLObject) -> None:
        while len(self._last) >= SERVERS_MAX:
            del self._last[next(iter(self._last))]
        self._last[server] = (context, made)


_DIALING: contextvars.ContextVar[tuple[Tickets, str] | None] = contextvars.ContextVar("dialing", default=None)


class _Context(ssl.SSLContext):
    """A client's context, whose handshakes take part in ``Tickets``."""

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        dialing = _DIALING.get()
        if dialing is None:
            return super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)
        tickets, server = dialing
        session = tickets.session(server, self)
        made = super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)
        tickets.keep(server, self, made)
        return made


def lean(ca: Path) -> ssl.SSLContext:
    """Trusts what leads to ``ca`` and has the name that was dialled; as the default context does, in fewer bytes.
    Raises OSError, ssl.SSLError."""
    context = _Context(ssl.PROTOCOL_TLS_CLIENT)  # checks certificates and names
    context.verify_flags = ssl.create_default_context(cafile=str(ca)).verify_flags
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS_BEFORE_13)
    context.options &= ~(_TLSEXT_PADDING | ssl.OP_ENABLE_MIDDLEBOX_COMPAT)
    context.load_verify_locations(cafile=str(ca))
    return context


@functools.lru_cache(maxsize=8)
def _trust(ca: str, changed_ns: int, whole: bool) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca) if whole else lean(Path(ca))


def trust(ca: Path, *, web: bool = False) -> ssl.SSLContext:
    """One context for all connections that trust this file as it is written now: a context is 18 kB and 0.3 ms, which an
    edge node has once and a process with thousands of connections thousands of times.  ``web``: for WebSocket links.
    Raises OSError, ssl.SSLError."""
    return _trust(str(ca), ca.stat().st_mtime_ns, web)
