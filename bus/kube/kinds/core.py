"""Namespaces, config maps, secrets, service accounts.  Nodes: nodes.py."""

from __future__ import annotations

import base64

from bus.kube import errors, jsontext, names
from bus.kube.errors import Cause
from bus.kube.kinds import checks
from bus.kube.kinds.base import Context, Strategy, at, keep
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
        for condition in at(obj, "status", "conditions") or []:
            condition.setdefault("lastTransitionTime", None)

    def prepare_update(self, obj: Object, old: Object, ctx: Context) -> None:
        keep(obj, old, "status")
        keep(obj, old, "spec")  # finalizers go through the finalize subresource only

    def prepare_status(self, obj: Object, old: Object, ctx: Context) -> None:
        self.defaults(obj, ctx)
        super().prepare_status(obj, old, ctx)

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        return finalizers(at(obj, "spec", "finalizers") or [], "spec.finalizers")

    def validate_status(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        phase = at(obj, "status", "phase")
        going = bool(obj["metadata"].get("deletionTimestamp"))
        if phase == ("Terminating" if going else "Active"):
            return []
        wanted = "'Terminating' if `deletionTimestamp` is not empty" if going else "'Active' if `deletionTimestamp` is empty"
        return [errors.bad_value("status.Phase", phase or "", f"may only be {wanted}")]


def finalizers(given: list[str], path: str, *, indexed: bool = False) -> list[Cause]:
    """What may hold a namespace: a qualified name, with the domain of whose it is.  ``indexed``: each has a place."""
    out: list[Cause] = []
    for i, name in enumerate(given):
        path = f"spec.finalizers[{i}]" if indexed else path
        out += checks.text(path, name, names.label_key)
        if "/" not in name and name != "kubernetes":
            why = "name is neither a standard finalizer name nor is it fully qualified"
            out.append(errors.bad_value(path, name, why))
    return out


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
            out.append(Cause("[]", "FieldValueTooLong", f"Too long: may not be more than {DATA_BYTES_MAX} bytes"))
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


class ServiceAccounts(Strategy):
    returns_deleted = True


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
            if key not in data or (key == "ssh-privatekey" and not data[key]):
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
