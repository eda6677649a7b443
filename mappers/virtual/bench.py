"""The virtual device on the conformance bench."""

from __future__ import annotations

import itertools
from typing import Any

from mappers.virtual import world
from mappers.virtual.script import DeviceScript

_worlds = itertools.count(1)


class VirtualBench:
    def __init__(self) -> None:
        self._world = f"bench-{next(_worlds)}"
        self._shown: float = 0.0
        self._running = False

    async def start(self) -> None:
        self._running = True
        self._apply()

    async def stop(self) -> None:
        self._running = False
        self._apply()

    async def drop(self) -> None:
        self._device().drop()

    async def close(self) -> None:
        world.forget(self._world)

    def show(self, value: float) -> None:
        self._shown = value
        self._apply()

    def _apply(self) -> None:
        device = self._device()
        device.unreachable = not self._running
        device.held["readable"] = self._shown

    def _device(self) -> world.VirtualDevice:
        return world.device(DeviceScript(world=self._world), "")

    def config(self) -> dict[str, Any]:
        return {"world": self._world}

    def bad_config(self) -> dict[str, Any]:
        return {"world": self._world, "disconectAfter": 5}

    def readable(self) -> dict[str, Any]:
        return {"value": 0.0}

    def writable(self) -> dict[str, Any]:
        return {"value": 20.0}

    def missing(self) -> dict[str, Any]:
        return {"missing": True}

    def bad_visitor(self) -> dict[str, Any]:
        return {"ramp": {"from": 0, "to": 10, "step": -1}}
