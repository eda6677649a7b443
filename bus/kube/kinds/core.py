"""Namespaces, nodes, config maps, secrets, services."""

from __future__ import annotations

import base64
import ipaddress
import zlib
from collections.abc import Mapping
from typing import Any, ClassVar

from bus.kube import errors, names
from bus.kube.errors import Cause
from bus.kube.kinds.base import Context, Strategy, at, keep
from bus.kube.selectors import FieldGetter
from bus.kube.storage import Object

DATA_BYTES_MAX = 1 << 20  # of a config map or secret, as in the real server
SERVICE_NETWORK = ipaddress.IPv4Network("10.96.0.0/16")  # kubeadm's default is 10.96.0.0/12
PORT_MAX = 65535


class Namespaces(Strategy):
    returns_deleted = True
    fields = ("status.phase",)

    def name_problem(self, name: str) -> str:
        return names.dns_label(name)

    def prepare_create(self, obj: Object, ctx: Context) -> None:
        obj["status"] = {"phase": "Active"}
        finalizers = at(obj, "spec", "finalizers") or []
        obj["spec"] = {"finalizers": list(dict.fromkeys([*finalizers, "kubernetes"]))}

    def defaults(self, obj: Object, ctx: Context) -> None:
        if name := obj["metadata"].get("name"):
            obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = name

    def prepare_update(self, obj: Object, old: Object, ctx: Context) -> None:
        keep(obj, old, "status")
        keep(obj, old, "spec")  # finalizers go through the finalize subresource only


class Nodes(Strategy):
    """A node is registered with its status, so a create keeps it."""

    fields = ("spec.unschedulable",)
    special: ClassVar[Mapping[str, FieldGetter]] = {
        "spec.unschedulable": lambda o: "true" if at(o, "spec", "unschedulable") else "false"
    }

    def prepare_create(self, obj: Object, ctx: Context) -> None:
        obj.setdefault("spec", {})
        obj.setdefault("status", {})

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        out = []
        for i, taint in enumerate(at(obj, "spec", "taints") or []):
            if problem := names.label_key(taint.get("key", "")):
                out.append(errors.bad_value(f"spec.taints[{i}].key", taint.get("key", ""), problem))
            effects = ("NoSchedule", "PreferNoSchedule", "NoExecute")
            if taint.get("effect") not in effects:
                out.append(errors.not_supported(f"spec.taints[{i}].effect", taint.get("effect"), effects))
        return out

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        return self.validate(obj, ctx)


class ConfigMaps(Strategy):
    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        out = []
        total = 0
        for field in ("data", "binaryData"):
            for key, value in obj.get(field, {}).items():
                if problem := names.config_key(key):
                    out.append(errors.bad_value(f"{field}[{key}]", key, problem))
                total += len(value.encode())
        for key in obj.get("data", {}).keys() & obj.get("binaryData", {}).keys():
            out.append(errors.bad_value(f"data[{key}]", key, "duplicate of key present in binaryData"))
        if total > DATA_BYTES_MAX:
            out.append(Cause("", "FieldValueTooLong", f"Too long: may not be more than {DATA_BYTES_MAX} bytes"))
        return out

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        return _immutable(obj, old, ("data", "binaryData")) + self.validate(obj, ctx)


def _immutable(obj: Object, old: Object, fields: tuple[str, ...]) -> list[Cause]:
    if not old.get("immutable"):
        return []
    out = []
    if not obj.get("immutable"):
        out.append(errors.not_permitted("immutable", "field is immutable when `immutable` is set"))
    for field in fields:
        if obj.get(field) != old.get(field):
            out.append(errors.not_permitted(field, "field is immutable when `immutable` is set"))
    return out


# What a secret of a known type must have (Kubernetes "Types of Secret").
SECRET_KEYS: dict[str, tuple[str, ...]] = {
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}
ACCOUNT_OF_TOKEN = "kubernetes.io/service-account.name"  # annotation of a secret that holds an account's token


