"""Hygiene for every test: nothing that a test starts outlives it, and warnings are errors (pyproject.toml).

* lingering asyncio tasks: looked for in the test's own loop, after its async fixtures ended;
* threads and child processes: compared before and after; what a fixture of a wider scope started may live as long as it;
* sockets, files, transports: their ResourceWarning, which a collection at the end of each module makes appear.

Use no fixture from here by hand.  DOCKER_HOST is set here for tests that are run without ``./just``.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import pytest
import pytest_asyncio

from ops import engine, engine_api

GRACE_S = 3.0  # a process that was told to end, or a pool that is shut down, may still need a moment on a busy machine

hypothesis.settings.register_profile(
    "skerry",
    deadline=None,  # no timed assertions: CI machines stall
    print_blob=True,  # a failure prints what repeats it
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("skerry")

if not os.environ.get("DOCKER_HOST"):
    with contextlib.suppress(engine_api.EngineError):
        if _host := engine.find():
            os.environ["DOCKER_HOST"] = _host


# --- tasks ----------------------------------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def _no_lingering_tasks() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    for _ in range(5):  # tasks that are done but for their last step
        await asyncio.sleep(0)
    left = {t for t in asyncio.all_tasks() - before if t is not asyncio.current_task()}
    if left:
        names = "\n  ".join(sorted(f"{t.get_name()}: {t.get_coro()!r}" for t in left))
        pytest.fail(f"tasks that the test left behind:\n  {names}", pytrace=False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if isinstance(item, pytest.Function) and pytest_asyncio.is_async_test(item):
            item.fixturenames.insert(0, "_no_lingering_tasks")  # first set up, so last torn down


# --- threads and processes ------------------------------------------------------------------------------------------


def _children() -> set[int]:
    """Child processes by the kernel's own list: a look costs microseconds, so every test can afford two."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            found.update(int(pid) for pid in (task / "children").read_text().split())
    return found


def _describe(pid: int) -> str:
    with contextlib.suppress(OSError):
        return f"process {pid}: {Path(f'/proc/{pid}/cmdline').read_bytes().replace(bytes(1), b' ').decode()[:200]}"
    return f"process {pid}"


class Alive:
    """What runs in this process and under it, less what is known to stay."""

    def __init__(self) -> None:
        self.threads = {t for t in threading.enumerate() if t.is_alive()}
        self.children = _children()

    def __sub__(self, other: Alive) -> list[str]:
        threads = [f"thread {t.name}" for t in self.threads - other.threads if t.is_alive()]
        return sorted(threads + [_describe(p) for p in self.children - other.children])

    def add(self, other: Alive) -> None:
        self.threads |= other.threads
        self.children |= other.children


_LONG_SCOPES = {"session": 2, "package": 2, "module": 1, "class": 1}
_before_test: dict[str, Alive] = {}
_before_module: dict[str, Alive] = {}
_before_package: dict[str, Alive] = {}
_session_owned = Alive()


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[object]) -> Iterator[None]:
    """What a session's fixture starts is the session's: no test and no module has to end it."""
    if _LONG_SCOPES.get(fixturedef.scope, 0) < 2:
        return (yield)
    before = Alive()
    result = yield
    now = Alive()
    now.threads -= before.threads
    now.children -= before.children
    _session_owned.add(now)
    return result


def _has_fixture_of(item: pytest.Item, *scopes: str) -> bool:
    info = getattr(item, "_fixtureinfo", None)
    if info is None:
        return False
    definitions = (d for ds in info.name2fixturedefs.values() for d in ds)
    return any(d.scope in scopes and not d.argname.startswith("_") for d in definitions)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    now = Alive()
    _before_module.setdefault(str(item.path), now)
    _before_package.setdefault(str(item.path.parent), now)
    _before_test[item.nodeid] = now
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    result = yield
    module_ends = nextitem is None or nextitem.path != item.path
    before = _before_test.pop(item.nodeid, None)
    if module_ends:
        before = _before_module.pop(str(item.path))
        gc.collect()  # unclosed sockets and transports warn now, and pytest turns that into an error of this test
        if _has_fixture_of(item, "package"):  # a server of the whole package: its last module's end tells
            package_ends = nextitem is None or nextitem.path.parent != item.path.parent
            before = _before_package.pop(str(item.path.parent)) if package_ends else None
    elif _has_fixture_of(item, "module", "class", "package"):
        return result  # a server of the whole module may have been restarted by this test: its module's end tells
    if before is not None:
        _refuse_leaks(before)
    return result


def _refuse_leaks(before: Alive) -> None:
    before.add(_session_owned)
    deadline = time.monotonic() + GRACE_S
    while (left := Alive() - before) and time.monotonic() < deadline:
        time.sleep(0.02)
    if left:
        pytest.fail("the test left running:\n  " + "\n  ".join(left), pytrace=False)
