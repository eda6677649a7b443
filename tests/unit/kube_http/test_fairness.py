"""Turns, the bound on connections, what Prometheus is told, big answers."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Mapping

import aiohttp
import pytest

from bus.kube.auth import users
from bus.kube.errors import StatusError
from bus.kube.http import answers
from bus.kube.http.context import Limits
from bus.kube.http.fairness import Turns
from bus.kube.storage import Origin
from bus.kube.targets import Write
from tests.unit.kube_http.conftest import CM, Http, config_map, started


async def test_seats_go_round_the_users() -> None:
    turns, order, go_on = Turns(1, 10, 10), [], asyncio.Event()

    async def ask(user: str) -> None:
        async with turns.turn(user):
            order.append(user)
            await go_on.wait()

    async with asyncio.TaskGroup() as tasks:
        for user in ("greedy",) * 5 + ("modest",):
            tasks.create_task(ask(user))
        while turns.waiting < 5:
            await asyncio.sleep(0)
        assert turns.running == 1
        go_on.set()
    assert order == ["greedy", "greedy", "modest", "greedy", "greedy", "greedy"] and turns.waiting == turns.running == 0


async def test_a_full_queue_is_a_429_for_its_user_only() -> None:
    turns = Turns(1, 2, 10)
    async with turns.turn("a"):
        waiting = [asyncio.create_task(_once(turns, "a")) for _ in range(2)]
        while turns.waiting < 2:
            await asyncio.sleep(0)
        with pytest.raises(StatusError) as e:
            await _once(turns, "a")
        assert (e.value.code, e.value.details) == (429, {"retryAfterSeconds": 1})
        waiting.append(asyncio.create_task(_once(turns, "b")))
        while turns.waiting < 3:
            await asyncio.sleep(0)
        waiting[0].cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert (turns.running, turns.waiting, turns.refused) == (0, 0, 1)


async def _once(turns: Turns, user: str) -> None:
    async with turns.turn(user):
        pass


def _named(headers: Mapping[str, str]) -> users.User | None:
    return users.authenticated(headers.get("X-User", "somebody"))


async def test_over_http_a_client_is_told_when_to_come_again() -> None:
    async with started(Limits(requests_at_once=1, requests_waiting=0), _named) as http:
        held, go_on = asyncio.Event(), asyncio.Event()
        real = http.api.create

        async def slow(*args: object, **how: object) -> object:
            held.set()
            await go_on.wait()
            return await real(*args, **how)  # type: ignore[arg-type]

        http.api.create = slow  # type: ignore[method-assign,assignment]
        first = asyncio.create_task(http.call("POST", CM, config_map()))
        await held.wait()
        second = asyncio.create_task(http.call("GET", CM))  # a queue of its own is made, and is full with the first in it
        async with asyncio.timeout(30):
            while "inqueue_requests 1" not in (await http.call("GET", "/metrics"))[1]:
                await asyncio.sleep(0.01)
        async with http.client.get(http.url + CM) as r:
            assert (r.status, r.headers["Retry-After"]) == (429, "1")
            assert (await r.json())["message"] == "Too many requests, please try again later."
        go_on.set()
        assert (await first)[0] == 201 and (await second)[0] == 200
        _, text = await http.call("GET", "/metrics")
        assert 'apiserver_request_total{verb="CREATE",group="",resource="configmaps",code="201"} 1' in text
        assert (
            "apiserver_rejected_requests_total 1" in text
            and 'apiserver_request_duration_seconds_count{verb="CREATE"} 1' in text
        )


async def test_connections_are_bounded() -> None:
    async with started(Limits(connections_max=2)) as http:
        port = int(http.url.rpartition(":")[2])
        kept = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        for _, writer in kept:  # each is known to the server when it has answered
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        for reader, _ in kept:
            async with asyncio.timeout(30):
                assert b"200" in await reader.readline()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            async with asyncio.timeout(30):
                assert await reader.read(1) == b""
        except ConnectionResetError:
            pass
        writer.close()
        for _, w in kept:
            w.close()
        async with asyncio.timeout(30):
            while True:
                try:
                    assert (await http.call("GET", "/healthz"))[0] == 200
                    break
                except (aiohttp.ClientError, ConnectionError):
                    await asyncio.sleep(0.02)


async def test_big_answers_are_compressed_for_who_takes_it(http: Http) -> None:
    for i in range(3):
        await http.call("POST", CM, config_map(f"big-{i}", a="x" * 80_000))
    async with aiohttp.ClientSession(auto_decompress=False) as raw:
        async with raw.get(http.url + CM, headers={"Accept-Encoding": "gzip"}) as r:
            body = await r.read()
            assert r.headers["Content-Encoding"] == "gzip" and len(body) < 20_000
            assert len(json.loads(gzip.decompress(body))["items"]) == 3
        async with raw.get(http.url + CM + "/big-1", headers={"Accept-Encoding": "gzip"}) as r:
            assert "Content-Encoding" not in r.headers
        async with raw.get(http.url + CM, headers={"Accept-Encoding": "identity"}) as r:
            assert "Content-Encoding" not in r.headers and len(await r.read()) > 240_000


async def test_who_made_an_object_over_http_owns_it(http: Http) -> None:
    _, made = await http.call("POST", CM + "?fieldManager=maker", config_map(a="1"))
    entry = made["metadata"]["managedFields"][0]
    assert (entry["manager"], entry["operation"], entry["apiVersion"]) == ("maker", "Update", "v1")
    assert entry["fieldsV1"] == {"f:data": {".": {}, "f:a": {}}}
    patch = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": "2"}}
    code, status = await http.call("PATCH", CM + "/x?fieldManager=other", patch, Content_Type="application/apply-patch+yaml")
    said = 'Apply failed with 1 conflict: conflict with "maker" using v1: .data.a'
    assert (code, status["message"]) == (409, said)
    code, got = await http.call(
        "PATCH", CM + "/x?fieldManager=other&force=1", patch, Content_Type="application/apply-patch+yaml"
    )
    owners = [(e["manager"], e["operation"]) for e in got["metadata"]["managedFields"]]
    assert (code, owners) == (200, [("other", "Apply"), ("maker", "Update")])  # whose is the map itself


@pytest.mark.parametrize("count", [0, 1, 250, 251, 1000])
async def test_others_have_a_turn_while_a_long_list_is_written(count: int) -> None:
    head, items = {"kind": "List", "metadata": {"resourceVersion": "1"}}, [{"n": i} for i in range(count)]
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    body = await answers.encode_list(head, items)
    task.cancel()
    assert json.loads(body) == {**head, "items": items}
    assert turns >= max(0, (count - 1) // answers.BATCH)


async def test_a_long_list_is_the_list(http: Http) -> None:
    for i in range(answers.BATCH + 1):
        await http.api.create("", "configmaps", "default", config_map(f"c-{i:04}"), how=Write(Origin("test")))
    code, got = await http.call("GET", CM)
    assert code == 200 and [o["metadata"]["name"] for o in got["items"]] == [f"c-{i:04}" for i in range(answers.BATCH + 1)]
    assert got["kind"] == "ConfigMapList" and got["metadata"]["resourceVersion"]
