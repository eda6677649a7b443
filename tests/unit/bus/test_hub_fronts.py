"""Fronts: servers of a hub that hold links and nothing of the log."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bus.hub import init


def _servers(prefix: str, count: int) -> list[init.HubServer]:
    return [init.HubServer(host=f"{prefix}-{n}.example.com", ports=init.HubPorts(), route=6222) for n in range(count)]


def test_a_front_stores_nothing_and_only_servers_with_the_log_are_named_in_routes(tmp_path: Path) -> None:
    hub = init.init_hub(tmp_path / "hub", servers=_servers("log", 3), fronts=_servers("front", 2))
    made = [json.loads(m.config_path.read_text()) for m in hub.members]
    assert ["jetstream" in c for c in made] == [True, True, True, False, False]
    # A server with the log counts the majority by its list of routes: fronts in it would be waited for.
    assert {tuple(c["cluster"]["routes"]) for c in made} == {tuple(f"tls://log-{n}.example.com:6222" for n in range(3))}
    assert hub.replicas == 3
    assert hub.urls[-1] == "tls://front-1.example.com:4222"
    assert init.load_hub(hub.dir).file == hub.file


def test_fronts_alone_are_no_hub_and_those_of_a_hub_are_fixed(tmp_path: Path) -> None:
    with pytest.raises(init.HubError, match="beside a cluster"):
        init.init_hub(tmp_path / "none", fronts=_servers("front", 1))
    init.init_hub(tmp_path / "hub", servers=_servers("log", 3), fronts=_servers("front", 1))
    with pytest.raises(init.HubError, match="fixed"):
        init.init_hub(tmp_path / "hub", servers=_servers("log", 3), fronts=_servers("front", 2))
