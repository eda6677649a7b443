"""What users do, through the API's own rules: pods, config maps, secrets, services, devices and models come, change and go,
from a small set of names.  A counter is raised by reading and writing: an increment that is lost is a lost update."""

from __future__ import annotations

from random import Random

from bus.kube.deletion import DeleteOptions
from bus.kube.storage import Object
from ops.sim.api import USER, ApiServer
from ops.sim.deploying import Deployers
from ops.sim.devices import PROTOCOL
from ops.sim.schedule import MS, S, Schedule
from schemas.subjects import ObjectKey

DEVICES = "devices.kubeedge.io"
V1BETA1 = f"{DEVICES}/v1beta1"
NAMESPACES = ("default", "apps")
COUNTER = ObjectKey("", "configmaps", "default", "counter")
PODS, MAPS, SECRETS, SERVICES, DEVICE_NAMES, MODELS = 6, 4, 3, 2, 3, 2
FORCE = DeleteOptions(grace_s=0)


class Users:
    def __init__(
        self, schedule: Schedule, servers: list[ApiServer], nodes: list[str], deployers: Deployers | None = None
    ) -> None:
        """``deployers``: where controllers run."""
        self._schedule, self._servers, self._nodes, self._deployers = schedule, servers, nodes, deployers
        self.refused: dict[str, int] = {}
        self._last: tuple[ObjectKey, Object | None] | None = None  # what was changed, and how it was before

    def begin(self) -> None:
        """Before anything else: the namespaces, and the counter."""
        lots = Random(0)
        self._servers[0].serve(lambda s: self._namespaces(s, lots), self._no)

    def act(self, lots: Random) -> None:
        server = lots.choice(self._servers)
        namespace = lots.choice(NAMESPACES)
        if lots.random() < 0.12:
            self.undo(lots)
            return
        deployers = self._deployers
        if deployers is not None and lots.random() < 0.35:
            server.serve(lambda s: deployers.act(s, lots), self._no)
            return
        do = lots.choices(
            (self._pod, self._end_pod, self._support, self._end_support, self._device, self._end_device, self._count),
            (5, 3, 5, 2, 2, 1, 2),
        )[0]
        server.serve(lambda s: do(s, namespace, lots), self._no)

    def undo(self, lots: Random) -> None:
        """Back to what it was: the case in which somebody who reads late has nothing to do."""
        if self._last is not None:
            (key, before), self._last = self._last, None
            lots.choice(self._servers).serve(lambda s: self._undone(s, key, before), self._no)

    def _no(self, why: str) -> None:
        self.refused[why] = self.refused.get(why, 0) + 1
        self._schedule.note(f"user: {why}")

    async def _namespaces(self, server: ApiServer, _: Random) -> None:
        for name in NAMESPACES:
            await server.answered(server.registry.create("", "namespaces", "", {"metadata": {"name": name}}, how=USER))
        first = {"metadata": {"name": COUNTER.name}, "data": {"n": "0"}}
        await server.answered(server.registry.create("", "configmaps", COUNTER.namespace, first, how=USER))

    async def _undone(self, server: ApiServer, key: ObjectKey, before: Object | None) -> None:
        stored = server.storage.get(key)
        if stored is None or "deletionTimestamp" in stored.object["metadata"]:
            return  # a deletion can't be undone
        if before is None:
            await self._remove(server, key)
        elif stored.object["metadata"]["uid"] == before["metadata"]["uid"]:
            await server.answered(server.registry.update(key.group, key.resource, key.namespace, key.name, before, how=USER))

    async def _count(self, server: ApiServer, _: str, lots: Random) -> None:
        stored = server.storage.get(COUNTER)
        if stored is None:
            return
        await server.sleep(lots.choice((0, 10 * MS, 2 * S)))
        now: Object = {
            "metadata": {"name": COUNTER.name, "resourceVersion": str(stored.rev)},
            "data": {"n": str(int(stored.object["data"]["n"]) + 1)},
        }
        args = ("", "configmaps", COUNTER.namespace, COUNTER.name, now)
        await server.answered(server.registry.update(*args, how=USER))

    # --- small steps

    async def _make(self, server: ApiServer, key: ObjectKey, obj: Object) -> None:
        self._schedule.note(f"user makes {key}")
        whole = {**obj, "metadata": {"name": key.name, **obj.get("metadata", {})}}
        await server.answered(server.registry.create(key.group, key.resource, key.namespace, whole, how=USER))
        self._last = (key, None)

    async def _patch(self, server: ApiServer, key: ObjectKey, patch: Object) -> None:
        self._schedule.note(f"user patches {key}")
        stored = server.storage.get(key)
        if stored is not None:
            self._last = (key, stored.object)
        args = (key.group, key.resource, key.namespace, key.name, patch)
        await server.answered(server.registry.patch(*args, kind="merge", how=USER))

    async def _remove(self, server: ApiServer, key: ObjectKey, options: DeleteOptions | None = None) -> None:
        self._schedule.note(f"user deletes {key}")
        args = (key.group, key.resource, key.namespace, key.name)
        await server.answered(server.registry.delete(*args, how=USER, options=options))

    # --- pods

    async def _pod(self, server: ApiServer, namespace: str, lots: Random) -> None:
        """Made, bound, changed, or moved: removed and made again with the same name, another uid, and another node."""
        key = ObjectKey("", "pods", namespace, f"p.{lots.randrange(PODS)}")
        stored = server.storage.get(key)
        if stored is None:
            node = lots.choice([*self._nodes, *self._nodes, ""])
            await self._make(server, key, {"spec": self._pod_spec(node, lots)})
            return
        obj = stored.object
        if "deletionTimestamp" in obj["metadata"]:
            return
        if not obj["spec"].get("nodeName"):
            binding = {"metadata": {"name": key.name}, "target": {"kind": "Node", "name": lots.choice(self._nodes)}}
            pods = ("", "pods", namespace)
            await server.registry.create(*pods, binding, name=key.name, subresource="binding", how=USER)
        elif lots.random() < 0.4:
            await self._remove(server, key, FORCE)
            await self._make(server, key, {"spec": self._pod_spec(lots.choice(self._nodes), lots)})
        elif lots.random() < 0.5:
            await self._patch(server, key, {"metadata": {"labels": {"turn": str(lots.randrange(3))}}})
        else:
            containers = [{**c, "image": f"busybox:{lots.randrange(3)}"} for c in obj["spec"]["containers"]]
            await self._patch(server, key, {"spec": {"containers": containers}})

    def _pod_spec(self, node: str, lots: Random) -> Object:
        """Waits for nothing that nobody makes: references are optional for the containers, needed all the same."""
        volumes: list[Object] = []
        mounts: list[Object] = []
        env: list[Object] = []
        for n in range(MAPS):
            if lots.random() < 0.3:
                volumes.append({"name": f"v{n}", "configMap": {"name": f"c.{n}", "optional": True}})
                mounts.append({"name": f"v{n}", "mountPath": f"/v{n}"})
        for n in range(SECRETS):
            if lots.random() < 0.25:
                ref = {"name": f"s.{n}", "key": "k", "optional": True}
                env.append({"name": f"S{n}", "valueFrom": {"secretKeyRef": ref}})
        names = ["main", "side"][: lots.choice((1, 1, 2))]
        containers = [{"name": c, "image": "busybox:0", "volumeMounts": mounts, "env": env} for c in names]
        spec: Object = {
            "containers": containers,
            "volumes": volumes,
            "terminationGracePeriodSeconds": lots.choice((0, 2, 30)),
        }
        return {**spec, "nodeName": node} if node else spec

    async def _end_pod(self, server: ApiServer, namespace: str, lots: Random) -> None:
        """As kubectl delete: marked, and gone when the node says so; or by force."""
        key = ObjectKey("", "pods", namespace, f"p.{lots.randrange(PODS)}")
        if server.storage.get(key) is not None:
            await self._remove(server, key, FORCE if lots.random() < 0.2 else None)

    # --- what pods name

    def _support_key(self, namespace: str, lots: Random) -> ObjectKey:
        kind, names, prefix = lots.choice(
            (("configmaps", MAPS, "c."), ("secrets", SECRETS, "s."), ("services", SERVICES, "svc"))
        )
        return ObjectKey("", kind, namespace, f"{prefix}{lots.randrange(names)}")

    async def _support(self, server: ApiServer, namespace: str, lots: Random) -> None:
        key = self._support_key(namespace, lots)
        # Few values, so that an object often comes back to what it was: equal content must not fool anybody.
        value = f"v{lots.randrange(3)}"
        obj: Object
        if key.resource == "services":
            obj = {"spec": {"type": "ExternalName", "externalName": f"{value}.example"}}
        elif key.resource == "secrets":
            obj = {"data": {"k": ("QUJD", "REVG", "R0hJ")[int(value[1])]}}
        else:
            obj = {"data": {"k": value, "filler": "x" * lots.choice((0, 50, 800))}}
        if server.storage.get(key) is None:
            await self._make(server, key, obj)
        else:
            await self._patch(server, key, obj)

    async def _end_support(self, server: ApiServer, namespace: str, lots: Random) -> None:
        key = self._support_key(namespace, lots)
        if server.storage.get(key) is not None:
            await self._remove(server, key)

    # --- devices

    async def _device(self, server: ApiServer, namespace: str, lots: Random) -> None:
        if lots.random() < 0.3:
            key = ObjectKey(DEVICES, "devicemodels", namespace, f"m.{lots.randrange(MODELS)}")
            prop = {"name": "setting", "type": "STRING", "accessMode": "ReadWrite"}
            spec: Object = {"protocol": PROTOCOL, "properties": [{**prop, "unit": f"u{lots.randrange(3)}"}]}
        else:
            key = ObjectKey(DEVICES, "devices", namespace, f"d.{lots.randrange(DEVICE_NAMES)}")
            stored = server.storage.get(key)
            node = stored.object["spec"]["nodeName"] if stored else lots.choice(self._nodes)
            if lots.random() < 0.2:
                node = lots.choice(self._nodes)  # a device may move as it is
            spec = {
                "nodeName": node,
                "deviceModelRef": {"name": f"m.{lots.randrange(MODELS)}"},
                "protocol": {"protocolName": PROTOCOL},
                "properties": [{"name": "setting", "desired": {"value": f"s{lots.randrange(5)}"}}],
            }
        if server.storage.get(key) is None:
            kind = "DeviceModel" if key.resource == "devicemodels" else "Device"
            await self._make(server, key, {"apiVersion": V1BETA1, "kind": kind, "spec": spec})
        else:
            await self._patch(server, key, {"spec": spec})

    async def _end_device(self, server: ApiServer, namespace: str, lots: Random) -> None:
        key = ObjectKey(DEVICES, "devices", namespace, f"d.{lots.randrange(DEVICE_NAMES)}")
        if server.storage.get(key) is not None:
            await self._remove(server, key)
        await self._status_gone(server, key.namespace, key.name)

    async def _status_gone(self, server: ApiServer, namespace: str, name: str) -> None:
        """The garbage collector's work: the status is owned by the device."""
        key = ObjectKey(DEVICES, "devicestatuses", namespace, name)
        if server.storage.get(key) is not None:
            await server.answered(server.registry.delete(DEVICES, key.resource, namespace, name, how=USER))
