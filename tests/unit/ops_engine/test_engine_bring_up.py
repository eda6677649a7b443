"""Which engine is taken, where an own one would live, and what its image is made of."""

from __future__ import annotations

import http.server
import io
import json
import socketserver
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ops import engine, engine_api, images


class _Answers(http.server.BaseHTTPRequestHandler):
    answer: tuple[int, bytes] = (200, b"")

    def address_string(self) -> str:
        return "unix"

    def do_GET(self) -> None:
        status, body = self.answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def _engine(path: Path, answer: bytes, status: int = 200) -> Iterator[str]:
    handler = type("Handler", (_Answers,), {"answer": (status, answer)})
    with socketserver.UnixStreamServer(str(path), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"unix://{path}"
        finally:
            server.shutdown()
            thread.join()


VERSION = json.dumps({"Version": "20.10", "ApiVersion": "1.41"}).encode()


def test_the_engine_that_was_named_is_used_or_it_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with _engine(tmp_path / "named", VERSION) as named, _engine(tmp_path / "usual", VERSION) as usual:
        monkeypatch.setattr(engine, "usual_hosts", lambda: [usual])
        monkeypatch.setenv("DOCKER_HOST", named)
        assert engine.find() == named
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nothing")
        with pytest.raises(engine_api.EngineError, match="DOCKER_HOST is set but no engine answers"):
            engine.find()
        monkeypatch.setenv("DOCKER_HOST", "ssh://somewhere")
        with pytest.raises(engine_api.EngineError, match="only unix:// and tcp://"):
            engine.find()


def test_the_first_that_answers_like_an_engine_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    with (
        _engine(tmp_path / "a", b"<html>") as no_json,
        _engine(tmp_path / "b", b"{}", 500) as broken,
        _engine(tmp_path / "c", VERSION) as good,
    ):
        gone = f"unix://{tmp_path}/d"
        monkeypatch.setattr(engine, "usual_hosts", lambda: [gone, no_json, broken, good])
        assert engine.find() == good
        monkeypatch.setattr(engine, "usual_hosts", lambda: [gone, no_json, broken])
        assert engine.find() is None


def test_without_an_engine_and_without_rights_the_message_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(engine, "ROOT", tmp_path)
    monkeypatch.setattr(engine, "place", lambda root=tmp_path: engine.Place(tmp_path / "data", tmp_path / "run"))
    monkeypatch.setattr(engine, "usual_hosts", list)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(engine_api.EngineError, match="Start one, or set DOCKER_HOST, or run as root"):
        engine.up()


def test_sockets_of_a_deep_checkout_fit_into_an_address(tmp_path: Path) -> None:
    near = engine.place(Path("/home/me/skerry"))
    assert near.run == Path("/home/me/skerry/.skerry/docker")
    deep = Path("/home/me") / ("x" * 60) / "skerry"
    place, other = engine.place(deep), engine.place(deep / "second")
    assert place.data == deep / ".skerry/docker/data"
    assert len(f"{place.run}/exec/containerd/containerd-debug.sock.ttrpc") <= 107
    assert place.run != other.run
    assert place == engine.place(deep)


def test_a_recycled_process_id_is_not_taken_for_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "place", lambda root=tmp_path: engine.Place(tmp_path / "data", tmp_path))
    assert engine.running_pid() is None
    (tmp_path / "pid").write_text("1")
    assert engine.running_pid() is None
    assert engine.down() is False
    (tmp_path / "pid").write_text("nonsense")
    assert engine.running_pid() is None


def test_the_image_is_a_whole_root_file_system() -> None:
    busybox = images.find_busybox()
    assert busybox is not None, "busybox-static is a package that ./just test installs"
    with tarfile.open(fileobj=io.BytesIO(images.busybox_tar(busybox))) as tar:
        members = {m.name: m for m in tar.getmembers()}
    assert members["bin/busybox"].isreg()
    assert members["bin/busybox"].mode == 0o755
    for applet in ("sh", "httpd", "nc", "wget", "sleep"):
        assert members[f"bin/{applet}"].linkname == "busybox"
    assert members["tmp"].mode == 0o1777
    assert not images.is_static(Path("/bin/ls").resolve())
    assert not images.is_static(Path(__file__))
