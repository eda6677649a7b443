"""Probes and hooks, executed: HTTP and TCP from the node to the pod, commands inside the container.

Only the doing is here; thresholds and what follows from them are decided in edge/core/running.py.  A probe that could not be
executed because the container engine is gone says nothing, neither yes nor no.
Source: Kubernetes, "Configure Liveness, Readiness and Startup Probes", "Container Lifecycle Hooks".
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from edge.containers.errors import RuntimeFailure, RuntimeUnavailable
from edge.core.instructions import StartProbe
from edge.core.pod_spec import Exec, Hook, HttpGet, Probe, Sleep, TcpSocket

if TYPE_CHECKING:
    import aiohttp

PROBES_MAX = 16  # at once; each is short, and a node of a hundred pods would otherwise start them in bursts
HOOK_TIMEOUT_S = 120.0  # of postStart: Kubernetes has no limit, but a hook that hangs must not hold a pod for ever
BODY_BYTES_MAX = 10_240  # the kubelet reads as much of an answer
MESSAGE_CHARS_MAX = 200  # of an answer's body in a message
REDIRECTS_MAX = 10


class Executes(Protocol):
    async def execute(self, container: str, command: tuple[str, ...], timeout_s: float) -> tuple[int, str]: ...


class Checker:
    """One check of one handler: (ok, message).  Raises RuntimeUnavailable when it can't be known."""

    def __init__(self, runtime: Executes) -> None:
        self._runtime = runtime
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def check(self, handler: Hook, container_id: str, pod_ip: str, timeout_s: float) -> tuple[bool, str]:
        try:
            match handler:
                case HttpGet():
                    return await self._http(handler, pod_ip, timeout_s)
                case TcpSocket():
                    return await self._tcp(handler, pod_ip, timeout_s)
                case Exec():
                    code, output = await self._runtime.execute(container_id, handler.command, timeout_s)
                    return code == 0, output[:MESSAGE_CHARS_MAX] or f"command exited with {code}"
                case Sleep():
                    await asyncio.sleep(min(handler.seconds, timeout_s))
                    return True, ""
        except TimeoutError:
            return False, f"no answer within {timeout_s:g} s"
        except RuntimeUnavailable:
            raise
        except RuntimeFailure as e:
            return False, str(e)

    async def _tcp(self, handler: TcpSocket, pod_ip: str, timeout_s: float) -> tuple[bool, str]:
        where = handler.host or pod_ip
        try:
            async with asyncio.timeout(timeout_s):
                _, writer = await asyncio.open_connection(where, handler.port)
        except TimeoutError:
            raise
        except OSError as e:
            return False, f"dial tcp {where}:{handler.port}: {e.strerror or e}"
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return True, ""

    async def _http(self, handler: HttpGet, pod_ip: str, timeout_s: float) -> tuple[bool, str]:
        import aiohttp

        if self._session is None:
            # No connection is kept: a probe proves that a new one is possible.  As by a kubelet, no certificate is checked
            connector = aiohttp.TCPConnector(force_close=True, limit=PROBES_MAX, ssl=False)
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        host = handler.host or pod_ip
        url = f"{handler.scheme.lower()}://{f'[{host}]' if ':' in host else host}:{handler.port}{handler.path}"
        headers = {"User-Agent": "kube-probe/skerry", "Accept": "*/*", **dict(handler.headers)}
        try:
            async with self._session.get(
                url, headers=headers, timeout=aiohttp.ClientTimeout(total=timeout_s), max_redirects=REDIRECTS_MAX
            ) as answer:
                body = await answer.content.read(BODY_BYTES_MAX)
                if 200 <= answer.status < 400:
                    return True, ""
                text = body.decode(errors="replace").strip()[:MESSAGE_CHARS_MAX]
                return False, f"HTTP probe failed with statuscode: {answer.status}" + (f": {text}" if text else "")
        except TimeoutError:
            raise
        except (aiohttp.ClientError, OSError, ValueError) as e:
            return False, f"Get {url}: {e}"


class Probes:
    """The probes that run now, each a task.  ``result(spec, ok, message)`` is called after each execution."""

    def __init__(self, checker: Checker, result: Callable[[StartProbe, bool, str], None], now_us: Callable[[], int]) -> None:
        self._checker = checker
        self._result = result
        self._now_us = now_us
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(PROBES_MAX)

    def start(self, spec: StartProbe) -> None:
        key = (spec.container_id, spec.probe.kind)
        self._cancel(key)
        self._tasks[key] = asyncio.create_task(self._run(spec), name=f"probe {spec.probe.kind} {spec.container}")

    def stop(self, container_id: str, kind: str) -> None:
        for key in [k for k in self._tasks if k[0] == container_id and kind in ("", k[1])]:
            self._cancel(key)

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for key in list(self._tasks):
            self._cancel(key)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _cancel(self, key: tuple[str, str]) -> None:
        task = self._tasks.pop(key, None)
        if task is not None:
            task.cancel()

    async def _run(self, spec: StartProbe) -> None:
        probe = spec.probe
        await asyncio.sleep(self._first_delay_s(probe, spec.started_us))
        while True:
            async with self._places:
                try:
                    ok, message = await self._checker.check(
                        probe.handler, spec.container_id, spec.pod_ip, float(probe.timeout_s)
                    )
                except RuntimeUnavailable:
                    ok = None
            if ok is not None:
                self._result(spec, ok, message)
            await asyncio.sleep(probe.period_s)

    def _first_delay_s(self, probe: Probe, started_us: int) -> float:
        """The rest of the initial delay.  A container that is older (the daemon was restarted) is looked at within a moment,
        spread a little so that all of a node aren't at once."""
        running_s = max(0.0, (self._now_us() - started_us) / 1e6)
        if running_s > probe.initial_delay_s + probe.period_s:
            return random.uniform(0.0, min(1.0, probe.period_s / 2))
        return max(0.0, min(probe.initial_delay_s, probe.initial_delay_s - running_s))
