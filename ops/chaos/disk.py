"""A disk that can be full: a file system of its own for a folder, or, where nothing may be mounted, a kernel that refuses
one process every write to a file."""

from __future__ import annotations

import contextlib
import resource
import subprocess
from pathlib import Path
from typing import Protocol

PIECE = 64 << 10
COMMAND_S_MAX = 20.0


class Disk(Protocol):
    kind: str

    def fill(self, pid: int) -> None: ...

    def free(self, pid: int) -> None: ...

    def close(self) -> None: ...


class SmallDisk:
    """``folder``, which must be empty, becomes a file system in memory."""

    kind = "tmpfs"

    def __init__(self, folder: Path, size: str) -> None:
        """Raises OSError where mounting is not permitted."""
        folder.mkdir(parents=True, exist_ok=True)
        argv = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=COMMAND_S_MAX, check=False)
        if done.returncode:
            raise OSError(f"{' '.join(argv)}: {done.stderr.strip()}")
        self._folder = folder
        self._filler = folder / "filler"

    def fill(self, pid: int) -> None:
        with contextlib.suppress(OSError), self._filler.open("ab", buffering=0) as f:
            for size in (PIECE, 1):
                with contextlib.suppress(OSError):
                    while f.write(b"\0" * size):
                        pass

    def free(self, pid: int) -> None:
        self._filler.unlink()

    def close(self) -> None:
        subprocess.run(["umount", "--lazy", str(self._folder)], timeout=COMMAND_S_MAX, check=False)


class SmallFiles:
    """``pid`` can write no file; it sees EFBIG where a full disk says ENOSPC."""

    kind = "file size limit"

    def fill(self, pid: int) -> None:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))

    def free(self, pid: int) -> None:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def close(self) -> None:
        """The limit ends with the process."""


def small(folder: Path, size: str) -> Disk:
    """The better of the two that this machine allows."""
    try:
        return SmallDisk(folder, size)
    except OSError:
        return SmallFiles()
