"""TLS tickets, between a client and a server in memory."""

from __future__ import annotations

import contextlib
import datetime
import ssl
from dataclasses import dataclass
from pathlib import Path

import pytest

from bus import resuming
from bus.hub import tls

HOST, SERVER = "hub.example", "hub.example:4222"
NOW = datetime.datetime.now(datetime.UTC)


@dataclass
class Authority:
    folder: Path

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    def server(self, host: str = HOST) -> ssl.SSLContext:
        """A server's own life: its tickets are read by no other."""
        cert, key = self.folder / f"{host}.pem", self.folder / f"{host}.key"
        tls.issue(self.folder, cert, key, [host], NOW)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        return context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    tls.make_ca(tmp_path, "test", NOW)
    return Authority(tmp_path)


class Broken(Exception):
    pass


def shake(
    client: ssl.SSLContext, server: ssl.SSLContext, tickets: resuming.Tickets, to: str = SERVER, *, cut: bool = False
) -> tuple[bool, int]:
    """(Whether a ticket was taken, bytes of the hello).  ``cut``: the connection ends after the hello; raises Broken."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    with tickets.dialing(to):
        ours = client.wrap_bio(to_client, to_server, server_hostname=to.partition(":")[0])
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    with pytest.raises(ssl.SSLWantReadError):
        ours.do_handshake()
    hello = to_server.pending
    if cut:
        raise Broken
    for side in (theirs, ours, theirs):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    theirs.write(b"hello")
    assert ours.read(10) == b"hello"  # and the ticket that came before it
    return bool(ours.session_reused), hello


def test_the_second_time_a_ticket_is_brought_and_taken_and_so_on(authority: Authority) -> None:
    client, server, tickets = resuming.lean(authority.ca), authority.server(), resuming.Tickets()
    assert [shake(client, server, tickets)[0] for _ in range(4)] == [False, True, True, True]


def test_a_server_that_began_anew_reads_no_ticket_and_is_greeted_in_whole(authority: Authority) -> None:
    client, tickets = resuming.lean(authority.ca), resuming.Tickets()
    first, second = authority.server(), authority.server()
    assert [shake(client, s, tickets)[0] for s in (first, first, second, second)] == [False, True, False, True]


@pytest.mark.parametrize("what", ["another server", "another connection", "a replaced authority"])
def test_a_ticket_is_for_one_connection_to_one_server_under_one_authority(authority: Authority, what: str) -> None:
    client, server, tickets = resuming.lean(authority.ca), authority.server(), resuming.Tickets()
    shake(client, server, tickets)
    to = SERVER
    if what == "another server":
        to = HOST + ":4223"
    elif what == "another connection":
        tickets = resuming.Tickets()
    else:
        client = resuming.lean(authority.ca)
    assert shake(client, server, tickets, to)[0] is False


def test_an_attempt_that_failed_with_a_ticket_is_followed_by_one_without(authority: Authority) -> None:
    client, server, tickets = resuming.lean(authority.ca), authority.server(), resuming.Tickets()
    shake(client, server, tickets)
    with pytest.raises(Broken):
        shake(client, server, tickets, cut=True)
    assert [shake(client, server, tickets)[0] for _ in range(2)] == [False, True]


def test_a_ticket_vouches_for_nobody_else(authority: Authority, tmp_path: Path) -> None:
    """What is checked without a ticket is checked: the name, and the authority."""
    client, tickets = resuming.lean(authority.ca), resuming.Tickets()
    shake(client, authority.server(), tickets)
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake(client, authority.server("other.example"), tickets)
    folder = tmp_path / "foreign"
    folder.mkdir()
    tls.make_ca(folder, "foreign", NOW)
    for _ in range(2):
        with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer|self.signed"):
            shake(client, Authority(folder).server(), tickets)


def test_hellos_are_short_and_tickets_bounded(authority: Authority) -> None:
    client, server, tickets = resuming.lean(authority.ca), authority.server(), resuming.Tickets()
    assert shake(client, server, tickets)[1] < 300  # 522 as OpenSSL pads them
    for n in range(3 * resuming.SERVERS_MAX):
        shake(client, server, tickets, f"{HOST}:{n}")
    assert len(tickets._last) == resuming.SERVERS_MAX


def test_a_web_link_greets_as_browsers_do_and_a_context_is_made_once(authority: Authority) -> None:
    web, lean = resuming.trust(authority.ca, web=True), resuming.trust(authority.ca)
    assert web is resuming.trust(authority.ca, web=True) and lean is resuming.trust(authority.ca)
    assert shake(web, authority.server(), resuming.Tickets())[1] > 500
    for context in (web, lean):
        assert context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname
        assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
