"""Gives memory back that a daemon at rest doesn't need: a node's budget is 70 MB for daemon and leaf together.

Two things that the kernel would do only under pressure, done while there is none:

* the allocator's free pages go back (malloc_trim(3));
* the pages of libraries that only the start needed are let go (madvise(2), MADV_DONTNEED on read-only mappings of files:
  they are read again from the page cache when somebody needs them).

About a fifth of the daemon's resident memory (`./just bench --only node` shows what remains).  Linux with glibc only;
elsewhere it does nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
from collections.abc import Iterator
from pathlib import Path

import structlog

logger = structlog.get_logger(__name__)

FIRST_S = 20.0  # the start, its first catch-up and first containers are over by then
AGAIN_S = 300.0  # what bursts leave behind
_MADV_DONTNEED = 4


@contextlib.contextmanager
def without_public_cas() -> Iterator[None]:
    """For the imports of a daemon: aiohttp reads the system's bundle of public CAs when it is imported (1.7 MB), and a node
    trusts none of them.  Its hub's CA comes with its identity, and the probes of pods verify nothing (as the kubelet's)."""
    name = "SSL_CERT_FILE"
    before = os.environ.get(name)
    os.environ[name] = os.devnull
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def release() -> bool:
    """True when it could be done."""
    try:
        libc = ctypes.CDLL("libc.so.6", use_errno=True)
        libc.malloc_trim.argtypes = [ctypes.c_size_t]
        libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        gc.collect()
        libc.malloc_trim(0)
        for start, end in clean_mappings(Path("/proc/self/smaps").read_text()):
            libc.madvise(start, end - start, _MADV_DONTNEED)
    except (OSError, AttributeError):
        return False
    return True


def clean_mappings(smaps: str) -> Iterator[tuple[int, int]]:
    """(start, end) of each private, read-only mapping of a file that holds nothing of its own (proc(5), ``smaps``).

    Nothing of its own: a page that relocation has written to is ``Anonymous`` and would be lost."""
    found: tuple[int, int] | None = None
    for row in smaps.splitlines():
        name, _, rest = row.partition(" ")
        if not name.endswith(":"):
            fields = row.split(maxsplit=5)
            start, end = (int(x, 16) for x in name.split("-"))
            of_file = len(fields) == 6 and fields[5].startswith("/")
            found = (start, end) if of_file and fields[1] in ("r-xp", "r--p") else None
        elif name == "Anonymous:" and found is not None and rest.split()[0] == "0":
            yield found


async def keep_small() -> None:
    """For ever."""
    await asyncio.sleep(FIRST_S)
    while True:
        if not release():
            logger.info("memory.not_released", reason="not Linux with glibc")
        await asyncio.sleep(AGAIN_S)
