"""The node's store is damaged or lost: a resync, never a container."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ops.lab.nodes import Lab

pytestmark = pytest.mark.contract

PAGE = 4096


def _junk(data: Path) -> None:
    data.write_bytes(os.urandom(data.stat().st_size))


def _junk_behind_the_meta_pages(data: Path) -> None:
    """The file opens, and its trees lead into junk."""
    size = data.stat().st_size
    with data.open("r+b") as f:
        f.seek(2 * PAGE)
        f.write(os.urandom(size - 2 * PAGE))


def _half(data: Path) -> None:
    """A read beyond the end of a mapped file is a SIGBUS, not an error."""
    os.truncate(data, data.stat().st_size // 2 // PAGE * PAGE)


def _empty(data: Path) -> None:
    os.truncate(data, 0)


@pytest.mark.parametrize("damage", [_junk, _junk_behind_the_meta_pages, _half])
def test_a_damaged_store_costs_a_resync_and_no_container(lab: Lab, node: str, damage: Callable[[Path], None]) -> None:
    lab.in_sync(node)
    before = lab.containers(node)
    store = lab.node_dir(node) / "store"
    shutil.rmtree(store.with_name("store.damaged"), ignore_errors=True)
    lab.processes.kill_9(node)
    damage(store / "data.mdb")
    damaged = (store / "data.mdb").read_bytes()
    lab.start_daemon(node)
    lab.answers(node)
    status = lab.in_sync(node)
    assert status["replica"]["page_events"] >= 2  # synced again from the log, all of it
    lab.untouched(node, before)
    assert (store.with_name("store.damaged") / "data.mdb").read_bytes() == damaged
    assert "store.damaged" in lab.log_of(node)


@pytest.mark.parametrize("loss", [_empty, Path.unlink])
def test_a_lost_store_costs_a_resync_and_no_container(lab: Lab, node: str, loss: Callable[[Path], None]) -> None:
    lab.in_sync(node)
    before = lab.containers(node)
    lab.processes.kill_9(node)
    loss(lab.node_dir(node) / "store" / "data.mdb")
    lab.start_daemon(node)
    lab.answers(node)
    status = lab.in_sync(node)
    assert status["replica"]["page_events"] >= 2
    lab.untouched(node, before)


def test_what_happened_meanwhile_is_made_up_for(lab: Lab, node: str) -> None:
    """The store is lost while the daemon is away, and so are an order to delete and one to create."""
    lab.pod(node, "goes")
    lab.runs(node, "goes")
    before = {k: v for k, v in lab.containers(node).items() if not k.startswith("goes/")}
    lab.processes.kill_9(node)
    shutil.rmtree(lab.node_dir(node) / "store")
    lab.delete("goes")
    lab.pod(node, "comes")
    lab.start_daemon(node)
    lab.gone(node, "goes")
    lab.runs(node, "comes")
    lab.in_sync(node)
    lab.untouched(node, before)
    lab.delete("comes")
    lab.gone(node, "comes")
