"""What an event is stamped with at the rim: time, a new id, this boot, the code's version.  Cores get these handed in."""

from __future__ import annotations

import functools
import os
import time
from pathlib import Path
from typing import Protocol

from schemas import event

VERSION = "0.1.0"


def now_us() -> int:
    """Wall time in microseconds since 1970 (UTC)."""
    return time.time_ns() // 1000


def mono_us() -> int:
    """Monotonic time of this boot in microseconds."""
    return time.monotonic_ns() // 1000


class SteadyClock:
    """Wall time as it was when this was made, going on by the monotonic clock: what waits and grace periods are counted by
    must not jump because somebody sets the clock."""

    def __init__(self) -> None:
        self._off_us = now_us() - mono_us()

    def now_us(self) -> int:
        return mono_us() + self._off_us


def new_id() -> str:
    """A new UUIDv7."""
    return event.uuid7(now_us(), os.urandom(10))


@functools.cache
def boot_id() -> str:
    """The kernel's id of this boot (Linux), so that monotonic times can be compared; "" where there is none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


class Stamps(Protocol):
    """Time and ids, for code that a simulation gives others of."""

    def now_us(self) -> int: ...

    def new_id(self) -> str: ...


class _Host:
    def now_us(self) -> int:
        return now_us()

    def new_id(self) -> str:
        return new_id()


HOST: Stamps = _Host()


def source(component: str) -> str:
    """``cloud/api@0.1.0``"""
    return f"{component}@{VERSION}"
