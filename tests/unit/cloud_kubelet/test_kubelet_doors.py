"""Who is let in to a kubelet: what is asked of the cluster, and what is remembered of its answers."""

from __future__ import annotations

from typing import Any

import pytest

from bus.kube.errors import StatusError
from cloud.bridge.client import Unreachable
from cloud.kubelet import auth

METRICS = {
    "username": "system:serviceaccount:kube-system:metrics-server",
    "uid": "u",
    "groups": ["g"],
    "extra": {"k": ["v"]},
}


class Cluster:
    """Answers reviews; ``asked`` are their specs."""

    def __init__(self, user: dict[str, Any] | None, allowed: set[str]) -> None:
        self.user, self.allowed = user, allowed
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.away = False

    async def create(self, path: Any, body: dict[str, Any]) -> dict[str, Any]:
        if self.away:
            raise Unreachable("away")
        self.asked.append((path.resource, body["spec"]))
        if path.resource == "tokenreviews":
            return {"status": {"authenticated": self.user is not None, "user": self.user or {}}}
        wanted = body["spec"]["resourceAttributes"]["subresource"]
        return {"status": {"allowed": wanted in self.allowed, "reason": "as the test wants it"}}


class Request:
    def __init__(self, authorization: str = "", peer: object = None) -> None:
        self.headers = {"Authorization": authorization} if authorization else {}
        self._peer = peer

    def get_extra_info(self, name: str) -> object:
        return self._peer


async def test_a_token_is_reviewed_once_and_its_user_asked_for() -> None:
    cluster = Cluster(METRICS, {"metrics"})
    door = auth.Doorkeeper(cluster)  # type: ignore[arg-type]
    for _ in range(3):
        user = await door.who(Request("Bearer secret"))  # type: ignore[arg-type]
        await door.require(user, "GET", "edge-1", ("metrics",))
        with pytest.raises(StatusError, match="subresource=proxy, node=edge-1.: as the test wants it") as refused:
            await door.require(user, "POST", "edge-1", ("proxy",))
        assert refused.value.code == 403
    assert [kind for kind, _ in cluster.asked] == ["tokenreviews", "subjectaccessreviews", "subjectaccessreviews"]
    assert cluster.asked[1][1] == {
        "user": METRICS["username"],
        "uid": "u",
        "groups": ["g"],
        "extra": {"k": ["v"]},
        "resourceAttributes": {"verb": "get", "resource": "nodes", "subresource": "metrics", "name": "edge-1"},
    }
    assert cluster.asked[2][1]["resourceAttributes"]["verb"] == "create"
    assert "secret" not in repr(door.__dict__), "a token is not kept"


async def test_one_of_several_rights_is_enough() -> None:
    cluster = Cluster(METRICS, {"proxy"})
    door = auth.Doorkeeper(cluster)  # type: ignore[arg-type]
    user = await door.who(Request("Bearer t"))  # type: ignore[arg-type]
    await door.require(user, "GET", "n", ("healthz", "proxy"))


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic abc", "Bearer " + "x" * 20_000])
async def test_nobody_is_anonymous(header: str) -> None:
    cluster = Cluster(METRICS, set())
    with pytest.raises(StatusError) as refused:
        await auth.Doorkeeper(cluster).who(Request(header))  # type: ignore[arg-type]
    assert (refused.value.code, cluster.asked) == (401, [])


async def test_a_token_that_is_none_and_a_cluster_that_is_away() -> None:
    cluster = Cluster(None, set())
    door = auth.Doorkeeper(cluster)  # type: ignore[arg-type]
    with pytest.raises(StatusError) as refused:
        await door.who(Request("Bearer t"))  # type: ignore[arg-type]
    assert refused.value.code == 401
    cluster.away = True
    with pytest.raises(StatusError) as refused:
        await door.who(Request("Bearer t"))  # type: ignore[arg-type]
    assert refused.value.code == 503, "it is not the token's fault"
    cluster.away, cluster.user = False, METRICS
    assert (await door.who(Request("Bearer t"))).name == METRICS["username"]  # type: ignore[arg-type]


def test_a_certificate_names_a_user_and_groups() -> None:
    subject = ((("organizationName", "a"),), (("organizationName", "b"),), (("commonName", "n"),))
    user = auth.of_certificate({"subject": subject})
    assert user is not None and (user.name, user.groups) == ("n", ("a", "b", "system:authenticated"))
    for nothing in (None, {}, {"subject": ()}, {"subject": ((("organizationName", "system:masters"),),)}):
        assert auth.of_certificate(nothing) is None