class Secrets(Strategy):
    fields = ("type",)

    def defaults(self, obj: Object, ctx: Context) -> None:
        obj.setdefault("type", "Opaque")
        for key, text in obj.pop("stringData", {}).items():
            obj.setdefault("data", {})[key] = base64.b64encode(text.encode()).decode()

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        out = []
        data: dict[str, str] = obj.get("data", {})
        for key in data:
            if problem := names.config_key(key):
                out.append(errors.bad_value(f"data[{key}]", key, problem))
        if obj["type"] == "kubernetes.io/service-account-token":
            named = f"metadata.annotations[{ACCOUNT_OF_TOKEN}]"
            if not (obj["metadata"].get("annotations") or {}).get(ACCOUNT_OF_TOKEN):
                out.append(errors.required(named))
        for key in SECRET_KEYS.get(obj["type"], ()):
            if key not in data:
                out.append(errors.required(f"data[{key}]"))
        if sum(len(v) * 3 // 4 for v in data.values()) > DATA_BYTES_MAX:
            out.append(Cause("data", "FieldValueTooLong", f"Too long: may not be more than {DATA_BYTES_MAX} bytes"))
        return out

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        out = _immutable(obj, old, ("data",))
        if obj["type"] != old.get("type"):
            out.append(errors.bad_value("type", obj["type"], "field is immutable"))
        return out + self.validate(obj, ctx)


class Services(Strategy):
    create_on_update = True
    returns_deleted = True

    def name_problem(self, name: str) -> str:
        return names.dns_label_1035(name)

    def defaults(self, obj: Object, ctx: Context) -> None:
        spec = obj.setdefault("spec", {})
        spec.setdefault("type", "ClusterIP")
        spec.setdefault("sessionAffinity", "None")
        for port in spec.get("ports", []):
            port.setdefault("protocol", "TCP")
            if port.get("targetPort") in (None, "", 0):
                port["targetPort"] = port.get("port", 0)
        if spec["type"] == "ExternalName":
            return
        spec.setdefault("internalTrafficPolicy", "Cluster")
        if spec["type"] in ("NodePort", "LoadBalancer"):
            spec.setdefault("externalTrafficPolicy", "Cluster")
        spec.setdefault("ipFamilies", ["IPv4"])
        spec.setdefault("ipFamilyPolicy", "SingleStack")

    def prepare_create(self, obj: Object, ctx: Context) -> None:
        obj["status"] = {"loadBalancer": {}}
        spec = obj["spec"]
        if spec["type"] == "ExternalName":
            return
        if not spec.get("clusterIP"):
            spec["clusterIP"] = _free_address(obj["metadata"], ctx)
        spec["clusterIPs"] = [spec["clusterIP"]]

    def prepare_update(self, obj: Object, old: Object, ctx: Context) -> None:
        super().prepare_update(obj, old, ctx)
        if obj["spec"]["type"] != "ExternalName" and not obj["spec"].get("clusterIP"):
            for field in ("clusterIP", "clusterIPs"):
                keep(obj["spec"], old.get("spec", {}), field)

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        spec, out = obj["spec"], []
        types = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
        if spec["type"] not in types:
            out.append(errors.not_supported("spec.type", spec["type"], types))
        if spec["sessionAffinity"] not in ("ClientIP", "None"):
            out.append(errors.not_supported("spec.sessionAffinity", spec["sessionAffinity"], ("ClientIP", "None")))
        ports = spec.get("ports", [])
        if not ports and spec["type"] != "ExternalName" and spec.get("clusterIP") != "None":
            out.append(errors.required("spec.ports"))
        if spec["type"] == "ExternalName" and not spec.get("externalName"):
            out.append(errors.required("spec.externalName"))
        seen: set[Any] = set()
        for i, port in enumerate(ports):
            out += _check_port(port, f"spec.ports[{i}]", len(ports) > 1)
            for what, value in (("name", port.get("name")), ("", (port.get("port"), port["protocol"]))):
                if value and (what, value) in seen:
                    out.append(errors.duplicate(f"spec.ports[{i}]{'.' + what if what else ''}", value))
                seen.add((what, value))
        for key, value in (spec.get("selector") or {}).items():
            if problem := names.label_key(key) or names.label_value(value):
                out.append(errors.bad_value("spec.selector", value, problem))
        return out

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        out = self.validate(obj, ctx)
        had = at(old, "spec", "clusterIP")
        stays = at(old, "spec", "type") != "ExternalName" and obj["spec"]["type"] != "ExternalName"
        if had and stays and obj["spec"].get("clusterIP") != had:
            out.append(errors.bad_value("spec.clusterIPs[0]", obj["spec"].get("clusterIPs"), "may not change once set"))
        return out


def _check_port(port: Object, path: str, name_needed: bool) -> list[Cause]:
    out = []
    if not isinstance(port.get("port"), int) or not 1 <= port["port"] <= PORT_MAX:
        out.append(errors.bad_value(f"{path}.port", port.get("port", 0), "must be between 1 and 65535, inclusive"))
    target = port["targetPort"]
    if isinstance(target, int) and not 1 <= target <= PORT_MAX:
        out.append(errors.bad_value(f"{path}.targetPort", target, "must be between 1 and 65535, inclusive"))
    if port["protocol"] not in ("SCTP", "TCP", "UDP"):
        out.append(errors.not_supported(f"{path}.protocol", port["protocol"], ("SCTP", "TCP", "UDP")))
    if port.get("name"):
        if problem := names.dns_label(port["name"]):
            out.append(errors.bad_value(f"{path}.name", port["name"], problem))
    elif name_needed:
        out.append(errors.required(f"{path}.name"))
    return out


def _free_address(meta: Object, ctx: Context) -> str:
    """An address by the service's name, so that servers that don't know each other rarely choose the same one."""
    used = {at(s.object, "spec", "clusterIP") for s in ctx.reader.list("", "services")}
    size = SERVICE_NETWORK.num_addresses - 12  # the first ten are for fixed ones (DNS is .10), the last is broadcast
    start = zlib.crc32(f"{meta.get('namespace', '')}/{meta['name']}".encode()) % size
    for i in range(size):
        address = str(SERVICE_NETWORK[11 + (start + i) % size])
        if address not in used:
            return address
    raise errors.internal(f"no free address in {SERVICE_NETWORK}")
