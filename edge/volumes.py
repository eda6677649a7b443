"""Pod volumes on the node's disk: written whole, swapped atomically, removed with the pod.

A volume of files looks as the kubelet makes it: real files in a hidden directory with a new name each time, ``..data`` a
symlink to it that is replaced by rename, and a symlink for each top-level name.  A container sees the old content or the
new one, never a mix.  Source: k8s.io/kubernetes pkg/volume/util AtomicWriter.

Blocking on purpose (small files); the executor runs it in a thread.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path

from edge.core.volumes_plan import EmptyDir, FilesVolume, HostPath, KeptDir, Volume

DATA = "..data"
GENERATION = "..g"  # prefix of the hidden directories


class VolumeError(Exception):
    """A volume can't be made as planned; the message says which, and why."""


class Volumes:
    def __init__(self, data_dir: Path, secret_dir: Path | None = None) -> None:
        """``secret_dir``, when given, is where secret volumes go: a directory on a tmpfs keeps them off the disk."""
        self._pods = data_dir / "pods"
        self._kept = data_dir / "volumes"
        self._secret_pods = secret_dir / "pods" if secret_dir is not None else self._pods

    def pod_uids(self) -> tuple[str, ...]:
        """Pods that have something on disk."""
        found: set[str] = set()
        for root in {self._pods, self._secret_pods}:
            with contextlib.suppress(FileNotFoundError):
                found.update(e.name for e in os.scandir(root) if e.is_dir(follow_symlinks=False))
        return tuple(sorted(found))

    def write(self, uid: str, volumes: Iterable[Volume], group: int | None) -> None:
        """Raises VolumeError.  Doing it again with the same content changes nothing."""
        for volume in volumes:
            try:
                self._one(uid, volume, group)
            except OSError as e:
                raise VolumeError(f"volume {volume.name}: {e.strerror or e}: {e.filename or ''}".rstrip(": ")) from e

    def remove(self, uid: str) -> None:
        """All volumes of a pod; raises VolumeError."""
        for root in {self._pods, self._secret_pods}:
            try:
                shutil.rmtree(self._pod(root, uid))
            except FileNotFoundError:
                continue
            except OSError as e:
                raise VolumeError(f"can't remove the volumes of pod {uid}: {e}") from e

    def kept(self) -> tuple[str, ...]:
        """The folders of persistent volumes."""
        try:
            return tuple(sorted(e.name for e in os.scandir(self._kept) if not e.name.startswith(".")))
        except FileNotFoundError:
            return ()

    def kept_path(self, handle: str) -> Path:
        return self._kept / handle

    def remove_kept(self, handle: str) -> None:
        """With all that is in it; raises VolumeError.  First it gets another name, so that half of it is never mounted."""
        leaving = self._kept / f".{handle}"
        try:
            with contextlib.suppress(FileNotFoundError):
                (self._kept / handle).rename(leaving)
            if leaving.exists():
                shutil.rmtree(leaving)
        except OSError as e:
            raise VolumeError(f"can't remove the data of volume {handle}: {e}") from e

    def path(self, uid: str, volume: str) -> Path:
        """Directory of a volume that was written."""
        for root in (self._pods, self._secret_pods):
            path = self._pod(root, uid) / "volumes" / volume
            if path.is_dir():
                return path
        raise VolumeError(f"volume {volume} of pod {uid} is not on disk")

    @staticmethod
    def sub_path(base: Path, sub_path: str) -> Path:
        """Where a subPath leads, made as a directory if there is nothing; raises VolumeError when it leaves the volume."""
        root = base.resolve()
        path = (root / sub_path).resolve()
        if path != root and root not in path.parents:
            raise VolumeError(f"subPath {sub_path!r} leads out of its volume")
        if not path.exists():
            try:
                path.mkdir(parents=True)
            except OSError as e:
                raise VolumeError(f"subPath {sub_path!r}: {e}") from e
        return path

    # --- writing ----------------------------------------------------------------------------------------------------

    @staticmethod
    def _pod(root: Path, uid: str) -> Path:
        if not uid or uid.startswith(".") or "/" in uid:
            raise VolumeError(f"{uid!r} is not a pod's uid")
        return root / uid

    def _one(self, uid: str, volume: Volume, group: int | None) -> None:
        if isinstance(volume, HostPath):
            _host_path(volume)
        elif isinstance(volume, KeptDir):
            self._keep(volume, group)
        elif isinstance(volume, EmptyDir):
            path = self._directory(self._pods, uid, volume.name)
            path.chmod(0o2777 if group is not None else 0o777)
            _own(path, group)
        elif isinstance(volume, FilesVolume):
            path = self._directory(self._secret_pods if volume.secret else self._pods, uid, volume.name)
            if not volume.missing:
                _swap(path, volume, group)

    def _keep(self, volume: KeptDir, group: int | None) -> None:
        """Made once; its mode and group are set then, and afterwards belong to who uses it."""
        self._kept.mkdir(mode=0o711, parents=True, exist_ok=True)
        path = self._kept / volume.handle
        if not path.exists():
            path.mkdir()
            path.chmod(0o2777 if group is not None else 0o777)
            _own(path, group)

    def _directory(self, root: Path, uid: str, name: str) -> Path:
        pod = self._pod(root, uid)
        # Nobody but root passes here on the host; containers get the volume itself by a bind mount
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = pod / "volumes" / name
        path.mkdir(parents=True, exist_ok=True)
        return path


