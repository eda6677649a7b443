"""Webhooks that hang, that are a service, and that are asked about streams: what one recorded server can't show."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from bus.kube import server
from bus.kube.auth import users
from bus.kube.http.context import Connect, Limits
from bus.kube.registry import Registry
from bus.kube.storage import Origin
from bus.kube.targets import Target
from ops import conversations, webhook_double
from schemas.subjects import ObjectKey
from tests.contract.kube_served import Served, served

pytestmark = pytest.mark.contract
WAIT_S = 40
SEATS = 3
CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1"
ALL = {"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}


def authenticate(headers: Mapping[str, str]) -> users.User | None:
    name = headers.get("Authorization", "").removeprefix("Bearer ")
    return users.authenticated(name, (users.MASTERS,) if name == "root" else ()) if name else None


def connect(_: Registry) -> Mapping[str, Connect]:
    async def answer(request: web.Request, target: Target, actor: str) -> web.StreamResponse:
        return web.json_response({"streamed": target.name})

    return {"pods/exec": answer, "pods/portforward": answer}


class Api:
    def __init__(self, ours: Served, double: webhook_double.Double, session: Any) -> None:
        self.ours, self.double, self._session = ours, double, session

    async def ask(self, do: str, path: str, body: Any = None, user: str = "root") -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {user}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body)
        async with self._session.request(do, self.ours.url + path, data=data, headers=headers) as answer:
            return answer.status, await answer.json()

    async def listen(self, kind: str, config: Any, **more: Any) -> None:
        hook = {"name": "h.example.com", "clientConfig": config, "rules": [ALL], "sideEffects": "None"}
        hook |= {"admissionReviewVersions": ["v1"], **more}
        body = {"metadata": {"name": "h"}, "webhooks": [hook]}
        code, said = await self.ask("POST", f"{CONFIGURATIONS}/{kind}webhookconfigurations", body)
        assert code == 201, said

    def at(self, path: str) -> Any:
        return {"url": f"{self.double.url}{path}", "caBundle": self.double.bundle}

    async def heard(self, count: int) -> None:
        async with asyncio.timeout(WAIT_S):
            while len(self.double.heard) < count:
                await asyncio.sleep(0.02)


@pytest_asyncio.fixture
async def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    make = server.make_app
    limits = Limits(requests_at_once=SEATS)
    monkeypatch.setattr(
        server, "make_app", lambda *args, **more: make(*args, **{**more, "limits": limits, "authorizer": None})
    )
    async with (
        webhook_double.running() as double,
        served(tmp_path / "api", rights=True, authenticate=authenticate, connect=connect) as ours,
        conversations.session(WAIT_S) as session,
    ):
        double.hooks = {"/ok": {"response": {"allowed": True}}, "/hang": {"hang": True}}
        yield Api(ours, double, session)


def config_map(name: str) -> Any:
    return {"metadata": {"name": name, "labels": {"slow": "yes"} if name.startswith("slow") else {}}}


MAPS = "/api/v1/namespaces/default/configmaps"


async def test_a_webhook_that_hangs_takes_no_seats_from_others(api: Api) -> None:
    slow = {"objectSelector": {"matchLabels": {"slow": "yes"}}, "timeoutSeconds": 30, "failurePolicy": "Ignore"}
    await api.listen("validating", api.at("/hang"), **slow)
    count = 3 * SEATS
    waiting = [asyncio.create_task(api.ask("POST", MAPS, config_map(f"slow-{i}"), "one")) for i in range(count)]
    await api.heard(count)  # all of them are asked about, though there are fewer seats
    assert (await api.ask("POST", MAPS, config_map("quick"), "one"))[0] == 201
    assert (await api.ask("GET", f"{MAPS}/quick", user="two"))[0] == 200
    assert not any(task.done() for task in waiting)
    api.double.release()
    assert [code for code, _ in await asyncio.gather(*waiting)] == [201] * count  # the webhook's failure is ignored
    _, listed = await api.ask("GET", MAPS, user="one")
    assert len([i for i in listed["items"] if i["metadata"]["name"].startswith("slow")]) == count


async def test_a_client_that_goes_away_leaves_its_seat(api: Api) -> None:
    slow = {"objectSelector": {"matchLabels": {"slow": "yes"}}, "timeoutSeconds": 30}
    await api.listen("mutating", api.at("/hang"), **slow)
    waiting = [asyncio.create_task(api.ask("POST", MAPS, config_map(f"slow-{i}"), "one")) for i in range(2 * SEATS)]
    await api.heard(len(waiting))
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    for i in range(3 * SEATS):
        assert (await api.ask("POST", MAPS, config_map(f"quick-{i}"), "one"))[0] == 201
    api.double.release()


async def test_a_service_is_reached_at_its_ready_endpoint(api: Api) -> None:
    port = int(api.double.url.rpartition(":")[2])
    service = {"metadata": {"name": "hooks"}, "spec": {"ports": [{"name": "https", "port": 443}]}}
    config = {"service": {"name": "hooks", "namespace": "default", "path": "/ok"}, "caBundle": api.double.bundle}
    ignoring = {"rules": [{**ALL, "resources": ["configmaps"]}]}
    await api.listen("validating", config, **ignoring)
    code, said = await api.ask("POST", MAPS, config_map("none"))
    assert code == 500
    assert 'Post "https://hooks.default.svc:443/ok?timeout=10s": service "hooks" not found' in said["message"]
    assert (await api.ask("POST", "/api/v1/namespaces/default/services", service))[0] == 201
    code, said = await api.ask("POST", MAPS, config_map("none"))
    assert 'no endpoints available for service "hooks"' in said["message"]
    endpoints = [
        {"addresses": ["127.0.0.2"], "conditions": {"ready": False}},
        {"addresses": ["127.0.0.1"], "conditions": {"ready": True}},
    ]
    slice_ = {
        "metadata": {"name": "hooks-1", "labels": {"kubernetes.io/service-name": "hooks"}},
        "addressType": "IPv4",
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        "endpoints": endpoints,
    }
    # Past the API: it takes no endpoint that is this machine itself, and that is where the webhook is.
    key = ObjectKey("discovery.k8s.io", "endpointslices", "default", "hooks-1")
    await api.ours.storage.create(key, slice_, Origin("test"))
    code, said = await api.ask("POST", MAPS, config_map("some"))
    assert code == 201, said
    assert [h["path"] for h in api.double.heard] == ["/ok"]


async def test_streams_into_pods_are_asked_about(api: Api) -> None:
    pods = "/api/v1/namespaces/default/pods"
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    assert (await api.ask("POST", pods, pod))[0] == 201
    await api.listen("validating", api.at("/ok"), rules=[{**ALL, "operations": ["CONNECT"], "resources": ["pods/*"]}])
    assert (await api.ask("GET", f"{pods}/p/exec?command=ls&command=-l&container=c&tty=true"))[0] == 200
    assert (await api.ask("GET", f"{pods}/p/portforward?ports=80"))[0] == 200
    found = [h["review"]["request"] for h in api.double.heard]
    flags = {"stdout": True, "stderr": True, "tty": True}
    assert [(r["operation"], r["subResource"], r["object"]) for r in found] == [
        (
            "CONNECT",
            "exec",
            {"kind": "PodExecOptions", "apiVersion": "v1", **flags, "container": "c", "command": ["ls", "-l"]},
        ),
        ("CONNECT", "portforward", {"kind": "PodPortForwardOptions", "apiVersion": "v1", "ports": [80]}),
    ]
    assert found[0]["options"] is None
    assert found[0]["kind"] == {"group": "", "version": "v1", "kind": "PodExecOptions"}
    api.double.hooks["/ok"] = {"response": {"allowed": False, "status": {"message": "no shells"}}}
    code, said = await api.ask("GET", f"{pods}/p/exec?command=sh")
    assert (code, said["message"]) == (400, 'admission webhook "h.example.com" denied the request: no shells')
