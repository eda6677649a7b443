"""``kubectl exec``, ``cp`` and ``attach`` against a pod on a node that has no open port."""

from __future__ import annotations

import hashlib
import os
import pty
import random
import select
import subprocess
import time
from pathlib import Path

import pytest

from tests.contract.node_api.conftest import WAIT_S, Place, shell

pytestmark = [pytest.mark.contract, pytest.mark.timeout(180)]

INTO = ("exec", "two", "-c", "main")


def test_output_errors_and_exit_code_come_back(place: Place) -> None:
    done = place.run(*INTO, "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout) == (7, b"out\n")
    assert done.stderr.startswith(b"err\n") and b"exit code 7" in done.stderr
    assert place.ok(*INTO, "--", "echo", "a b", "'c'") == b"a b 'c'\n"
    done = place.run(*INTO, "--", "no-such-command")
    assert done.returncode in (126, 127)
    assert b"no-such-command" in done.stdout + done.stderr


def test_five_megabytes_go_through_unchanged(place: Place) -> None:
    data = random.Random(1).randbytes(5_000_000)
    assert (
        hashlib.sha256(place.ok("exec", "-i", *INTO[1:], "--", "cat", stdin=data)).digest() == hashlib.sha256(data).digest()
    )
    assert place.ok("exec", "-i", *INTO[1:], "--", "wc", "-c", stdin=b"").strip() == b"0"
    assert place.ok("exec", "-i", *INTO[1:], "--", "head", "-c", "3", stdin=data) == data[:3]


def test_files_are_copied_in_and_out(place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a").write_bytes(random.Random(2).randbytes(300_000))
    (folder / "b").write_bytes(b"")
    place.ok("cp", str(folder), "two:/tmp/copied", "-c", "main")
    place.ok("cp", "two:/tmp/copied", str(tmp_path / "out"), "-c", "main")
    for name in ("deep/a", "b"):
        assert (tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes()


def test_refusals_before_anything_runs(place: Place) -> None:
    for args, said in (
        (("exec", "nope", "--", "true"), 'pods "nope" not found'),
        (("exec", "two", "-c", "nope", "--", "true"), "container nope is not valid for pod two"),
        (("get", "--raw", "/api/v1/namespaces/default/pods/two/exec?container=main&command=x&stdout=1"), "Upgrade request"),
        (("get", "--raw", "/api/v1/namespaces/default/pods/two/exec?container=main&command=x"), "at least 1 of stdin"),
        (("get", "--raw", "/api/v1/namespaces/default/pods/two/exec?container=main&stdout=1"), "at least one command"),
    ):
        done = place.run(*args)
        assert done.returncode == 1
        assert said in done.stderr.decode(), (args, done.stderr)


def test_a_client_of_spdy_is_served_too(place: Place) -> None:
    """As kubectl before 1.31 was, and as it falls back today."""

    def run(*args: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        spdy = {**os.environ, "KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false"}
        return subprocess.run(place.argv(*args), input=stdin, env=spdy, capture_output=True, timeout=WAIT_S, check=False)

    done = run(*INTO, "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout) == (7, b"out\n")
    assert done.stderr.startswith(b"err\n") and b"exit code 7" in done.stderr
    data = random.Random(1).randbytes(1_000_000)
    done = run("exec", "-i", *INTO[1:], "--", "cat", stdin=data)
    assert (done.returncode, done.stdout == data) == (0, True), done.stderr
    done = run("exec", "nope", "--", "true")
    assert done.returncode == 1 and b'pods "nope" not found' in done.stderr


class Terminal:
    """kubectl in a terminal of this size."""

    def __init__(self, argv: list[str], rows: int, columns: int) -> None:
        import fcntl
        import struct
        import termios

        self._set = lambda r, c: fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", r, c, 0, 0))
        self.master, slave = pty.openpty()
        self._set(rows, columns)
        self.seen = b""
        self.process = subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        os.close(slave)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        import signal

        self._set(rows, columns)
        self.process.send_signal(signal.SIGWINCH)

    def until(self, text: str) -> None:
        deadline = time.monotonic() + WAIT_S
        while text.encode() not in self.seen:
            assert time.monotonic() < deadline, self.seen
            if select.select([self.master], [], [], 0.5)[0]:
                try:
                    self.seen += os.read(self.master, 65536)
                except OSError:  # the other end is closed
                    assert text.encode() in self.seen, self.seen

    def close(self) -> int:
        try:
            return self.process.wait(WAIT_S)
        finally:
            self.process.kill()
            os.close(self.master)


def test_a_terminal_has_its_size_and_its_changes(place: Place) -> None:
    t = Terminal(place.argv("exec", "-it", "two", "-c", "main", "--", "sh"), 33, 101)
    t.type("stty size; tty\n")
    t.until("33 101")
    t.until("/dev/pts/")
    t.resize(44, 120)
    deadline = time.monotonic() + WAIT_S
    while b"44 120" not in t.seen:
        assert time.monotonic() < deadline, t.seen
        t.type("stty size\n")
        time.sleep(0.3)
        t.until("$ " if b"$ " in t.seen else "# ")
        if select.select([t.master], [], [], 0.3)[0]:
            t.seen += os.read(t.master, 65536)
    t.type("exit 5\n")
    assert t.close() == 5


def test_attach_talks_to_the_main_process(place: Place) -> None:
    place.pod(
        "answers",
        shell("c", "while read x; do echo got $x; [ $x = stop ] && exit 0; done", stdin=True),
        restartPolicy="Never",
    )
    with subprocess.Popen(
        place.argv("attach", "-i", "answers"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as client:
        assert client.stdin is not None and client.stdout is not None
        client.stdin.write(b"one\n")
        client.stdin.flush()
        assert client.stdout.readline() == b"got one\n"
        rest, err = client.communicate(b"stop\n", timeout=WAIT_S)
    assert (client.returncode, rest) == (0, b"got stop\n"), err
    done = place.run("attach", "answers")
    assert done.returncode == 1


def test_an_output_that_nobody_reads_stops_nobody_else(place: Place) -> None:
    with subprocess.Popen(place.argv(*INTO, "--", "cat", "/dev/zero"), stdout=subprocess.PIPE) as stuck:
        assert stuck.stdout is not None
        assert stuck.stdout.read(1) == b"\0"
        for _ in range(3):
            assert place.ok(*INTO, "--", "echo", "on") == b"on\n"
        assert stuck.poll() is None
        stuck.kill()
