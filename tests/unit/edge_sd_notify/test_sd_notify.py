"""What systemd would get, over a real datagram socket, in the file system and in the abstract namespace."""

import os
import re
import socket
from pathlib import Path

import pytest

from edge import sd_notify

UNITS = sorted((Path(__file__).resolve().parents[3] / "ops/systemd").glob("*.service"))


@pytest.mark.parametrize("kind", ["file", "abstract"])
def test_lines_arrive_in_one_datagram(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"{tmp_path}/n" if kind == "file" else f"@skerry-test-{os.getpid()}"
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(name.replace("@", "\0") if kind == "abstract" else name)
        assert sd_notify.notify("READY=1", "STATUS=in sync")
        assert systemd.recv(4096) == b"READY=1\nSTATUS=in sync"
        assert sd_notify.notify("WATCHDOG=1")
        assert systemd.recv(4096) == b"WATCHDOG=1"


@pytest.mark.parametrize("name", [None, "", "relative", "/nowhere/at/all", "@nobody-listens-here", "/" + "x" * 200])
def test_nobody_listening_is_no_error(name: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if name is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", name)
    assert not sd_notify.notify("READY=1")


def test_the_watchdog_is_for_the_process_that_systemd_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    assert sd_notify.watchdog_s() is None
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    assert sd_notify.watchdog_s() == 30
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid() + 1))
    assert sd_notify.watchdog_s() is None
    monkeypatch.setenv("WATCHDOG_PID", "nonsense")
    assert sd_notify.watchdog_s() is None


@pytest.mark.parametrize("unit", UNITS, ids=lambda p: p.name)
def test_units_promise_what_the_design_needs(unit: Path) -> None:
    text = unit.read_text()
    assert re.search(r"^Type=notify$", text, re.MULTILINE)
    assert re.search(r"^Restart=always$", text, re.MULTILINE)
    assert re.search(r"^WatchdogSec=\d+$", text, re.MULTILINE)
    assert re.search(r"^KillMode=(process|mixed)$", text, re.MULTILINE)
    assert re.search(r"^ExecStart=/opt/skerry/bin/skerry (hub|cloud|edge) run$", text, re.MULTILINE)


def test_there_is_a_unit_for_each_daemon() -> None:
    assert [u.name for u in UNITS] == ["skerry-cloud.service", "skerry-edge.service", "skerry-hub.service"]
