"""The engine's presence and its events.  Events are hints: after every gap in the stream everything is looked at again."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from typing import Any, Literal

import aiodocker
import aiohttp

from edge.containers import labels
from edge.containers.errors import RuntimeUnavailable
from edge.containers.runtime import Runtime
from edge.containers.settings import RuntimeSettings

Action = Literal["start", "die", "destroy"]
ACTIONS: tuple[Action, ...] = ("start", "die", "destroy")
# Podman's words for the same
_ALSO: Mapping[str, Action] = {"died": "die", "remove": "destroy"}


class Watch:
    """``up()`` is called at each (re)connection, before the first event; ``down(reason)`` once when the engine is lost, or
    not found at first; ``hint(pod uid, container, container id, action)`` for events of this node's containers."""

    def __init__(
        self,
        runtime: Runtime,
        settings: RuntimeSettings,
        up: Callable[[], None],
        down: Callable[[str], None],
        hint: Callable[[str, str, str, Action], None],
    ) -> None:
        self._runtime = runtime
        self._settings = settings
        self._up, self._down, self._hint = up, down, hint

    async def run(self) -> None:
        """Until cancelled."""
        told_down = False
        delay_s = self._settings.reconnect_min_s
        while True:
            try:
                since = await self._runtime.reach()
                told_down, delay_s = False, self._settings.reconnect_min_s
                await self._follow(since)
            except RuntimeUnavailable as e:
                if not told_down:
                    self._down(str(e))
                told_down = True
                delay_s = min(delay_s * 2, self._settings.reconnect_max_s)
            await asyncio.sleep(delay_s)

    async def _follow(self, since: str) -> None:
        """Events until the stream ends."""
        events: Any = self._runtime.client.events  # aiodocker has no types for events
        subscriber = events.subscribe(create_task=False)
        filters = {"type": ["container"], "label": self._runtime.label_filters()}
        params = {"filters": json.dumps(filters), **({"since": since} if since else {})}
        stream = asyncio.create_task(self._stream(events, params), name="engine-events")
        try:
            self._up()
            while (event := await subscriber.get()) is not None:
                self._event(event)
        finally:
            stream.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await stream

    @staticmethod
    async def _stream(events: Any, params: Mapping[str, str]) -> None:
        # How the stream ended doesn't matter: the next reach() tells whether the engine is there
        with contextlib.suppress(aiodocker.DockerError, aiohttp.ClientError, OSError, ValueError):
            await events.run(**params)

    def _event(self, event: Mapping[str, Any]) -> None:
        actor = event.get("Actor") or {}
        action = _ALSO.get(str(event.get("Action")), str(event.get("Action")))
        identity = labels.read(actor.get("Attributes") or {})
        if identity is not None and action in ACTIONS:
            self._hint(identity.pod_uid, identity.container, str(actor.get("ID", "")), action)
