"""Memory is given back, and the code that was let go still runs."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys

import pytest

from edge import memory


def test_resident_text_shrinks_and_everything_still_works() -> None:
    code = """
import json, sys
sys.path.insert(0, ".")
import edge.daemon
from edge import memory
from pathlib import Path
def file_kb():
    return int(next(r.split()[1] for r in Path("/proc/self/status").read_text().splitlines() if r.startswith("RssFile")))
before = file_kb()
assert memory.release()
after = file_kb()
import decimal, email.message, ssl
ssl.create_default_context()
json.dumps({"a": [1.5, None]}), str(decimal.Decimal(1) / 3)
print(before, after)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = (int(x) for x in done.stdout.split())
    assert after < before * 0.8


SMAPS = """\
7f10a0000000-7f10a0002000 r-xp 00001000 fe:00 10                         /usr/lib/libone.so
Size:                  8 kB
Anonymous:             0 kB
VmFlags: rd ex mr
7f10a0002000-7f10a0003000 r--p 00003000 fe:00 10                         /usr/lib/libone.so
Size:                  4 kB
Anonymous:             4 kB
7f10a0003000-7f10a0004000 r--p 00003000 fe:00 10                         /usr/lib/lib two.so
Anonymous:             0 kB
7f10a0004000-7f10a0005000 rw-p 00003000 fe:00 10                         /usr/lib/libone.so
Anonymous:             0 kB
7f10a0005000-7f10a0006000 r--s 00003000 fe:00 11                         /data/data.mdb
Anonymous:             0 kB
7f10a0006000-7f10a0007000 r--p 00000000 00:00 0
Anonymous:             0 kB
7f10a0007000-7f10a0008000 r-xp 00000000 00:00 0                          [vdso]
Anonymous:             0 kB
"""


def test_only_mappings_that_hold_nothing_of_their_own_are_let_go() -> None:
    assert list(memory.clean_mappings(SMAPS)) == [(0x7F10A0000000, 0x7F10A0002000), (0x7F10A0003000, 0x7F10A0004000)]


def test_the_imports_of_a_daemon_read_no_public_cas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/mine")
    with memory.without_public_cas():
        assert ssl.create_default_context().cert_store_stats()["x509_ca"] == 0
    assert os.environ["SSL_CERT_FILE"] == "/mine"
    monkeypatch.delenv("SSL_CERT_FILE")
    with memory.without_public_cas():
        pass
    assert "SSL_CERT_FILE" not in os.environ