def _swap(path: Path, volume: FilesVolume, group: int | None) -> None:
    current = path / DATA
    if _same(current, volume):
        return
    fresh = path / f"{GENERATION}{secrets.token_hex(6)}"
    fresh.mkdir(mode=0o755)
    for file in volume.files:
        target = fresh / file.path
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        mode = file.mode | (0o040 if group is not None else 0)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with open(descriptor, "wb") as out:
            os.fchmod(descriptor, mode)
            out.write(file.content)
        _own(target, group)
    link = path / f"{DATA}_tmp"
    link.unlink(missing_ok=True)
    link.symlink_to(fresh.name)
    link.rename(current)  # the one instant in which the content changes
    _links(path, {file.path.split("/", 1)[0] for file in volume.files})
    for entry in path.iterdir():
        if entry.name.startswith(GENERATION) and entry.name != fresh.name:
            shutil.rmtree(entry, ignore_errors=True)


def _links(path: Path, names: set[str]) -> None:
    for name in sorted(names):
        link = path / name
        if not link.is_symlink():
            link.symlink_to(f"{DATA}/{name}")
    for entry in path.iterdir():
        if not entry.name.startswith("..") and entry.name not in names and entry.is_symlink():
            entry.unlink()


def _same(current: Path, volume: FilesVolume) -> bool:
    if not current.is_dir():
        return False
    there = {str(p.relative_to(current)) for p in current.rglob("*") if p.is_file()}
    return there == {f.path for f in volume.files} and all(
        (current / f.path).read_bytes() == f.content for f in volume.files
    )


def _own(path: Path, group: int | None) -> None:
    if group is not None:
        # Without root a group can't be given away; the files stay readable by their mode
        with contextlib.suppress(PermissionError):
            os.chown(path, -1, group)


def _host_path(volume: HostPath) -> None:
    path = Path(volume.path)
    if volume.type == "DirectoryOrCreate":
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
    elif volume.type == "FileOrCreate" and not path.exists():
        path.touch(mode=0o644)
    checks = {
        "Directory": stat.S_ISDIR,
        "DirectoryOrCreate": stat.S_ISDIR,
        "File": stat.S_ISREG,
        "FileOrCreate": stat.S_ISREG,
        "Socket": stat.S_ISSOCK,
        "CharDevice": stat.S_ISCHR,
        "BlockDevice": stat.S_ISBLK,
    }
    check = checks.get(volume.type)
    if volume.type and check is None:
        raise VolumeError(f"volume {volume.name}: hostPath type {volume.type!r} is not known")
    if check is not None and not (path.exists() and check(path.stat().st_mode)):
        raise VolumeError(f"volume {volume.name}: hostPath type check failed: {path} is not a {volume.type}")
    if not volume.type and not path.exists():
        path.mkdir(mode=0o755, parents=True)  # no check wanted; Docker made the directory for a missing source, mounts don't
