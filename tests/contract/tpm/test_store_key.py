"""The store's key in a TPM: swtpm, the real tools, and the real daemon's way to its store."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bus.stores import sealed, tpm
from edge import daemon
from ops import packages
from ops.engine_api import EngineError

pytestmark = pytest.mark.contract

WAIT_S = 30.0


@pytest.fixture(scope="session", autouse=True)
def tools() -> None:
    """Installed like the engine is, by root, where they are missing.  Without them these tests fail: nothing is skipped."""
    if shutil.which("swtpm") is None or shutil.which("tpm2_unseal") is None:
        if not packages.can_install():
            pytest.fail("these tests need swtpm and tpm2-tools: apt-get install swtpm tpm2-tools")
        try:
            packages.install("swtpm", "tpm2-tools")
        except EngineError as e:
            pytest.fail(f"these tests need swtpm and tpm2-tools: {e}")


class Machine:
    """A TPM in software; ``start`` again is a start of the machine."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder, self._process = folder, None
        self.socket = folder / "tpm"

    def start(self) -> None:
        self._process: subprocess.Popen[bytes] | None = subprocess.Popen(
            ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={self._folder}", "--flags", "not-need-init,startup-clear",
             "--server", f"type=unixio,path={self.socket}", "--ctrl", f"type=unixio,path={self.socket}.ctrl"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        until = time.monotonic() + WAIT_S
        while not self.socket.exists():
            assert self._process.poll() is None and time.monotonic() < until, "swtpm does not start"
            time.sleep(0.01)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(WAIT_S)
            for leftover in (self.socket, Path(f"{self.socket}.ctrl")):
                leftover.unlink(missing_ok=True)
            self._process = None

    def tool(self, *command: str, folder: Path | None = None, fails: str = "") -> None:
        done = subprocess.run(command, capture_output=True, check=False, timeout=WAIT_S, cwd=folder, input=b"x")
        said = done.stderr.decode() + done.stdout.decode()
        assert (done.returncode != 0 and fails in said) if fails else done.returncode == 0, said
        subprocess.run(["tpm2_flushcontext", "-t"], capture_output=True, check=False, timeout=WAIT_S)

    def lock_out(self, folder: Path) -> None:
        """By guessing, as somebody else would."""
        self.tool("tpm2_dictionarylockout", "-s", "-n", "1", "-t", "1000", "-l", "1000")
        self.tool("tpm2_createprimary", "-C", "o", "-c", "p", folder=folder)
        self.tool("tpm2_create", "-C", "p", "-p", "right", "-i", "-", "-u", "u", "-r", "r", folder=folder)
        self.tool("tpm2_load", "-C", "p", "-u", "u", "-r", "r", "-c", "k", folder=folder)
        self.tool("tpm2_unseal", "-c", "k", "-p", "wrong", folder=folder, fails="0x98E")
        self.tool("tpm2_unseal", "-c", "k", "-p", "right", folder=folder, fails="0x921")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    m = Machine(tmp_path / "machine")
    m.start()
    monkeypatch.setenv(tpm.TCTI, f"swtpm:path={m.socket}")
    yield m
    m.stop()


@contextlib.contextmanager
def other_machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    m = Machine(folder)
    m.start()
    with monkeypatch.context() as patch:
        patch.setenv(tpm.TCTI, f"swtpm:path={m.socket}")
        yield
    m.stop()


def written(store: Path, key: Path, **how: str) -> None:
    opened = daemon.open_store(store, key, **how)  # type: ignore[arg-type]
    with opened.transact() as t:
        t.put("state", b"said", b"top-secret")
    opened.close()


def read(store: Path, key: Path, **how: str) -> bytes | None:
    opened = daemon.open_store(store, key, **how)  # type: ignore[arg-type]
    try:
        return opened.get("state", b"said")
    finally:
        opened.close()


def test_a_key_is_made_in_the_tpm_and_comes_back_after_a_start_of_the_machine(machine: Machine, tmp_path: Path) -> None:
    store, key = tmp_path / "store", tmp_path / "keys" / "store.key"
    written(store, key, kept="tpm")
    assert key.stat().st_mode & 0o777 == 0o600 and "sealed by a TPM" in key.read_text()
    plain = sealed.load_key(key)
    assert plain.hex() not in key.read_text() and len(plain) == sealed.KEY_BYTES
    for _ in range(5):  # nothing of us stays in the TPM: there is room for three
        assert read(store, key) == b"top-secret"
    machine.stop()
    machine.start()
    assert read(store, key) == b"top-secret"


def test_from_the_file_to_the_tpm_and_back(machine: Machine, tmp_path: Path) -> None:
    store, key = tmp_path / "store", tmp_path / "store.key"
    written(store, key)
    plain = key.read_text().strip()
    assert read(store, key, kept="tpm") == b"top-secret"
    assert plain not in key.read_text()
    assert read(store, key) == b"top-secret", "as it is, when nobody says how"
    text = key.read_text()
    assert read(store, key, kept="tpm") == b"top-secret" and key.read_text() == text, "it is sealed already"
    assert read(store, key, kept="file") == b"top-secret"
    assert key.read_text().strip() == plain
    assert not list(tmp_path.glob("*.new"))


def test_another_tpm_and_a_cleared_one_give_nothing_back_and_the_store_is_let_be(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, key = tmp_path / "store", tmp_path / "store.key"
    written(store, key, kept="tpm")
    with other_machine(tmp_path / "other", monkeypatch), pytest.raises(tpm.TpmError, match="sealed by another TPM"):
        daemon.open_store(store, key)
    assert read(store, key) == b"top-secret"
    machine.tool("tpm2_clear")
    with pytest.raises(tpm.TpmError, match=r"store\.key: .*this one was cleared"):
        daemon.open_store(store, key)
    assert not (tmp_path / "store.damaged").exists(), "it is no damage"


def test_with_pcrs_a_machine_that_was_started_otherwise_gets_nothing(machine: Machine, tmp_path: Path) -> None:
    store, key = tmp_path / "store", tmp_path / "store.key"
    written(store, key, kept="tpm", pcrs="sha256:7,8")
    assert read(store, key) == b"top-secret"
    machine.tool("tpm2_pcrextend", f"7:sha256={1:064x}")
    with pytest.raises(tpm.TpmError, match=r"started in another way .*PCRs sha256:7,8|another way .*sha256:7,8"):
        daemon.open_store(store, key)
    machine.stop()
    machine.start()  # as it was
    assert read(store, key, kept="tpm", pcrs="sha256:8") == b"top-secret"
    machine.tool("tpm2_pcrextend", f"7:sha256={1:064x}")
    assert read(store, key) == b"top-secret", "it was sealed anew, to another PCR"


def test_a_locked_out_tpm_still_opens_it_and_an_owner_with_a_password_is_said(machine: Machine, tmp_path: Path) -> None:
    store, key = tmp_path / "store", tmp_path / "store.key"
    written(store, key, kept="tpm")
    machine.lock_out(tmp_path)
    assert read(store, key) == b"top-secret"
    machine.tool("tpm2_changeauth", "-c", "owner", "secret")
    with pytest.raises(tpm.TpmError, match="owner hierarchy has a password"):
        daemon.open_store(store, key)


def test_no_tpm_and_no_tools_are_said(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, key = tmp_path / "store", tmp_path / "store.key"
    written(store, key, kept="tpm")
    machine.stop()
    with pytest.raises(tpm.TpmError, match="the TPM can't be reached"):
        daemon.open_store(store, key)
    with monkeypatch.context() as patch:
        patch.delenv(tpm.TCTI)
        patch.setattr(tpm, "DEVICE", tmp_path / "no-device")
        with pytest.raises(tpm.TpmError, match="no TPM 2.0 that can be used"):
            daemon.open_store(store, key)
        patch.setenv("PATH", os.fspath(tmp_path))
        with pytest.raises(tpm.TpmError, match="apt-get install tpm2-tools"):
            daemon.open_store(store, key)
    plain = tmp_path / "plain.key"
    sealed.load_key(plain, make=True)
    text = plain.read_text()
    with pytest.raises(tpm.TpmError):
        sealed.load_key(plain, kept="tpm")
    assert plain.read_text() == text, "a key that can't be sealed stays as it is"
