"""The container engine (Docker or Podman) over the Docker API: the only place that imports aiodocker.

Every operation is idempotent by name, has a timeout, and answers in our words: an Observed, or RuntimeFailure with a reason
that suits a container's status.  Losing the engine is no failure of an operation but RuntimeUnavailable.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import aiodocker
import aiohttp

from edge.containers import labels, pause, translate
from edge.containers.errors import RuntimeFailure, RuntimeUnavailable
from edge.containers.settings import RuntimeSettings
from edge.core.container_config import ContainerConfig, Identity, MountConfig, SandboxConfig
from edge.core.stimuli import Observed

STATUS_NO_CONNECTION = 900  # aiodocker's own
STOPS_MAX = 64  # stops wait for their grace period without using the engine, so they have a limit of their own


def find_host(configured: str = "") -> str:
    """Address of the engine; raises RuntimeUnavailable when there is no socket to be seen."""
    if configured or os.environ.get("DOCKER_HOST"):
        return configured or os.environ["DOCKER_HOST"]
    sockets = ["/var/run/docker.sock", "/run/docker.sock", "/run/podman/podman.sock"]
    if os.environ.get("XDG_RUNTIME_DIR"):
        sockets.append(f"{os.environ['XDG_RUNTIME_DIR']}/podman/podman.sock")
    for path in sockets:
        if Path(path).is_socket():
            return f"unix://{path}"
    raise RuntimeUnavailable("no container engine found: start Docker or Podman, or set DOCKER_HOST to its socket")


class Runtime:
    def __init__(self, node: str, settings: RuntimeSettings) -> None:
        self._node = node
        self._settings = settings
        self._client: aiodocker.Docker | None = None
        self._slots = asyncio.Semaphore(settings.operations_max)
        self._stops = asyncio.Semaphore(STOPS_MAX)
        self._may_protect = True
        self.info: Mapping[str, Any] = {}  # of the engine, when it was last reached

    @property
    def client(self) -> aiodocker.Docker:
        """Raises RuntimeUnavailable when no engine can be found at all."""
        if self._client is None:
            host = find_host(self._settings.host)
            try:
                self._client = aiodocker.Docker(host)
            except ValueError as e:
                raise RuntimeUnavailable(f"{host!r} is not the address of a container engine: {e}") from e
        return self._client

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    @contextlib.asynccontextmanager
    async def call(
        self, what: str, reason: str, timeout_s: float | None = None, slots: asyncio.Semaphore | None = None
    ) -> AsyncIterator[None]:
        """Around every use of the engine: a place in the queue, a timeout, and our own errors."""
        limit = self._settings.operation_timeout_s if timeout_s is None else timeout_s
        async with slots or self._slots:
            try:
                async with asyncio.timeout(limit):
                    yield
            except aiodocker.DockerError as e:
                if e.status == STATUS_NO_CONNECTION:
                    raise RuntimeUnavailable(e.message) from e
                raise RuntimeFailure(reason, f"{what}: {e.message}") from e
            except TimeoutError as e:
                raise RuntimeFailure(reason, f"{what}: no answer from the container engine within {limit:.0f} s") from e
            except (aiohttp.ClientError, OSError) as e:
                raise RuntimeUnavailable(f"{what}: the container engine was lost: {type(e).__name__}: {e}") from e

    # --- looking ----------------------------------------------------------------------------------------------------

    def label_filters(self) -> list[str]:
        return [f"{labels.NODE}={self._node}", f"{labels.HUB}={self._settings.hub}"]

    async def reach(self) -> str:
        """Prove that the engine answers; its own time, for an event stream that starts now.  Raises RuntimeUnavailable."""
        try:
            async with self.call("info", "RuntimeUnavailable"):
                self.info = await self.client.system.info()
        except RuntimeUnavailable:
            raise
        except RuntimeFailure as e:
            raise RuntimeUnavailable(str(e)) from e
        us = translate.micros(self.info.get("SystemTime"))
        return f"{us // 1_000_000}.{us % 1_000_000:06d}000" if us else ""

    async def snapshot(self, pod_uid: str = "") -> list[Observed]:
        """All containers of this node, or of one of its pods; sandboxes too."""
        wanted = [*self.label_filters(), *([f"{labels.POD_UID}={pod_uid}"] if pod_uid else [])]
        async with self.call("list containers", "ListError"):
            listed = await self.client.containers.list(all=True, filters=json.dumps({"label": wanted}))
        seen = await asyncio.gather(*(self.inspect(c.id) for c in listed))
        return [o for o in seen if o is not None]

    async def stats(self, container: str, slots: asyncio.Semaphore) -> dict[str, Any]:
        """What a container uses, over the last second; raises RuntimeFailure.  It waits in a queue of its own: looking must
        not hold up what keeps pods running."""
        async with self.call(f"stats of {container}", "StatsError", slots=slots):
            found: Any = await self.client.containers.container(container).stats(stream=False)
        return found[0] if isinstance(found, list) else dict(found)

    async def inspect(self, container: str) -> Observed | None:
        """By id or name; None when there is none (of ours)."""
        async with self.call(f"inspect {container}", "InspectError"):
            try:
                found = await self.client.containers.container(container).show()
            except aiodocker.DockerError as e:
                if e.status == 404:
                    return None
                raise
        mine = found.get("Config", {}).get("Labels") or {}
        if mine.get(labels.NODE) != self._node or mine.get(labels.HUB, "") != self._settings.hub:
            return None
        return translate.observed(found)

    async def named(self, identity: Identity) -> Observed | None:
        """The container of this identity, if there is one."""
        return await self.inspect(labels.name(identity))

    # --- starting ---------------------------------------------------------------------------------------------------

    async def ensure_sandbox(self, config: SandboxConfig) -> Observed:
        """A running sandbox, new or found by name.  Raises RuntimeFailure CreatePodSandboxError."""
        reason, image = "CreatePodSandboxError", self._settings.sandbox_image
        body = translate.sandbox(config, image, labels.write(config.identity, self._node, self._settings.hub))
        found = await self._create(body, config.identity, reason)
        if found is None:
            await self._sandbox_image(image, reason)
            found = await self._create(body, config.identity, reason)
        if found is None:
            raise RuntimeFailure(reason, f"sandbox image {image} is missing although it was just loaded")
        return await self._start(found, body, config.identity, reason)

    async def run_container(self, config: ContainerConfig, resolve: Callable[[MountConfig], str]) -> tuple[Observed, bool]:
        """A started container, new or found by name, and whether it was this call that started it.  Raises RuntimeFailure
        CreateContainerError, RunContainerError, ImageMissing."""
        body = translate.container(config, labels.write(config.identity, self._node, self._settings.hub), resolve)
        found = await self._create(body, config.identity, "CreateContainerError")
        if found is None:
            raise RuntimeFailure("ImageMissing", f"image {config.image} is missing")
        if found.state != "created" or found.sandbox != config.identity.sandbox:
            return found, False
        return await self._start(found, body, config.identity, "RunContainerError"), True

    async def _create(self, body: dict[str, Any], identity: Identity, reason: str) -> Observed | None:
        """Create, or adopt the one of this name: the reply to an earlier create may have been lost.  None: no such image."""
        name = labels.name(identity)
        if not self._may_protect:
            body["HostConfig"]["OomScoreAdj"] = max(0, body["HostConfig"]["OomScoreAdj"])
        async with self.call(f"create {name}", reason):
            try:
                await self.client.containers.create(body, name=name)
            except aiodocker.DockerError as e:
                if e.status == 404 and "image" in e.message.lower():
                    return None
                if e.status != 409:
                    raise
        found = await self.inspect(name)
        same = found is not None and (found.pod_uid, found.container, found.attempt) == (
            identity.pod_uid,
            identity.container,
            identity.attempt,
        )
        if found is None or not same:
            raise RuntimeFailure(reason, f"the name {name} belongs to a container that is not this node's")
        return found

    async def _start(self, found: Observed, body: dict[str, Any], identity: Identity, reason: str) -> Observed:
        if found.state == "created":
            try:
                await self._start_once(found, reason)
            except RuntimeUnavailable:
                raise
            except RuntimeFailure:
                if body["HostConfig"]["OomScoreAdj"] >= 0:
                    # It may have been made by an earlier attempt, with what makes it fail in it: the next makes a new one.
                    await self.remove(found.id)
                    raise
                found = await self._start_unprotected(found, body, identity, reason)
        started = await self.inspect(found.id)
        if started is None:
            raise RuntimeFailure(reason, "the container disappeared while it was started")
        return started

    async def _start_once(self, found: Observed, reason: str) -> None:
        async with self.call(f"start {found.container or 'sandbox'}", reason):
            await self.client.containers.container(found.id).start()

    async def _start_unprotected(self, found: Observed, body: dict[str, Any], identity: Identity, reason: str) -> Observed:
        """An engine that may not shield processes from the OOM killer (rootless, or in a container itself) fails to start
        them, without saying why: try once without, and remember when that was it."""
        await self.remove(found.id)
        body["HostConfig"]["OomScoreAdj"] = 0
        again = await self._create(body, identity, reason)
        if again is None:
            raise RuntimeFailure(reason, "the image disappeared while its container was started")
        await self._start_once(again, reason)
        self._may_protect = False
        return again

    async def _sandbox_image(self, image: str, reason: str) -> None:
        async with self.call(f"load sandbox image {image}", reason):
            if image == pause.IMAGE:
                try:
                    archive = pause.image_archive(str(self.info.get("Architecture") or os.uname().machine))
                except pause.UnknownArchitecture as e:
                    raise RuntimeFailure(reason, str(e)) from e
                async for _ in self.client.images.import_image(archive, stream=True):
                    pass
            else:
                async for _ in self.client.images.pull(image, stream=True):
                    pass

    # --- ending -----------------------------------------------------------------------------------------------------

    async def stop(self, container: str, grace_s: int) -> Observed | None:
        """SIGTERM, SIGKILL after the grace period (0: at once); what is there afterwards."""
        limit = grace_s + self._settings.stop_slack_s
        handle = self.client.containers.container(container)
        async with self.call(f"stop {container}", "StopError", limit, self._stops):
            try:
                if grace_s > 0:
                    await handle.stop(t=grace_s)
                else:
                    await handle.kill(signal="SIGKILL")
                    await handle.wait()  # the answer to a kill may come before the end
            except aiodocker.DockerError as e:
                if e.status not in (404, 409, 500):  # not there, or not running (Podman: 500): the inspection tells
                    raise
        seen = await self.inspect(container)
        if seen is not None and seen.state == "running":
            raise RuntimeFailure("StopError", f"{container} still runs after it was stopped")
        return seen

    async def remove(self, container: str) -> None:
        """Whatever its state; it being gone already is success."""
        async with self.call(f"remove {container}", "RemoveError"):
            try:
                await self.client.containers.container(container).delete(force=True, v=True)
            except aiodocker.DockerError as e:
                gone = e.status == 404 or (e.status == 409 and "already in progress" in e.message)
                if not gone:
                    raise

    async def remove_memory_volumes(self, pod_uid: str) -> None:
        wanted = {"label": [*self.label_filters(), f"{labels.POD_UID}={pod_uid}"]}
        async with self.call(f"remove volumes of {pod_uid}", "RemoveError"):
            volumes: Any = self.client.volumes  # aiodocker has no types for volumes
            for found in (await volumes.list(filters=wanted)).get("Volumes") or []:
                try:
                    await (await volumes.get(found["Name"])).delete()
                except aiodocker.DockerError as e:
                    if e.status != 404:
                        raise

    # --- inside -----------------------------------------------------------------------------------------------------

    async def execute(self, container: str, command: tuple[str, ...], timeout_s: float) -> tuple[int, str]:
        """Exit code and output (cut) of a command in a container.  Raises TimeoutError, RuntimeFailure ExecError.  A command
        that is too slow goes on: engines can't stop one."""
        output = bytearray()
        async with self.call(
            f"exec in {container}", "ExecError", timeout_s + self._settings.operation_timeout_s, self._stops
        ):
            execution = await self.client.containers.container(container).exec(list(command), stdout=True, stderr=True)
            stream = execution.start(detach=False)
            timed_out = False
            try:
                async with stream, asyncio.timeout(timeout_s):
                    while (message := await stream.read_out()) is not None:
                        room = self._settings.exec_output_bytes_max - len(output)
                        output += message.data[: max(room, 0)]
            except TimeoutError:
                timed_out = True
            if not timed_out:
                code = (await execution.inspect()).get("ExitCode")
        if timed_out:
            raise TimeoutError(f"command took longer than {timeout_s:.0f} s")
        return (code if isinstance(code, int) else -1), output.decode(errors="replace").strip()
