"""The processes of a lab: started with their output in a file, remembered on disk, ended by pid and never by name."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

STOP_S = 20.0


@dataclass(frozen=True, slots=True)
class Remembered:
    """A pid and the kernel's start time of it: together they are one process for ever."""

    name: str
    pid: int
    started: str


def started_of(pid: int) -> str | None:
    """The 22nd field of /proc/<pid>/stat (proc(5)); None when there is no such process or it is only waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


class Processes:
    def __init__(self, folder: Path) -> None:
        self._file = folder / "processes.json"
        self.logs = folder / "logs"
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def start(
        self, name: str, argv: Sequence[str], *, env: Mapping[str, str] | None = None, pipes: bool = False
    ) -> subprocess.Popen[bytes]:
        """With ``pipes``, standard input and output are ours; else output goes to ``logs/<name>.log``."""
        self.logs.mkdir(parents=True, exist_ok=True)
        log = (self.logs / f"{name}.log").open("ab")
        pipe = subprocess.PIPE
        child = subprocess.Popen(
            argv, stdin=pipe if pipes else subprocess.DEVNULL, stdout=pipe if pipes else log, stderr=log,
            start_new_session=True, env={**os.environ, **(env or {})},
        )  # fmt: skip
        log.close()
        self._children[child.pid] = child
        self.remember(name, child.pid)
        return child

    def remember(self, name: str, pid: int) -> None:
        started = started_of(pid)
        if started is not None:
            self._write([r for r in self.all() if r.name != name] + [Remembered(name, pid, started)])

    def all(self) -> list[Remembered]:
        try:
            return [Remembered(**r) for r in json.loads(self._file.read_text())]
        except (OSError, ValueError, TypeError):
            return []

    def alive(self) -> list[Remembered]:
        for child in self._children.values():
            child.poll()
        return [r for r in self.all() if started_of(r.pid) == r.started]

    def kill_9(self, name: str) -> None:
        for r in self.alive():
            if r.name == name:
                os.kill(r.pid, signal.SIGKILL)
                if r.pid in self._children:
                    self._children.pop(r.pid).wait()

    def stop(self, name: str) -> None:
        """SIGTERM to one, and wait."""
        for r in self.alive():
            if r.name == name:
                os.kill(r.pid, signal.SIGTERM)
                self._children.pop(r.pid).wait(STOP_S)

    def end_all_soon(self) -> None:
        """SIGTERM to all at once, for those to whom the order is all the same; ``stop_all`` then finds most of them gone."""
        for r in self.alive():
            os.kill(r.pid, signal.SIGTERM)
            os.kill(r.pid, signal.SIGCONT)  # one that stands still hears nothing else

    def stop_all(self) -> list[str]:
        """SIGTERM in reverse order of starting, SIGKILL for what does not end; the names of all that were ended."""
        ended = []
        for r in reversed(self.alive()):
            os.kill(r.pid, signal.SIGTERM)
            deadline = time.monotonic() + STOP_S
            while started_of(r.pid) == r.started:
                child = self._children.get(r.pid)
                if child is not None:
                    child.poll()
                if time.monotonic() > deadline:
                    os.kill(r.pid, signal.SIGKILL)
                    deadline += STOP_S
                time.sleep(0.02)
            ended.append(r.name)
        for child in self._children.values():
            for stream in (child.stdin, child.stdout):
                if stream is not None:
                    stream.close()
            child.wait()
        self._children.clear()
        self._write([])
        return ended

    def _write(self, rows: list[Remembered]) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps([asdict(r) for r in rows], indent=1))
        new.replace(self._file)
