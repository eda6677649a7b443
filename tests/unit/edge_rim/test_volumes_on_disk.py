"""Volumes as files: whole or not at all, nobody else's, gone with the pod."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from edge.core.volumes_plan import EmptyDir, File, FilesVolume, HostPath, KeptDir
from edge.volumes import VolumeError, Volumes


def files(name: str = "v", secret: bool = False, missing: str = "", **content: str) -> FilesVolume:
    return FilesVolume(name, tuple(File(k, v.encode(), 0o644) for k, v in content.items()), secret, missing)


def read(path: Path) -> dict[str, str]:
    return {p.name: p.read_text() for p in path.iterdir() if not p.name.startswith("..")}


def test_content_is_swapped_and_nothing_of_the_old_stays(tmp_path: Path) -> None:
    volumes = Volumes(tmp_path)
    volumes.write("u", [files(a="1", b="2")], None)
    path = volumes.path("u", "v")
    assert read(path) == {"a": "1", "b": "2"}
    first = os.readlink(path / "..data")
    volumes.write("u", [files(a="1", b="2")], None)
    assert os.readlink(path / "..data") == first  # the same content is left alone
    volumes.write("u", [files(b="3", c="4")], None)
    assert read(path) == {"b": "3", "c": "4"}
    assert len([p for p in path.iterdir() if p.name.startswith("..")]) == 2  # ..data and one generation
    volumes.write("u", [files(missing="gone")], None)
    assert read(path) == {"b": "3", "c": "4"}  # what is missing now but was there before stays


def test_a_reader_never_sees_a_mix(tmp_path: Path) -> None:
    volumes = Volumes(tmp_path)
    volumes.write("u", [files(a="0", b="0")], None)
    path, mixed, stop = volumes.path("u", "v"), [], threading.Event()

    def look() -> None:
        while not stop.is_set():
            try:
                at = os.open(path / "..data", os.O_RDONLY | os.O_DIRECTORY)  # as one who opened the directory once
            except FileNotFoundError:
                continue  # the link was followed just before the old generation was removed
            try:
                found = {Path(f"/proc/self/fd/{at}/{n}").read_text() for n in ("a", "b")}
            except FileNotFoundError:
                continue  # the old generation was removed under the open directory
            finally:
                os.close(at)
            if len(found) > 1:
                mixed.append(found)

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for n in range(200):
            volumes.write("u", [files(a=str(n), b=str(n))], None)
    finally:
        stop.set()
        reader.join()
    assert mixed == []


def test_a_write_that_was_cut_off_is_finished_by_the_next(tmp_path: Path) -> None:
    volumes = Volumes(tmp_path)
    volumes.write("u", [files(a="1")], None)
    path = volumes.path("u", "v")
    (path / "..g-half").mkdir()
    (path / "..g-half" / "a").write_text("ha")
    (path / "..data_tmp").symlink_to("..g-half")
    volumes.write("u", [files(a="2")], None)
    assert read(path) == {"a": "2"}
    assert not (path / "..g-half").exists() and not (path / "..data_tmp").is_symlink()


def test_modes_and_nested_paths(tmp_path: Path) -> None:
    volumes = Volumes(tmp_path)
    volume = FilesVolume("v", (File("d/e/f", b"x", 0o400), File("g", b"y", 0o640)), False)
    volumes.write("u", [volume], None)
    path = volumes.path("u", "v")
    assert (path / "d/e/f").read_bytes() == b"x"
    assert (path / "d/e/f").stat().st_mode & 0o777 == 0o400 and (path / "g").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "pods").stat().st_mode & 0o077 == 0


def test_secrets_go_where_they_are_told_and_all_goes_with_the_pod(tmp_path: Path) -> None:
    volumes = Volumes(tmp_path / "disk", tmp_path / "tmpfs")
    volumes.write("u", [files("s", secret=True, key="k"), files("c", a="1"), EmptyDir("e")], 1234)
    assert (tmp_path / "tmpfs/pods/u/volumes/s/key").read_text() == "k"
    assert not (tmp_path / "disk/pods/u/volumes/s").exists()
    assert (tmp_path / "disk/pods/u/volumes/e").stat().st_mode & 0o2777 == 0o2777
    (tmp_path / "disk/pods/u/volumes/e/data").write_text("x")
    assert volumes.pod_uids() == ("u",)
    volumes.remove("u")
    volumes.remove("u")
    assert volumes.pod_uids() == ()
    with pytest.raises(VolumeError, match="not on disk"):
        volumes.path("u", "c")


@pytest.mark.parametrize("uid", ["", "..", "a/b", ".hidden"])
def test_a_uid_is_no_way_out(tmp_path: Path, uid: str) -> None:
    with pytest.raises(VolumeError, match="not a pod's uid"):
        Volumes(tmp_path).remove(uid)


def test_sub_paths_stay_inside(tmp_path: Path) -> None:
    base = tmp_path / "volume"
    base.mkdir()
    assert Volumes.sub_path(base, "new/dir").is_dir()
    (base / "file").write_text("x")
    assert Volumes.sub_path(base, "file") == base / "file"
    (base / "link").symlink_to("/etc")
    for leading_out in ("link", "link/passwd", "../volume2"):
        with pytest.raises(VolumeError, match="leads out"):
            Volumes.sub_path(base, leading_out)


def test_host_path_types(tmp_path: Path) -> None:
    volumes = Volumes(tmp_path / "data")

    def check(path: str, kind: str) -> None:
        volumes.write("u", [HostPath("h", str(tmp_path / path), kind)], None)

    check("made", "DirectoryOrCreate")
    check("file", "FileOrCreate")
    check("made", "Directory")
    check("file", "File")
    check("any", "")
    assert (tmp_path / "any").is_dir() and (tmp_path / "file").is_file()
    for path, kind in (("none", "Directory"), ("made", "File"), ("file", "Directory"), ("made", "Socket"), ("made", "Odd")):
        with pytest.raises(VolumeError, match="hostPath type"):
            check(path, kind)


def test_a_disk_that_says_no_is_named(tmp_path: Path) -> None:
    (tmp_path / "pods").write_text("a file where a directory should be")
    with pytest.raises(VolumeError, match="volume v: "):
        Volumes(tmp_path).write("u", [files(a="1")], None)


def test_what_a_claim_keeps_outlives_its_pods_and_goes_whole(tmp_path: Path) -> None:
    volumes = Volumes(tmp_path)
    assert volumes.kept() == ()
    volumes.write("u1", [KeptDir("v", "pvc-1")], None)
    path = volumes.kept_path("pvc-1")
    (path / "data").write_text("precious")
    path.chmod(0o700)
    volumes.remove("u1")
    volumes.write("u2", [KeptDir("v", "pvc-1"), KeptDir("w", "pvc-2", True)], 1234)
    assert (path / "data").read_text() == "precious" and path.stat().st_mode & 0o7777 == 0o700
    assert volumes.kept() == ("pvc-1", "pvc-2") and volumes.kept_path("pvc-2").stat().st_mode & 0o7777 == 0o2777
    volumes.remove_kept("pvc-1")
    volumes.remove_kept("pvc-1")
    assert volumes.kept() == ("pvc-2",) and not path.exists()


def test_a_removal_that_was_cut_short_goes_on(tmp_path: Path) -> None:
    volumes = Volumes(tmp_path)
    volumes.write("u", [KeptDir("v", "pvc-1")], None)
    volumes.kept_path("pvc-1").rename(tmp_path / "volumes" / ".pvc-1")  # the daemon died just after this
    assert volumes.kept() == ()
    volumes.remove_kept("pvc-1")
    assert list((tmp_path / "volumes").iterdir()) == []
