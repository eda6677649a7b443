"""The sandbox's only process, written as bytes: a node needs no registry, and no compiler, for its sandboxes.

A static ELF executable of some 300 bytes that ignores SIGCHLD (so the kernel reaps orphans for it where a pod shares its
process namespace), exits on SIGTERM and SIGINT (so that an engine that shuts down needn't wait for its grace period: a
process 1 without a handler never gets them), and sleeps.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import tarfile

IMAGE = "skerry/pause:1"
PATH = "pause"

_LOAD_ADDRESS = 0x400000
_PAGE_MAX = 0x10000  # of an aarch64 kernel; the alignment that all of them accept
_HEADERS = 64 + 56  # ELF header and one program header
_MACHINES = {"x86_64": 62, "aarch64": 183}
_GO_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}  # what image configurations call them
_LINUX_NAMES = {go: linux for linux, go in _GO_NAMES.items()}
_SA_RESTORER = 0x04000000  # x86-64 refuses a handler without one, even a handler that never returns
_SIG_IGN = 1


class UnknownArchitecture(ValueError):
    pass


def elf(architecture: str) -> bytes:
    """The executable for x86_64 or aarch64 (or Go's names for them); raises UnknownArchitecture."""
    architecture = _LINUX_NAMES.get(architecture, architecture)
    build = {"x86_64": _x86_64, "aarch64": _aarch64}.get(architecture)
    if build is None:
        raise UnknownArchitecture(
            f"no built-in sandbox for {architecture}: set a sandbox image (one that only waits, as registry.k8s.io/pause)"
        )
    body = build(_LOAD_ADDRESS + _HEADERS)
    size = _HEADERS + len(body)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01" + bytes(9),  # 64 bit, little endian, version 1, System V
        2,  # ET_EXEC
        _MACHINES[architecture],
        1,
        _LOAD_ADDRESS + _HEADERS,  # entry point
        64,  # program headers
        0,
        0,
        64,
        56,
        1,
        0,
        0,
        0,
    )
    program = struct.pack(
        "<IIQQQQQQ", 1, 5, 0, _LOAD_ADDRESS, _LOAD_ADDRESS, size, size, 0x1000
    )  # PT_LOAD, read and execute
    return header + program + body


def image_archive(architecture: str) -> bytes:
    """The image as `docker load` takes it: the same bytes, so the same image id, every time."""
    layer = _tar({PATH: elf(architecture)}, 0o755)
    digest = hashlib.sha256(layer).hexdigest()
    config = json.dumps(
        {
            "architecture": _GO_NAMES.get(architecture, architecture),
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {"Entrypoint": [f"/{PATH}"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
            "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "skerry"}],
        },
        sort_keys=True,
    ).encode()
    config_name, layer_name = f"{hashlib.sha256(config).hexdigest()}.json", f"{digest}/layer.tar"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [IMAGE], "Layers": [layer_name]}]).encode()
    return _tar({config_name: config, layer_name: layer, "manifest.json": manifest}, 0o644)


def _tar(files: dict[str, bytes], mode: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), mode
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


# --- x86-64: System V ABI system calls; number in rax, arguments in rdi, rsi, rdx, r10 ------------------------------

_X86_RT_SIGACTION, _X86_PAUSE, _X86_EXIT = 13, 34, 60


def _x86_64(base: int) -> bytes:
    def code(exit_at: int, stop_action: int, ignore_action: int) -> tuple[bytes, int]:
        start = b"".join(
            _x86_sigaction(signal, action) for signal, action in ((17, ignore_action), (15, stop_action), (2, stop_action))
        )
        loop = b"\xb8" + struct.pack("<I", _X86_PAUSE) + b"\x0f\x05" + b"\xeb\xf7"  # mov eax, pause; syscall; jmp back 9
        end = b"\x31\xff" + b"\xb8" + struct.pack("<I", _X86_EXIT) + b"\x0f\x05"  # xor edi, edi; mov eax, exit; syscall
        return start + loop + end, base + len(start) + len(loop)

    length = len(code(0, 0, 0)[0])
    stop_action = base + length
    ignore_action = stop_action + 32
    text, exit_at = code(0, stop_action, ignore_action)
    # struct kernel_sigaction: handler, flags, restorer, mask
    return text + struct.pack("<QQQQ", exit_at, _SA_RESTORER, exit_at, 0) + struct.pack("<QQQQ", _SIG_IGN, 0, 0, 0)


def _x86_sigaction(signal: int, action: int) -> bytes:
    """rt_sigaction(signal, action, NULL, 8)"""
    return (
        b"\xb8"
        + struct.pack("<I", _X86_RT_SIGACTION)  # mov eax, rt_sigaction
        + b"\xbf"
        + struct.pack("<I", signal)  # mov edi, signal
        + b"\xbe"
        + struct.pack("<I", action)  # mov esi, action
        + b"\x31\xd2"  # xor edx, edx
        + b"\x41\xba"
        + struct.pack("<I", 8)  # mov r10d, 8
        + b"\x0f\x05"  # syscall
    )


# --- aarch64: system call number in x8, arguments in x0 to x3; it has no pause, ppoll without anything is one -------

_ARM_PPOLL, _ARM_EXIT, _ARM_RT_SIGACTION = 73, 93, 134


def _aarch64(base: int) -> bytes:
    def code(stop_action: int, ignore_action: int) -> tuple[list[int], int]:
        words: list[int] = []
        for signal, action in ((17, ignore_action), (15, stop_action), (2, stop_action)):
            words += [_movz(0, signal), *_mov32(1, action), _movz(2, 0), _movz(3, 8), _movz(8, _ARM_RT_SIGACTION), _SVC]
        loop = [_movz(0, 0), _movz(1, 0), _movz(2, 0), _movz(3, 0), _movz(8, _ARM_PPOLL), _SVC]
        words += loop
        words.append(0x14000000 | (-len(loop) & 0x03FFFFFF))  # b back to the loop's start
        exit_at = len(words) * 4
        words += [_movz(0, 0), _movz(8, _ARM_EXIT), _SVC]
        return words, exit_at

    length = len(code(0, 0)[0]) * 4
    pad = -(base + length) % 8
    stop_action = base + length + pad
    words, exit_at = code(stop_action, stop_action + 32)
    text = struct.pack(f"<{len(words)}I", *words) + bytes(pad)
    # struct kernel_sigaction: handler, flags, restorer (the kernel brings its own), mask
    return text + struct.pack("<QQQQ", base + exit_at, 0, 0, 0) + struct.pack("<QQQQ", _SIG_IGN, 0, 0, 0)


_SVC = 0xD4000001


def _movz(register: int, value: int) -> int:
    return 0xD2800000 | (value & 0xFFFF) << 5 | register


def _mov32(register: int, value: int) -> list[int]:
    """movz of the low half, movk of the high one."""
    return [_movz(register, value), 0xF2A00000 | (value >> 16 & 0xFFFF) << 5 | register]
