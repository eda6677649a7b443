"""The role of a node: what the server fills in is what a JWT would have spelled out."""

from __future__ import annotations

import pytest

from bus.hub import accounts
from bus.identity import keys, permissions
from schemas import subjects

SHARDS = 7


@pytest.mark.parametrize("leaf", [True, False])
@pytest.mark.parametrize("name", ["edge-1", "a.b.example", "n"])
def test_the_role_filled_in_is_what_a_jwt_would_have_spelled_out(name: str, leaf: bool) -> None:
    public = keys.generate("user").public
    tags = dict(t.split(":", 1) for t in permissions.node_in_role(name, public, SHARDS, leaf=leaf)["tags"])
    values = {"{{name()}}": permissions.name_in_role(name)} | {f"{{{{tag({k})}}}}": v for k, v in tags.items()}

    def filled(subject: str) -> str:
        for variable, value in values.items():
            subject = subject.replace(variable, value)
        return subject

    role, spelled = permissions.node_role(), permissions.node(name, public, SHARDS, leaf=leaf)
    for way in ("pub", "sub"):  # the server leaves out what it has no tag for
        assert [s for s in map(filled, role[way]["allow"]) if "{" not in s] == spelled[way]["allow"]
        assert not any("{" in s for s in spelled[way]["allow"])
    assert {**role, "pub": {}, "sub": {}} == {k: v for k, v in spelled.items() if k != "type"} | {"pub": {}, "sub": {}}
    # And those are the subjects that everybody else means.
    up = subjects.uplink(name, permissions.life_of(public))
    assert set(spelled["pub"]["allow"]) == {
        subjects.sync_request(name, "x").removesuffix("x") + "*",
        subjects.report_node(name, SHARDS),
        subjects.beat(name),
        subjects.renew_request(name),
        subjects.tunnels_up(name),
    } | ({f"{up}.deliver.>", permissions.RESPONSES} if leaf else set())
    of_leafs = {f"{up}.api.CONSUMER.CREATE.TELEMETRY.>", "$JS.FC.TELEMETRY.>"}
    assert set(spelled["sub"]["allow"]) == {
        subjects.live_scope(name),
        subjects.live_scope("all"),
        subjects.sync_answer(name, "x").removesuffix("x") + "*",
        subjects.command(name, "x").removesuffix("x") + ">",
        subjects.tunnels_down(name),
        f"{subjects.inbox(name)}.>",
    } | (of_leafs if leaf else set())


def test_a_nodes_name_in_the_role_is_one_token_without_a_wildcard() -> None:
    for name in ("a.b", "*", ">", "a.*", "{{name()}}", "a b"):
        token = permissions.name_in_role(name)
        assert not set(token) & set(".*> {}"), token


def test_who_is_given_no_rights_in_the_account_of_the_nodes_has_none() -> None:
    claims = accounts.edge(accounts.Accounts("c", "e", "j", "s"), [])
    assert claims["default_permissions"] == {"pub": {"deny": [">"]}, "sub": {"deny": [">"]}}
