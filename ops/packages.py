"""Debian packages that the machine lacks: installed when root may, otherwise a message says what to install."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from ops.engine_api import EngineError

APT_TIMEOUT_S = 600  # docker.io is some 60 MB; a slow mirror needs minutes, a dead one must not hang a CI run


def can_install() -> bool:
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install(*names: str) -> None:
    """``apt-get install`` without a question; raises EngineError with the end of what apt said."""
    print(f"engine: installing {' '.join(names)} (Debian)", file=sys.stderr, flush=True)
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *names]):
        try:
            done = subprocess.run(
                ["apt-get", *command],
                env=env,
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=APT_TIMEOUT_S,
                text=True,
            )
        except subprocess.TimeoutExpired as e:
            raise EngineError(
                f"apt-get {command[0]} did not end within {APT_TIMEOUT_S} s: install {' '.join(names)} by hand"
            ) from e
        if done.returncode:
            raise EngineError(f"apt-get {command[0]} failed ({done.returncode}):\n{done.stdout[-1500:]}")
