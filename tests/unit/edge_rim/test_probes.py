"""Probes as they are executed: what counts as yes, what as no, and what as nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from edge.containers.errors import RuntimeFailure, RuntimeUnavailable
from edge.core.instructions import StartProbe
from edge.core.pod_spec import Exec, HttpGet, Probe, TcpSocket
from edge.probes import Checker, Probes


class Container:
    """Executes commands as told."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, str] | Exception] = []
        self.asked: list[tuple[str, ...]] = []

    async def execute(self, container: str, command: tuple[str, ...], timeout_s: float) -> tuple[int, str]:
        self.asked.append(command)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@asynccontextmanager
async def server(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


@pytest.fixture
async def checker() -> AsyncIterator[Checker]:
    one = Checker(Container())
    yield one
    await one.close()


async def test_http_statuses_headers_and_redirects(checker: Checker) -> None:
    seen: list[dict[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(dict(request.headers))
        if request.path == "/moved":
            raise web.HTTPFound("/ok")
        return web.Response(status=200 if request.path == "/ok" else 503, text="not now" * 100)

    async with server(answer) as port:

        async def get(path: str) -> tuple[bool, str]:
            return await checker.check(HttpGet(port, path, headers=(("X-Probe", "yes"),)), "c", "127.0.0.1", 5)

        assert await get("/ok") == (True, "")
        assert await get("/moved") == (True, "")
        ok, message = await get("/bad")
        assert not ok and message.startswith("HTTP probe failed with statuscode: 503: not now") and len(message) < 300
    assert seen[0]["X-Probe"] == "yes" and seen[0]["User-Agent"].startswith("kube-probe/")
    ok, message = await get("/ok")
    assert (not ok and "refused" in message.lower()) or "connect" in message.lower()


async def test_a_slow_answer_is_a_no(checker: Checker) -> None:
    ended: asyncio.Queue[bytes] = asyncio.Queue()

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended.put_nowait(await reader.read())  # until the prober hangs up
        writer.close()

    listener = await asyncio.start_server(never, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    assert await checker.check(HttpGet(port), "c", "127.0.0.1", 0.2) == (False, "no answer within 0.2 s")
    async with asyncio.timeout(10):
        assert (await ended.get()).startswith(b"GET / ")
    listener.close()
    await listener.wait_closed()


async def test_tcp(checker: Checker) -> None:
    listener = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    assert await checker.check(TcpSocket(port), "c", "127.0.0.1", 5) == (True, "")
    listener.close()
    await listener.wait_closed()
    ok, message = await checker.check(TcpSocket(port), "c", "127.0.0.1", 5)
    assert not ok and f"127.0.0.1:{port}" in message


async def test_commands() -> None:
    container = Container()
    checker = Checker(container)
    results = []
    for answer in (
        (0, "fine"),
        (3, "no such file"),
        (1, ""),
        TimeoutError(),
        RuntimeFailure("ExecError", "no such container"),
    ):
        container.answers = [answer]
        results.append(await checker.check(Exec(("cat", "/x")), "c", "", 2))
    assert [ok for ok, _ in results] == [True, False, False, False, False]
    assert [m for _, m in results[1:]] == [
        "no such file",
        "command exited with 1",
        "no answer within 2 s",
        "no such container",
    ]
    assert container.asked[0] == ("cat", "/x")


async def test_without_an_engine_a_command_probe_says_nothing_and_goes_on() -> None:
    container = Container()
    container.answers = [RuntimeUnavailable("gone"), RuntimeUnavailable("gone"), (0, "")]
    answered = asyncio.Event()
    told: list[bool] = []

    def result(spec: StartProbe, ok: bool, message: str) -> None:
        told.append(ok)
        answered.set()

    probes = Probes(Checker(container), result, lambda: 0)
    spec = StartProbe("u", "main", "c", "", 0, Probe("liveness", Exec(("x",)), period_s=0))
    probes.start(spec)
    async with asyncio.timeout(10):
        await answered.wait()
    assert told[0] is True and len(container.asked) >= 3
    probes.stop("c", "")
    await probes.close()


async def test_a_stopped_probe_is_silent() -> None:
    container = Container()
    container.answers = [(0, "")]
    told: list[bool] = []
    probes = Probes(Checker(container), lambda s, ok, m: told.append(ok), lambda: 0)
    for kind in ("liveness", "readiness"):
        probes.start(StartProbe("u", "main", "c", "", 0, Probe(kind, Exec(("x",)), initial_delay_s=3600)))  # type: ignore[arg-type]
    probes.stop("c", "liveness")
    probes.stop("other", "")
    probes.stop("c", "")
    await probes.close()
    assert told == [] and container.asked == []


@pytest.mark.parametrize(
    ("ran_s", "delay_s", "expected"),
    [(0, 10, 10.0), (4, 10, 6.0), (0, 0, 0.0), (10, 10, 0.0), (3600, 10, None)],
)
def test_the_initial_delay_counts_from_the_containers_start(ran_s: int, delay_s: int, expected: float | None) -> None:
    probes = Probes(Checker(Container()), lambda s, ok, m: None, lambda: 5_000_000_000 + ran_s * 1_000_000)
    found = probes._first_delay_s(Probe("liveness", Exec(("x",)), initial_delay_s=delay_s), 5_000_000_000)
    assert found == expected if expected is not None else 0 <= found <= 1
