"""Namespaces, nodes, config maps, secrets."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import ClassVar

from bus.kube import errors, jsontext, names
from bus.kube.errors import Cause
from bus.kube.kinds.base import Context, Strategy, at, keep
from bus.kube.selectors import FieldGetter
from bus.kube.storage import Object

DATA_BYTES_MAX = 1 << 20  # of a config map or secret, as in the real server


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


BASIC_AUTH = "kubernetes.io/basic-auth"  # has one of two


def _docker(key: str, encoded: str) -> list[Cause]:
    try:
        jsontext.loads(base64.b64decode(encoded).decode())
    except (ValueError, RecursionError) as e:
        return [errors.bad_value(f"data[{key}]", "<secret contents redacted>", str(e))]
    return []


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
            elif key.startswith(".docker"):
                out += _docker(key, data[key])
        if obj["type"] == BASIC_AUTH and not data.keys() & {"username", "password"}:
            out += [errors.required(f"data[{key}]") for key in ("username", "password")]
        if sum(len(v) * 3 // 4 for v in data.values()) > DATA_BYTES_MAX:
            out.append(Cause("data", "FieldValueTooLong", f"Too long: may not be more than {DATA_BYTES_MAX} bytes"))
        return out

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        out = _immutable(obj, old, ("data",))
        if obj["type"] != old.get("type"):
            out.append(errors.bad_value("type", obj["type"], "field is immutable"))
        return out + self.validate(obj, ctx)
