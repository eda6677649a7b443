"""The container images that the demo and the tests run, made on the spot: no registry is needed.

One image: Debian's static busybox with its applets linked, named as a user would name it in a manifest.
"""

from __future__ import annotations

import io
import os
import shutil
import struct
import subprocess
import tarfile
from pathlib import Path

from ops import engine_api, packages

REPO, TAG = "busybox", "1.36"
BUSYBOX = f"{REPO}:{TAG}"
_PATHS = ("/bin/busybox", "/usr/bin/busybox", "/sbin/busybox", "/usr/sbin/busybox")
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
}
_FOLDERS = {
    "bin": 0o755,
    "etc": 0o755,
    "home": 0o755,
    "root": 0o700,
    "tmp": 0o1777,
    "usr": 0o755,
    "usr/bin": 0o755,
    "var": 0o755,
}
_PT_INTERP = 3  # ELF program header of a dynamic loader: a static program has none


def is_static(path: Path) -> bool:
    """Whether a 64-bit ELF program runs without any library beside it."""
    data = path.read_bytes()
    if data[:5] != b"\x7fELF\x02":
        return False
    order = "<" if data[5] == 1 else ">"
    (offset,) = struct.unpack_from(order + "Q", data, 32)
    size, count = struct.unpack_from(order + "HH", data, 54)
    kinds = (struct.unpack_from(order + "I", data, offset + i * size)[0] for i in range(count))
    return _PT_INTERP not in kinds


def find_busybox() -> Path | None:
    for name in (shutil.which("busybox"), *_PATHS):
        if name and os.access(name, os.X_OK) and is_static(Path(name).resolve()):
            return Path(name).resolve()
    return None


def busybox_tar(busybox: Path) -> bytes:
    """A root file system: the program once, a symbolic link for every applet (``--list`` lists busybox itself too)."""
    listed = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True, timeout=10)
    applets = sorted(set(listed.stdout.split()) - {"busybox"})
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:

        def add(name: str, kind: bytes, mode: int, data: bytes = b"", link: str = "") -> None:
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.size, member.linkname = kind, mode, len(data), link
            tar.addfile(member, io.BytesIO(data))

        for name, mode in _FOLDERS.items():
            add(name, tarfile.DIRTYPE, mode)
        for name, text in _FILES.items():
            add(name, tarfile.REGTYPE, 0o644, text.encode())
        add("bin/busybox", tarfile.REGTYPE, 0o755, busybox.read_bytes())
        for applet in applets:
            add(f"bin/{applet}", tarfile.SYMTYPE, 0o777, link="busybox")
    return out.getvalue()


def ensure(host: str) -> bool:
    """Makes the image if the engine lacks it, and says whether it did; raises EngineError."""
    if engine_api.has_image(host, BUSYBOX):
        return False
    busybox = find_busybox()
    if busybox is None and packages.can_install():
        packages.install("busybox-static")
        busybox = find_busybox()
    if busybox is None:
        try:
            engine_api.pull_image(host, REPO, TAG)
        except engine_api.EngineError as e:
            raise engine_api.EngineError(
                f"no image {BUSYBOX}: no static busybox is here to make it from (Debian: apt-get install busybox-static), "
                f"and it could not be pulled: {e}"
            ) from e
        return True
    changes = ["ENV PATH=/bin:/usr/bin:/sbin:/usr/sbin", 'CMD ["sh"]']
    engine_api.import_image(host, REPO, TAG, busybox_tar(busybox), changes)
    return True
