"""One line of JSON a message, no secret in it, whatever the caller passes."""

import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest
import structlog

from bus.identity import keys
from ops import logs


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    handlers = list(logging.root.handlers)
    yield
    structlog.reset_defaults()
    logging.root.handlers[:] = handlers


def _written(monkeypatch: pytest.MonkeyPatch, **configure: object) -> io.StringIO:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    monkeypatch.delenv("SKERRY_LOG", raising=False)
    logs.configure(**configure)  # type: ignore[arg-type]  # a test's shortcut
    return out


def test_json_when_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    out = _written(monkeypatch)
    structlog.get_logger("x").warning("link.down", node="edge-1", after_s=1.5, tried=["a"])
    line = json.loads(out.getvalue())
    assert line["event"] == "link.down"
    assert (line["node"], line["after_s"], line["level"]) == ("edge-1", 1.5, "warning")
    assert line["timestamp"].endswith("Z")


def test_text_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    out = _written(monkeypatch, json=False)
    structlog.get_logger("x").info("link.up", node="edge-1")
    assert "link.up" in out.getvalue()
    with pytest.raises(ValueError):
        json.loads(out.getvalue())


@pytest.mark.parametrize("as_json", [True, False])
def test_no_secret_gets_out(as_json: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    out = _written(monkeypatch, json=as_json)
    seed = keys.generate("user").seed
    token = "skerry1.abcdefghijklmnop"
    jwt = "eyJhbGciOiJlZDI1NTE5In0.eyJqdGkiOiJ4In0.c2lnbmF0dXJl"
    log = structlog.get_logger("x")
    log.info(
        f"joined with {token}", seed=seed, password="hunter2", node_token="tttt", error=f"refused {jwt}", data={"s": seed}
    )
    try:
        raise RuntimeError(f"bad {seed}")
    except RuntimeError:
        log.error("failed", exc_info=as_json)
    for secret in (token, seed, jwt, "hunter2", "tttt"):
        assert secret not in out.getvalue()
    assert logs.HIDDEN in out.getvalue()


def test_the_level_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKERRY_LOG_LEVEL", "error")
    out = _written(monkeypatch)
    structlog.get_logger("x").warning("unheard")
    assert out.getvalue() == ""
