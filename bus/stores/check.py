"""Walks a store's file in a process of its own: ``python -m bus.stores.check <folder>``.

LMDB keeps no checksums and reads through a memory map, so a damaged file may not raise but end the process that reads it: a
file that was cut short is a SIGBUS, a page of junk can be a SIGSEGV.  A daemon that dies so at each start would never come
back.  Hence a child walks every page first (tens of milliseconds for a node's store), and its end tells.

Exit code 0: every record can be read.  Anything else, a signal included: damaged.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bus.stores import base

CHECK_S_MAX = 120.0  # 4 GB, the largest store, from a slow card
DATA = "data.mdb"


def check(path: Path) -> None:
    """Raises StoreCorrupt for a damaged store; a folder without one is sound."""
    data = path / DATA
    if not data.exists() or data.stat().st_size == 0:  # LMDB makes an empty file a new store
        return
    try:
        done = subprocess.run(
            [sys.executable, "-m", "bus.stores.check", str(path)],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=CHECK_S_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired as e:
        raise base.StoreCorrupt(f"{path}: not read to its end in {CHECK_S_MAX:.0f} s: its pages may lead in a circle") from e
    if done.returncode:
        why = done.stderr.strip().splitlines()[-1:] or [f"reading it ended by signal {-done.returncode}"]
        raise base.StoreCorrupt(
            f"{path}: damaged: {why[0][:300]}; it can be thrown away, the replica is rebuilt from the log"
        )


def main(path: Path) -> int:
    from bus.stores import lmdb_store

    try:
        lmdb_store.walk(path)
    except base.StoreError as e:
        print(e, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
