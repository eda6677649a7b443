"""Where pods are told that the API is."""

from __future__ import annotations

from bus.kube import memory, registry, upkeep
from bus.kube.storage import Origin
from cloud.standalone import api_service


async def test_only_what_leads_to_it_from_elsewhere() -> None:
    hosts = ["127.0.0.1", "localhost", "::1", "0.0.0.0", "192.0.2.7", "192.0.2.7", "2001:db8::1"]
    assert await api_service.addresses(hosts) == ["192.0.2.7", "2001:db8::1"]


async def test_servers_name_all_their_addresses() -> None:
    api = registry.Registry(memory.MemoryStorage())
    await upkeep.bootstrap(api, Origin("test"))
    await api_service.publish(api, ["127.0.0.1"], 6443)
    spec = (await api.get("", "services", "default", "kubernetes"))["spec"]
    assert spec["clusterIP"] == "10.96.0.1" and "externalIPs" not in spec and spec["ports"][0]["port"] == 6443
    await api_service.publish(api, ["192.0.2.1"], 6443)
    await api_service.publish(api, ["192.0.2.2"], 6443)
    await api_service.publish(api, ["192.0.2.1"], 6443)
    spec = (await api.get("", "services", "default", "kubernetes"))["spec"]
    assert set(spec["externalIPs"]) == {"192.0.2.1", "192.0.2.2"}
    await api_service.publish(api, ["192.0.2.2"], 7443)
    spec = (await api.get("", "services", "default", "kubernetes"))["spec"]
    assert spec["externalIPs"] == ["192.0.2.2"], "what was at another port is no more"
    assert [p["port"] for p in spec["ports"]] == [7443]
