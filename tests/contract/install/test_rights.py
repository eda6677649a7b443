"""A bridge with the rights that an installation gives it and no others, and what it asks of the cluster: the two agree."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from bus import stamp
from bus.kube import server
from bus.kube.auth import users
from bus.kube.auth.rbac import Rbac
from bus.kube.auth.users import Attributes, Decision
from cloud.bridge import credentials, election, kinds
from cloud.bridge.client import Client
from ops.install import objects
from ops.install.values import Values
from schemas.subjects import ObjectKey
from tests.contract.bridge.test_bridge_life import LEASE, ready
from tests.contract.bridge.test_cut_nodes_keep_pods import cut
from tests.contract.bridge.worlds import NODE, POD, World, mounting, until, world
from tests.contract.kube_served import served

pytestmark = pytest.mark.contract
VALUES = Values(host="hub.example.com")
BEARER = "the-pod's"
Right = tuple[str, str, str]


class Recording(Rbac):
    """Writes down what is asked."""

    asked: set[Right]
    refused: set[Right]

    def authorize(self, wanted: Attributes) -> Decision:
        right = (wanted.group, wanted.whole, wanted.verb)
        decision = super().authorize(wanted)
        if not wanted.path:
            (self.asked if decision.allowed else self.refused).add(right)
        return decision


def as_the_bridge(headers: Mapping[str, str]) -> users.User | None:
    if headers.get("Authorization") != f"Bearer {BEARER}":
        return None
    name = users.account_name(VALUES.namespace, objects.NAME)
    return users.authenticated(name, users.account_groups(VALUES.namespace))


@contextlib.asynccontextmanager
async def guarded(folder: Path) -> AsyncIterator[tuple[World, Recording, Path]]:
    """A cluster with what an installation makes of rights, its record, and the bridge's kubeconfig."""
    async with served(folder, rights=True) as cluster, world(cluster, folder) as made:
        for obj in objects.objects(VALUES):
            namespace = obj["metadata"].get("namespace", "")
            if obj["kind"] == "Namespace":
                await made.create("", "namespaces", obj, "")
            elif obj["kind"].endswith(("Role", "RoleBinding")):
                await made.create("rbac.authorization.k8s.io", obj["kind"].lower() + "s", obj, namespace)
        recording = Recording(cluster.api.reader)
        recording.asked, recording.refused = set(), set()
        app = server.make_app(cluster.api, authenticate=as_the_bridge, authorizer=recording)
        running = await server.serve(app, "127.0.0.1", 0)
        config = yaml.safe_load(cluster.kubeconfig.read_text())
        config["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{running.port}"}
        config["users"][0]["user"] = {"token": BEARER}
        path = folder / "kubeconfig-bridge"
        path.write_text(yaml.safe_dump(config))
        try:
            yield made, recording, path
        finally:
            await running.stop()


