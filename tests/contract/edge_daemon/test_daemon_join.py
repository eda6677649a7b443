"""`skerry edge join` with a token that is wrong, expired, used, or somebody else's: refused in words, and written down."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bus.identity import tokens
from ops.cli import common
from ops.lab.nodes import Lab
from schemas import codec
from schemas.joining import JoinToken

pytestmark = pytest.mark.contract


def _token(lab: Lab, *, node: str | None = None, ttl_s: int = 600) -> str:
    async def make() -> str:
        async with common.hub_log(lab.hub, "test") as (hub, _, store):
            return await tokens.create_token(store, hub, node=node, ttl_s=ttl_s, actor="test")

    return asyncio.run(make())


def _with_another_secret(lab: Lab) -> str:
    token = tokens.decode(_token(lab))
    return tokens.encode(token.model_copy(update={"secret": "0" * len(token.secret)}))


def _expired(lab: Lab) -> str:
    token = _token(lab, ttl_s=1)
    time.sleep(1.1)
    return token


def _used(lab: Lab) -> str:
    token = _token(lab)
    assert lab.says("edge", "join", token, "--node", "first-" + lab.tail, "--data", str(lab.folder / "first"))[0] == 0
    return token


def _for_another(lab: Lab) -> str:
    return _token(lab, node="another-" + lab.tail)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_with_another_secret, "not known"),
        (_expired, "expired"),
        (_used, "used"),
        (_for_another, "another-"),
    ],
)
def test_a_token_that_is_not_good_is_refused_and_audited(lab: Lab, make: Callable[[Lab], str], words: str) -> None:
    token = make(lab)
    node = f"refused-{make.__name__.strip('_').replace('_', '-')}-{lab.tail}"
    folder = lab.folder / node
    code, said = lab.says("edge", "join", token, "--node", node, "--data", str(folder))
    assert code == 1
    assert said.startswith("Error: the hub refused: ")
    assert words in said
    assert "Traceback" not in said
    assert token not in said
    assert not (folder / "identity.json").exists()
    assert lab.says("edge", "run", "--data", str(folder))[0] == 1
    since = ("--hub", str(lab.hub), "--since", "start")
    out = lab.skerry("replay", "log", "--type", "audit.join.refused", "--json", *since)
    logged = [json.loads(line) for line in out.splitlines()]
    mine = [e for e in logged if node in json.dumps(e)]
    assert len(mine) == 1
    assert words in json.dumps(mine[0])
    assert tokens.decode(token).secret not in json.dumps(logged)
    assert node in lab.skerry("replay", "log", "--type", "audit", *since)


def test_what_is_no_token_is_refused_at_once(lab: Lab, tmp_path: Path) -> None:
    good = _token(lab)
    other = tokens.PREFIX + base64.urlsafe_b64encode(codec.pack({"a": 1})).decode()
    for text, words in (("hello", "begins with"), (good[:-20], "damaged"), (other, "damaged")):
        code, said = lab.says("edge", "join", text, "--node", "n", "--data", str(tmp_path / "n"))
        assert (code, words in said, "Traceback" in said) == (1, True, False), said
    assert not (tmp_path / "n").exists()


def test_a_token_of_another_hub_is_not_trusted(lab: Lab, tmp_path: Path) -> None:
    """The address is this hub's, the authority is not: whoever answers there must not get the secret."""
    token = tokens.decode(_token(lab))
    lab.skerry("hub", "init", "--data", str(tmp_path / "hub"), "--host", "127.0.0.1", "--port", "0", "--leaf-port", "0",
               "--websocket-port", "0")  # fmt: skip
    foreign_ca = next((tmp_path / "hub" / "tls").glob("ca*.pem")).read_text()
    forged = tokens.encode(JoinToken(**{**token.model_dump(), "ca": foreign_ca}))
    code, said = lab.says("edge", "join", forged, "--node", "n-" + lab.tail, "--data", str(tmp_path / "n"))
    assert code == 1
    assert "is not the hub that made this token" in said
