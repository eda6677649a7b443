"""Objects that can't be mirrored hold up no other, and are mirrored when they can be."""

from __future__ import annotations

from typing import Any

import pytest

from bus.kube.storage import Origin
from schemas.subjects import ObjectKey
from tests.contract.bridge.worlds import NODE, World, cm, mounting, pods, until

pytestmark = pytest.mark.contract
GROUP = "devices.kubeedge.io"
DEVICE = ObjectKey(GROUP, "devices", "default", "d")
TOO_LARGE = "x" * 1_048_300  # etcd takes it, an event in the log doesn't


def device(name: str, value: Any) -> dict[str, Any]:
    spec = {"nodeName": "edge-1", "deviceModelRef": {"name": "m"}, "protocol": {"protocolName": "p", "configData": value}}
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": f"{GROUP}/v1beta1", "kind": "Device", "metadata": meta, "spec": spec}


def nested(levels: int) -> Any:
    return {"a": nested(levels - 1)} if levels else {}


@pytest.mark.parametrize("value", [1 << 70, nested(300)], ids=["a number of 70 bits", "300 levels"])
async def test_what_no_event_can_hold(world: World, value: Any) -> None:
    """It comes past our API's own checks, as from a cluster that has others."""
    await world.node()
    await world.cluster.storage.create(DEVICE, device("d", value), Origin("test"))
    async with world.bridge() as bridge:
        assert bridge.mirror is not None
        mirror = bridge.mirror
        await world.create(GROUP, "devices", device("good", {"a": 1}))
        await until(lambda: world.held_in(GROUP, "devices") == ["good"])
        await until(lambda: bool(mirror.poison.reason(DEVICE)))
        refused = mirror.stats.refused
        world.proxy.cut()  # asked for again, not tried again
        await world.create(GROUP, "devices", device("better", {"a": 1}))
        await until(lambda: world.held_in(GROUP, "devices") == ["better", "good"])
        assert mirror.stats.refused == refused
        stored = world.cluster.storage.get(DEVICE)
        assert stored is not None
        await world.cluster.storage.replace(DEVICE, device("d", {"a": 1}), stored.rev, Origin("test"))
        await until(lambda: world.held_in(GROUP, "devices") == ["better", "d", "good"])
        assert len(mirror.poison) == 0


async def test_a_config_map_that_is_too_large(world: World) -> None:
    await world.node()
    await world.config_map("big", k=TOO_LARGE)
    await world.config_map("small", k="1")
    await world.pod("p", **mounting("big"))
    await world.pod("q", **mounting("small"))
    async with world.bridge() as bridge:
        assert bridge.mirror is not None
        assert world.agrees([NODE, cm("small"), *pods("p", "q")])
        assert "TooLarge" in bridge.mirror.poison.reason(cm("big"))
        await world.set_config_map("big", k="1")
        await until(lambda: world.agrees([NODE, cm("big"), cm("small"), *pods("p", "q")]))
        await world.set_config_map("big", k=TOO_LARGE)  # the node keeps what it had
        mirror = bridge.mirror
        await until(lambda: bool(mirror.poison.reason(cm("big"))))
        held = world.storage.get(cm("big"))
        assert held is not None and held.object["data"] == {"k": "1"}
        stored = world.cluster.storage.get(cm("big"))
        assert stored is not None
        await world.cluster.storage.delete(cm("big"), stored.rev, Origin("test"))
        await until(lambda: world.agrees([NODE, cm("small"), *pods("p", "q")]))
        assert not mirror.poison.reason(cm("big"))
