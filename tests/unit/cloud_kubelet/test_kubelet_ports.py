"""Which port a node's kubelet has, what its Node says of it, and settings that don't go together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.core import kubelets
from cloud.kubelet import settings
from cloud.kubelet.settings import BadSettings, Settings

AT = kubelets.Kubelet("10.0.0.7", 10250, range(20000, 20003))


def node(port: int) -> dict[str, Any]:
    return {"metadata": {"name": "n"}, "status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}}


def test_a_node_keeps_its_port_over_restarts() -> None:
    ports = kubelets.Ports(AT)
    assert [ports.of(n) for n in "abc"] == [20000, 20001, 20002]
    assert ports.of("d") == 10250, "none is left: the port of all"
    again = kubelets.Ports(AT)
    again.seen("c", node(20002))
    again.seen("stranger", node(10250))
    assert again.of("a") == 20000 and again.of("c") == 20002
    again.seen("c", None)
    assert [again.of("x"), again.of("y")] == [20001, 20002], "a port that is free again is given again, not at once"


def test_two_nodes_that_say_the_same_port_do_not_share_it() -> None:
    ports = kubelets.Ports(AT)
    ports.seen("a", node(20001))
    ports.seen("b", node(20001))
    assert ports.of("a") == 20001 and ports.of("b") == 20000


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from(["of", "gone", "seen"]), st.integers(19999, 20004))))
def test_no_two_have_one(steps: list[tuple[str, str, int]]) -> None:
    ports, told = kubelets.Ports(AT), {}
    for name, what, port in steps:
        if what == "of":
            told[name] = ports.of(name)
        else:
            ports.seen(name, node(port) if what == "seen" else None)
            told.pop(name, None)
            if what == "seen":
                told[name] = ports.of(name)
        own = [p for p in told.values() if p in AT.ports]
        assert len(own) == len(set(own))


def test_what_a_node_says() -> None:
    reported = {"status": {"addresses": [{"type": "Hostname", "address": "edge"}], "capacity": {"cpu": "1"}}}
    for address, kind in (("10.0.0.7", "InternalIP"), ("::1", "InternalIP"), ("kubelets.skerry.svc", "InternalDNS")):
        ports = kubelets.Ports(kubelets.Kubelet(address, 10250))
        status = ports.present("n", reported)["status"]
        assert status["addresses"] == [{"type": kind, "address": address}], "the node's own name leads nowhere"
        assert status["daemonEndpoints"] == {"kubeletEndpoint": {"Port": 10250}} and status["capacity"] == {"cpu": "1"}
        assert ports.present("n", {"status": status})["status"] == status


@pytest.mark.parametrize("bad", [{}, {"status": 3}, {"status": {"daemonEndpoints": []}}, node(0), node(70000)])
def test_a_node_without_a_port(bad: dict[str, Any]) -> None:
    assert kubelets.port_of(bad) == 0


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (Settings("0.0.0.0"), "every address"),
        (Settings("::"), "every address"),
        (Settings("10.0.0.7", cert=Path("c")), "go together"),
        (Settings("10.0.0.7", 10250, ports=range(10000, 11000)), "port 10250"),
    ],
)
def test_settings_that_do_not_go_together(made: Settings, said: str) -> None:
    with pytest.raises(BadSettings, match=said):
        made.check()
    assert settings.Settings("0.0.0.0", address="10.0.0.7").reached_at == "10.0.0.7"
