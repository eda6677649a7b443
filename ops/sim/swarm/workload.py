"""What users do: pods, config maps, secrets, services, devices and models come, change and go, from a small set of names."""

from __future__ import annotations

from random import Random
from typing import Any

from ops.sim.swarm.api import Api
from ops.sim.swarm.schedule import Schedule
from schemas import times
from schemas.subjects import ObjectKey

Object = dict[str, Any]
DEVICES = "devices.kubeedge.io"
NAMESPACES = ("default", "apps")
PODS, MAPS, SECRETS, SERVICES, DEVICE_NAMES, MODELS = 6, 4, 3, 2, 3, 2


class Users:
    def __init__(self, schedule: Schedule, api: Api, nodes: list[str]) -> None:
        self._schedule, self._api, self._nodes = schedule, api, nodes
        self._lots: Random = schedule.lots("users")
        self._made = 0
        self._last: tuple[ObjectKey, Object | None] | None = None  # what was changed, and how it was before

    def act(self) -> None:
        lots = self._lots
        namespace = lots.choice(NAMESPACES)
        if lots.random() < 0.15:
            self.undo()
            return
        do = lots.choices(
            (self._pod, self._end_pod, self._support, self._end_support, self._device, self._end_device), (5, 3, 5, 2, 2, 1)
        )[0]
        do(namespace)

    def undo(self) -> None:
        """Back to what it was: the case in which somebody who reads late has nothing to do."""
        if self._last is None:
            return
        (key, before), self._last = self._last, None
        current = self._api.get(key)
        data = current[1].data if current is not None else None
        if data is None or "deletionTimestamp" in data["metadata"]:
            return  # a deletion can't be undone
        if before is None:
            self._remove(key)
        elif data["metadata"]["uid"] == before["metadata"]["uid"]:
            self._put(key, before)

    def _meta(self, key: ObjectKey, kept: Object | None = None) -> Object:
        if kept is not None:
            return dict(kept["metadata"])
        self._made += 1
        return {"name": key.name, "namespace": key.namespace, "uid": f"uid-{self._made}"}

    def _put(self, key: ObjectKey, obj: Object) -> None:
        self._schedule.note(f"user puts {key} {obj['metadata']['uid']}")
        current = self._api.get(key)
        self._last = (key, current[1].data if current else None)
        self._api.put(key, obj)

    def _remove(self, key: ObjectKey) -> None:
        if self._api.remove(key) is not None:
            self._schedule.note(f"user removed {key}")

    # --- pods

    def _pod(self, namespace: str) -> None:
        """Made, bound, changed, or moved: removed and made again with the same name, another uid, and another node."""
        lots = self._lots
        key = ObjectKey("", "pods", namespace, f"p.{lots.randrange(PODS)}")
        current = self._api.get(key)
        if current is None:
            node = lots.choice([*self._nodes, *self._nodes, ""])
            self._put(key, {"kind": "Pod", "metadata": self._meta(key), "spec": self._pod_spec(node)})
            return
        obj = current[1].data
        assert obj is not None
        if "deletionTimestamp" in obj["metadata"]:
            return
        if not obj["spec"].get("nodeName"):
            self._put(key, {**obj, "spec": {**obj["spec"], "nodeName": lots.choice(self._nodes)}})
        elif lots.random() < 0.4:
            self._remove(key)
            spec = self._pod_spec(lots.choice(self._nodes))
            self._put(key, {"kind": "Pod", "metadata": self._meta(key), "spec": spec})
        elif lots.random() < 0.5:
            meta = {**obj["metadata"], "labels": {"turn": str(lots.randrange(3))}}
            self._put(key, {**obj, "metadata": meta})
        else:
            containers = [{**c, "image": f"busybox:{lots.randrange(3)}"} for c in obj["spec"]["containers"]]
            self._put(key, {**obj, "spec": {**obj["spec"], "containers": containers}})

    def _pod_spec(self, node: str) -> Object:
        """Waits for nothing that nobody makes: references are optional for the containers, needed all the same."""
        lots = self._lots
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

    def _end_pod(self, namespace: str) -> None:
        """As kubectl delete: marked, and gone when the node says so; or by force."""
        key = ObjectKey("", "pods", namespace, f"p.{self._lots.randrange(PODS)}")
        current = self._api.get(key)
        if current is None or current[1].data is None:
            return
        obj = current[1].data
        if not obj["spec"].get("nodeName") or self._lots.random() < 0.2:
            self._remove(key)
        elif "deletionTimestamp" not in obj["metadata"]:
            grace = int(obj["spec"]["terminationGracePeriodSeconds"])
            when = times.rfc3339(self._schedule.now_us + grace * times.US_PER_S)
            meta = {**obj["metadata"], "deletionTimestamp": when, "deletionGracePeriodSeconds": grace}
            self._put(key, {**obj, "metadata": meta})

    # --- what pods name

    def _support_key(self, namespace: str) -> ObjectKey:
        lots = self._lots
        kind, names, prefix = lots.choice(
            (("configmaps", MAPS, "c"), ("secrets", SECRETS, "s"), ("services", SERVICES, "svc"))
        )
        return ObjectKey("", kind, namespace, f"{prefix}.{lots.randrange(names)}")

    def _support(self, namespace: str) -> None:
        key = self._support_key(namespace)
        current = self._api.get(key)
        meta = self._meta(key, current[1].data if current else None)
        # Few values, so that an object often comes back to what it was: equal content must not fool anybody.
        value = f"value {self._lots.randrange(3)}"
        if key.resource == "services":
            self._put(key, {"kind": "Service", "metadata": meta, "spec": {"clusterIP": "None", "externalName": value}})
        elif key.resource == "secrets":
            self._put(key, {"kind": "Secret", "metadata": meta, "stringData": {}, "data": {"k": value.encode().hex()}})
        else:
            filler = "x" * self._lots.choice((0, 50, 800))
            self._put(key, {"kind": "ConfigMap", "metadata": meta, "data": {"k": value, "filler": filler}})

    def _end_support(self, namespace: str) -> None:
        self._remove(self._support_key(namespace))

    # --- devices

    def _device(self, namespace: str) -> None:
        lots = self._lots
        if lots.random() < 0.3:
            key = ObjectKey(DEVICES, "devicemodels", namespace, f"m.{lots.randrange(MODELS)}")
            current = self._api.get(key)
            meta = self._meta(key, current[1].data if current else None)
            self._put(key, {"kind": "DeviceModel", "metadata": meta, "spec": {"turn": lots.randrange(3)}})
            return
        key = ObjectKey(DEVICES, "devices", namespace, f"d.{lots.randrange(DEVICE_NAMES)}")
        current = self._api.get(key)
        old = current[1].data if current else None
        spec = dict(old["spec"]) if old else {"nodeName": lots.choice(self._nodes)}
        spec |= {"deviceModelRef": {"name": f"m.{lots.randrange(MODELS)}"}, "setting": lots.randrange(5)}
        if old is not None and lots.random() < 0.2:
            spec["nodeName"] = lots.choice(self._nodes)  # a device may move as it is
        self._put(key, {"kind": "Device", "metadata": self._meta(key, old), "spec": spec})

    def _end_device(self, namespace: str) -> None:
        key = ObjectKey(DEVICES, "devices", namespace, f"d.{self._lots.randrange(DEVICE_NAMES)}")
        self._remove(key)
        status = ObjectKey(DEVICES, "devicestatuses", key.namespace, key.name)
        self._remove(status)  # the garbage collector's work: the status is owned by the device
