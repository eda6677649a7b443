"""Memory is given back, and the code that was let go still runs."""

from __future__ import annotations

import subprocess
import sys


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
