"""What the server's log and events say of refusals, as bytes it really wrote (2.15.1), and a log file that is moved away."""

from __future__ import annotations

from pathlib import Path

from bus.hub import refusals

KEY = "UAUGIQBNPZQAJER4VFDDMXMZ67XDI66LVJGNUF57455TRBJWFSIVXRBL"
WHO = f'"ADVWBMQYILMOSEOTFXYXQQMTVAIWJLIRCZMPWFSQIF5JKBZ5MYMJQOYL/EDGE/jwt:{KEY}"'
HEAD = f'[16825] 2026/11/23 14:20:02.869509 [ERR] 127.0.0.1:37792 - cid:55 - "v0:raw:hostile" - {WHO} - '


def test_lines_of_the_log() -> None:
    parsed = refusals.parse_line
    assert parsed(HEAD + 'Subscription Violation - Subject ">", SID 1') == refusals.Refusal(KEY, "subscribe", ">")
    assert parsed(HEAD + 'Publish Violation - Subject "meta.0.edge-2.x"') == refusals.Refusal(
        KEY, "publish", "meta.0.edge-2.x"
    )
    assert parsed(HEAD + "maximum subscriptions exceeded") == refusals.Refusal(
        KEY, "limit", "maximum subscriptions exceeded"
    )
    for other in ("", "[1] [INF] Server is ready", HEAD + "TLS handshake error: EOF", "Publish Violation"):
        assert parsed(other) is None


def test_a_client_name_cannot_forge_a_line() -> None:
    """The name is the client's own choice; what stands after the server's own words is not."""
    other = KEY.replace("UAUG", "UBBB")
    name = f'v0:raw: - {WHO.replace(KEY, other)} - Publish Violation - Subject "x"'
    forged = f'1.2.3.4:5 - cid:5 - "{name}" - {WHO} - Publish Violation - Subject "y"'
    assert refusals.parse_line(forged) == refusals.Refusal(KEY, "publish", "y")


def test_events_that_are_no_refusals() -> None:
    for payload in (b"", b"[]", b"{}", b'{"client": {"jwt": 5}}', b'{"client": {"user": "U", "reason": 3}}'):
        assert refusals.parse_login(payload) is None
        assert refusals.parse_end(payload) is None
    assert refusals.parse_end(b'{"client": {"user": "UX"}, "reason": "Client Closed"}') is None
    assert refusals.parse_end(b'{"client": {"user": "UX"}, "reason": "Maximum Message Payload Exceeded"}') is not None


def test_a_tail_goes_on_in_the_new_file_and_skips_a_flood(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("before\n")
    tail = refusals.Tail(path)
    tail.open_at_end()
    with path.open("a") as f:
        f.write("one\ntw")
        f.flush()
        assert tail.read() == ["one"]
        f.write("o\n")
    path.rename(tmp_path / "log.bak")
    path.write_text("three\n")
    assert tail.read() == ["two"]
    assert tail.read() == ["three"]
    assert tail.read() == []
    with path.open("a") as f:
        f.write(("x" * 99 + "\n") * (2 * refusals.READ_BYTES_MAX // 100))
    tail.read()
    assert tail.skipped > 0
    assert tail.read() == []
    tail.close()