def granted() -> set[Right]:
    rules = next(o for o in objects.objects(VALUES) if o["kind"] == "ClusterRole")["rules"]
    return {(g, r, v) for rule in rules for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"]}


async def test_it_asks_for_all_that_it_may_and_for_nothing_else(tmp_path: Path) -> None:
    async with guarded(tmp_path) as (w, recording, kubeconfig):
        await _life(w, kubeconfig)
        assert recording.refused == set()
        # A kind that this cluster does not serve is asked for by lists alone, which find that out.
        here = {(r.group, r.resource) for r in w.cluster.api.catalog.all()}
        asked, may = ({r for r in found if (r[0], r[1].split("/")[0]) in here} for found in (recording.asked, granted()))
        assert asked == may


async def test_it_may_lead(tmp_path: Path) -> None:
    async with guarded(tmp_path) as (w, recording, kubeconfig):
        client = Client(credentials.load(kubeconfig))
        leader = election.Election(client, "hub", "me", where=VALUES.namespace)
        begun = asyncio.Event()

        async def work() -> None:
            begun.set()
            await asyncio.Event().wait()

        running = asyncio.create_task(leader.run(work))
        try:
            async with asyncio.timeout(30):
                await begun.wait()
            assert leader.leads
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await client.close()
        lease = w.there(ObjectKey("coordination.k8s.io", "leases", VALUES.namespace, election.NAME))
        assert lease is not None and lease["spec"]["holderIdentity"] == "", "it is given back"
        assert recording.refused == set()


async def _life(w: World, kubeconfig: Path) -> None:
    """Everything that a bridge does, once."""
    async with w.bridge(kubeconfig=kubeconfig) as bridge, w.dispatcher():
        await w.node_report()
        await until(lambda: ready(w.there(NODE)) == "True")
        await until(lambda: w.storage.get(NODE) is not None)
        await w.node_report(labels={"site": "a"})
        await until(lambda: (w.there(NODE) or {})["metadata"]["labels"].get("site") == "a")
        for _ in range(2):
            bridge.beat("edge-1")
            await until(lambda: w.there(LEASE) is not None)
        await _device(w)
        await w.config_map("mine", k="1")
        await w.secret("mine")
        volume = {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}}
        await w.create("", "persistentvolumes", _named("v1", "PersistentVolume", "v", spec=volume), "")
        claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "volumeName": "v",
                 "storageClassName": ""}  # fmt: skip
        await w.create("", "persistentvolumeclaims", _named("v1", "PersistentVolumeClaim", "c", spec=claim))
        volumes = mounting("mine", "mine")["volumes"]
        volumes.append({"name": "v", "persistentVolumeClaim": {"claimName": "c"}})
        volumes.append({"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}})
        made = await w.pod(volumes=volumes, serviceAccountName="default", tolerations=[])
        wanted = [
            ("configmaps", "mine"),
            ("secrets", "mine"),
            ("persistentvolumeclaims", "c"),
            ("serviceaccounts", "default"),
        ]

        async def known() -> bool:
            there = {k.name: v for k, v in (await w.meta()).items() if v is not None}
            return all(n in w.held(r) for r, n in wanted) and "p" in there and w.held("persistentvolumes") == ["v"]

        await until(known)
        await w.set_config_map("mine", k="2")
        await until(lambda: _data(w) == {"k": "2"})
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        await w.report("pod", {"uid": made["metadata"]["uid"], "status": status}, "p")
        await until(lambda: ready(w.there(POD)) == "True")
        await _events(w)
        await cut(w, "edge-1")
        await w.report("pod", {"uid": made["metadata"]["uid"], "status": None}, "p")
        await w.cluster.api.delete("", "pods", "default", "p", how=w.cluster.how())
        await until(lambda: w.there(POD) is None)


def _data(w: World) -> Any:
    held = w.storage.get(ObjectKey("", "configmaps", "default", "mine"))
    return held.object.get("data") if held else None


async def _device(w: World) -> None:
    group = kinds.DEVICES
    model = _named(f"{group}/v1beta1", "DeviceModel", "m", spec={"properties": []})
    await w.create(group, "devicemodels", model)
    spec = {"nodeName": "edge-1", "deviceModelRef": {"name": "m"}}
    made = await w.create(group, "devices", _named(f"{group}/v1beta1", "Device", "d", spec=spec))
    status = ObjectKey(group, "devicestatuses", "default", "d")
    for value in (1.5, 2.5):
        twins = [{"property": "t", "value": value, "time": stamp.now_us()}]
        await w.report("twin", {"uid": made["metadata"]["uid"], "state": "online", "twins": twins}, "d")
        await until(lambda: _reported(w, status) == str(value))  # noqa: B023 - awaited at once


def _reported(w: World, status: ObjectKey) -> str | None:
    twins = ((w.there(status) or {}).get("status") or {}).get("twins") or [{}]
    value = (twins[0].get("reported") or {}).get("value")
    return str(value) if value is not None else None


async def _events(w: World) -> None:
    """Twice the same: the second is a higher count."""
    for count in (1, 2):
        happened = {"involved": {"kind": "Pod", "namespace": "default", "name": "p"}, "type": "Normal", "reason": "Pulled",
                    "message": "m", "first": stamp.now_us(), "last": stamp.now_us(), "count": count}  # fmt: skip
        await w.report("event", happened, "p.1")
        await until(lambda: count in [s.object.get("count") for s in w.cluster.storage.list("", "events")])  # noqa: B023


def _named(api_version: str, kind: str, name: str, **rest: Any) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, **rest}
