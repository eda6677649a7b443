"""The leak checks of tests/conftest.py catch what they promise: a run of leaky tests in a pytest of its own."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

LEAKY = """
import asyncio, socket, subprocess, threading, time
import pytest, pytest_asyncio

kept = []

@pytest.fixture(scope="session")
def server():
    p = subprocess.Popen(["sleep", "60"])
    yield p
    p.kill(); p.wait()

@pytest.fixture
async def worker():
    task = asyncio.create_task(asyncio.sleep(60))
    yield task
    task.cancel()

def test_good_session_child(server): assert server.poll() is None
async def test_good_fixture_task(worker): assert not worker.done()
def test_good_thread():
    t = threading.Thread(target=time.sleep, args=(0.2,)); t.start()  # ends within the grace

async def test_bad_task(): kept.append(asyncio.create_task(asyncio.sleep(60)))
def test_bad_child(): kept.append(subprocess.Popen(["sleep", "61"]))
def test_end_child(): kept[-1].kill(); kept[-1].wait()
def test_bad_thread(): threading.Thread(target=time.sleep, args=(60,), daemon=True, name="leaky").start()
def test_bad_warning():
    import warnings; warnings.warn("careful", DeprecationWarning)
"""
SOCKET = """
import socket
def test_bad_socket(): socket.socket()
"""


def test_every_kind_of_leak_fails_its_test(tmp_path: Path) -> None:
    hygiene = (ROOT / "tests/conftest.py").read_text().replace("GRACE_S = 3.0", "GRACE_S = 0.5")
    (tmp_path / "conftest.py").write_text(hygiene)
    (tmp_path / "test_leaky.py").write_text(LEAKY)
    (tmp_path / "test_socket.py").write_text(SOCKET)
    options = ["-c", ROOT / "pyproject.toml", "--rootdir", tmp_path, "-p", "no:cacheprovider", "-rA", "--color=no"]
    command = [sys.executable, "-m", "pytest", *options, tmp_path]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=100)
    bad = set(re.findall(r"^(?:ERROR|FAILED) \S*::(test_\w+)", run.stdout, re.MULTILINE))
    assert bad == {"test_bad_task", "test_bad_child", "test_bad_thread", "test_bad_warning", "test_bad_socket"}, run.stdout
    assert "thread leaky" in run.stdout
    assert "sleep 61" in run.stdout
