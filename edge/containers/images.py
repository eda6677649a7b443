"""Getting images: the three pull policies, credentials, and what a node does when the registry can't be reached.

An edge node that has an image starts it, even under policy Always, when nobody answers at the registry's address: that is
the normal state of a cut link.  A registry that answers "no" is believed.
"""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import WeakValueDictionary

import aiodocker

from edge.containers.errors import RuntimeFailure, RuntimeUnavailable
from edge.containers.runtime import Runtime
from edge.containers.settings import RuntimeSettings

USED_LOCAL = "PulledFromLocal"  # reason of the event that tells of a pull that fell back to the image at hand

# Words of Docker and Podman for a registry that answered; everything else is taken as not reached
_REFUSED = ("not found", "manifest unknown", "denied", "unauthorized", "does not exist", "no basic auth", "forbidden")
_INVALID = ("invalid reference format", "invalid image reference", "repository name must")


class Images:
    def __init__(self, runtime: Runtime, settings: RuntimeSettings) -> None:
        self._runtime = runtime
        self._settings = settings
        self._pulls = asyncio.Semaphore(settings.pulls_max)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def ensure(
        self, image: str, policy: str, fallback: bool, auth: tuple[tuple[str, str, str], ...]
    ) -> tuple[str, str]:
        """(message, reason of a warning or "").  Raises RuntimeFailure ErrImagePull, ErrImageNeverPull, InvalidImageName."""
        lock = self._locks.setdefault(image, asyncio.Lock())
        async with lock:  # two pods of one image pull it once
            present = await self._present(image)
            if present and policy != "Always":
                return f'Container image "{image}" already present on machine', ""
            if policy == "Never":
                raise RuntimeFailure(
                    "ErrImageNeverPull", f'Container image "{image}" is not present with pull policy of Never'
                )
            try:
                await self._pull(image, auth)
            except RuntimeUnavailable:
                raise
            except RuntimeFailure as e:
                if not (present and fallback and e.reason == "ErrImagePull" and not _says(str(e), _REFUSED)):
                    raise
                return f'The registry of "{image}" could not be reached, using the image on this node: {e}', USED_LOCAL
        return f'Successfully pulled image "{image}"', ""

    async def _present(self, image: str) -> bool:
        async with self._runtime.call(f"inspect image {image}", "ImageInspectError"):
            try:
                await self._runtime.client.images.inspect(image)
            except aiodocker.DockerError as e:
                if e.status == 404:
                    return False
                if e.status == 400 or _says(e.message, _INVALID):
                    raise RuntimeFailure(
                        "InvalidImageName", f'Failed to apply default image tag "{image}": {e.message}'
                    ) from e
                raise
        return True

    async def _pull(self, image: str, auth: tuple[tuple[str, str, str], ...]) -> None:
        registry = registry_of(image)
        matching: list[dict[str, Any] | None] = [
            {"username": user, "password": password, "serveraddress": registry}
            for host, user, password in auth
            if host in (registry, f"index.{registry}")
        ]
        last: RuntimeFailure | None = None
        for credential in matching or [None]:
            try:
                await self._pull_once(image, credential)
            except RuntimeUnavailable:
                raise
            except RuntimeFailure as e:
                last = e
            else:
                return
        assert last is not None
        raise last

    async def _pull_once(self, image: str, auth: dict[str, Any] | None) -> None:
        stall_s = self._settings.pull_stall_timeout_s
        # aiodocker wants a registry in the name when it is given credentials
        name = image if auth is None or _has_registry(image) else f"docker.io/{image}"
        # the timeout is moved on with every sign of progress, so that a slow link may take as long as it needs
        async with self._runtime.call(f"pull {image}", "ErrImagePull", float("inf"), self._pulls):
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(stall_s) as stalled:
                async for _ in self._runtime.client.images.pull(name, auth=auth, stream=True):
                    stalled.reschedule(loop.time() + stall_s)


def registry_of(image: str) -> str:
    """Host of an image's registry; docker.io when the name has none (Docker's rule for what a host looks like)."""
    return image.split("/", 1)[0] if _has_registry(image) else "docker.io"


def _has_registry(image: str) -> bool:
    first, slash, _ = image.partition("/")
    return bool(slash) and ("." in first or ":" in first or first == "localhost")


def _says(message: str, words: tuple[str, ...]) -> bool:
    return any(word in message.lower() for word in words)
