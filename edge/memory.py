"""Gives memory back that a daemon at rest doesn't need: a node's budget is 70 MB for daemon and leaf together.

Two things that the kernel would do only under pressure, done while there is none:

* the allocator's free pages go back (malloc_trim(3));
* the pages of program text that only the start needed are let go (madvise(2), MADV_DONTNEED on read-only file mappings: they
  are read again from the page cache when somebody calls that code).

About a sixth of the daemon's resident memory (`./just bench --only node` shows what remains).  Linux with glibc only;
elsewhere it does nothing.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
from pathlib import Path

import structlog

logger = structlog.get_logger(__name__)

FIRST_S = 20.0  # the start, its first catch-up and first containers are over by then
AGAIN_S = 300.0  # what bursts leave behind
_MADV_DONTNEED = 4


def release() -> bool:
    """True when it could be done."""
    try:
        libc = ctypes.CDLL("libc.so.6", use_errno=True)
        libc.malloc_trim.argtypes = [ctypes.c_size_t]
        libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        maps = Path("/proc/self/maps").read_text().splitlines()
    except (OSError, AttributeError):
        return False
    gc.collect()
    libc.malloc_trim(0)
    for row in maps:
        fields = row.split(maxsplit=5)
        # Text only: it is never written to, so letting it go loses nothing.  Read-only data may hold relocations.
        if len(fields) == 6 and fields[1] == "r-xp" and fields[5].startswith("/"):
            start, end = (int(x, 16) for x in fields[0].split("-"))
            libc.madvise(start, end - start, _MADV_DONTNEED)
    return True


async def keep_small() -> None:
    """For ever."""
    await asyncio.sleep(FIRST_S)
    while True:
        if not release():
            logger.info("memory.not_released", reason="not Linux with glibc")
        await asyncio.sleep(AGAIN_S)
