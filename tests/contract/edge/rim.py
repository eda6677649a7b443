"""A PodsRim on the real engine, for tests: it collects what is reported, and waits for what a test wants to see."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiodocker
from pydantic import BaseModel

from edge.containers import labels
from edge.containers.settings import RuntimeSettings
from edge.core.settings import NodeFacts, PodSettings
from edge.effects import PodsRim
from schemas import event
from schemas.reports import EventReport, PodReport

IMAGE = "busybox:1.36"
WAIT_S = 40.0  # a busy machine; nothing asserts how fast something is

# Short waits, so that tests of waiting don't wait
QUICK = PodSettings(
    crash_base_ms=300,
    crash_max_ms=1_000,
    pull_base_ms=300,
    pull_max_ms=600,
    retry_base_ms=100,
    retry_max_ms=500,
    orphan_grace_ms=1_000,
    settle_ms=200,
    resync_ms=60_000,
    adopt_wait_ms=3_000,
)

_ids = itertools.count(1)


def event_id() -> str:
    return event.uuid7(time.time_ns() // 1000, next(_ids).to_bytes(10, "big"))


async def _shown(container: Any) -> dict[str, Any] | None:
    """None for one that was removed between the listing and the look."""
    try:
        shown: dict[str, Any] = await container.show()
    except aiodocker.DockerError as e:
        if e.status == 404:
            return None
        raise
    return shown


class Node:
    """One life of a node's rim.  ``payloads`` are (namespace/name, report, cause, trace) in order."""

    def __init__(self, name: str, hub: str, data_dir: Path, settings: PodSettings = QUICK, host: str = "") -> None:
        self.name, self.hub = name, hub
        self.payloads: list[tuple[str, PodReport, str | None, str | None]] = []
        self.events: list[EventReport] = []
        self.changed = asyncio.Event()
        self.rim = PodsRim(
            node=name,
            data_dir=data_dir,
            report=self._report,
            settings=settings,
            runtime=RuntimeSettings(hub=hub, host=host, reconnect_min_s=0.1, reconnect_max_s=0.2),
            facts=NodeFacts(name, host_ip="10.0.0.7", cpu_milli=2000, memory_bytes=1 << 30),
            ready_changed=self.changed.set,
        )
        self._task = asyncio.create_task(self.rim.run())

    def _report(self, kind: str, ns: str, name: str, payload: BaseModel, cause: str | None, trace: str | None) -> None:
        if isinstance(payload, PodReport):
            self.payloads.append((f"{ns}/{name}", payload, cause, trace))
        elif isinstance(payload, EventReport):
            self.events.append(payload)
        self.changed.set()

    def apply(self, obj: dict[str, Any], *, loaded: bool = False) -> str:
        meta = obj["metadata"]
        resource = {"Pod": "pods", "ConfigMap": "configmaps", "Secret": "secrets", "Service": "services"}[obj["kind"]]
        return self._event(event.OBJECT_APPLIED, resource, meta["name"], obj, loaded)

    def withdraw(self, resource: str, name: str) -> str:
        return self._event(event.OBJECT_DELETED, resource, name, None, False)

    def _event(self, type_: str, resource: str, name: str, obj: dict[str, Any] | None, loaded: bool) -> str:
        one = event_id()
        applied = event.Event(
            id=one,
            type=type_,
            scope=self.name,
            resource=resource,
            namespace="default",
            name=name,
            time=1,
            source="test",
            trace=one,
            data=obj,
        )
        self.rim.object_applied(applied, 1, loaded=loaded)
        return one

    def status(self, name: str) -> dict[str, Any] | None:
        """The last status reported; None when none was or the pod is gone."""
        return next((p.status for key, p, _, _ in reversed(self.payloads) if key == f"default/{name}"), None)

    def gone(self, name: str) -> bool:
        mine = [p for key, p, _, _ in self.payloads if key == f"default/{name}"]
        return bool(mine) and mine[-1].status is None

    def ready(self, name: str) -> bool:
        status = self.status(name)
        return status is not None and condition(status, "Ready") == "True"

    def container(self, pod: str, name: str) -> dict[str, Any]:
        status = self.status(pod) or {}
        both = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
        return next((c for c in both if c["name"] == name), {})

    def reasons(self) -> list[str]:
        return [e.reason for e in self.events]

    async def until(self, what: Callable[[], Any], why: str = "") -> None:
        """Wait until it is true; looked at whenever something is reported (and now and then)."""
        deadline = time.monotonic() + WAIT_S
        while not what():
            if time.monotonic() > deadline:
                last = {key: p.status for key, p, _, _ in self.payloads}
                raise AssertionError(f"{why or 'it'} did not come: {last}\n{[(e.reason, e.message) for e in self.events]}")
            self.changed.clear()
            try:
                async with asyncio.timeout(0.3):
                    await self.changed.wait()
            except TimeoutError:
                continue

    async def stop(self) -> None:
        await self.rim.stop()
        await asyncio.gather(self._task, return_exceptions=True)

    async def crash(self) -> None:
        """As kill -9 as one process can do to itself: no instruction is run any more, nothing is tidied up in the engine."""
        await self.stop()


def condition(status: dict[str, Any], kind: str) -> str:
    return next((c["status"] for c in status["conditions"] if c["type"] == kind), "")


def pod(name: str, *containers: dict[str, Any], uid: str = "", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": uid or f"{name}-{secrets.token_hex(6)}"},
        "spec": {"containers": [{"image": IMAGE, **c} for c in containers], "terminationGracePeriodSeconds": 2, **spec},
    }


def shell(name: str, script: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "command": ["sh", "-c", script], **more}


SLEEPER = "trap 'exit 0' TERM; while :; do sleep 0.2; done"


class Engine:
    """The engine as a bystander sees it."""

    def __init__(self, client: aiodocker.Docker, hub: str) -> None:
        self.client = client
        self.hub = hub

    async def all(self) -> list[dict[str, Any]]:
        found = await self.client.containers.list(all=True, filters=f'{{"label":["{labels.HUB}={self.hub}"]}}')
        return [shown for c in found if (shown := await _shown(c)) is not None]

    async def of(self, container: str) -> list[dict[str, Any]]:
        """Containers of this name, oldest attempt first; "" is the sandbox."""
        mine = [c for c in await self.all() if c["Config"]["Labels"][labels.CONTAINER] == container]
        return sorted(mine, key=lambda c: int(c["Config"]["Labels"][labels.ATTEMPT]))

    async def running(self, container: str) -> list[dict[str, Any]]:
        return [c for c in await self.of(container) if c["State"]["Running"]]

    async def run(self, container_id: str, *command: str) -> str:
        execution = await self.client.containers.container(container_id).exec(list(command))
        out = b""
        async with execution.start(detach=False) as stream:
            while (message := await stream.read_out()) is not None:
                out += message.data
        return out.decode()

    async def clean(self) -> None:
        for c in await self.all():
            try:
                await self.client.containers.container(c["Id"]).delete(force=True, v=True)
            except aiodocker.DockerError as e:
                if e.status not in (404, 409):
                    raise
        volumes: Any = self.client.volumes
        for v in (await volumes.list(filters={"label": [f"{labels.HUB}={self.hub}"]})).get("Volumes") or []:
            await (await volumes.get(v["Name"])).delete()


@asynccontextmanager
async def engine(hub: str) -> AsyncIterator[Engine]:
    async with aiodocker.Docker() as client:
        found = Engine(client, hub)
        try:
            yield found
        finally:
            await found.clean()
