"""References of a container's environment and of downward volumes to what the pod is: its own fields, its resources, keys
(pkg/apis/core/validation)."""

from __future__ import annotations

import re

from bus.kube import errors, names, quantity
from bus.kube.errors import Cause
from bus.kube.kinds import checks
from bus.kube.storage import Object

_KNOWN = (
    *("metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName"),
    *("spec.restartPolicy", "spec.serviceAccountName", "spec.schedulerName", "status.phase", "status.hostIP"),
    *("status.hostIPs", "status.podIP", "status.podIPs"),
)
ENV_FIELDS = (
    *("metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP"),
    *("status.hostIPs", "status.podIP", "status.podIPs"),
)
FILE_FIELDS = ("metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid")
RESOURCES = (
    *("limits.cpu", "limits.ephemeral-storage", "limits.memory"),
    *("requests.cpu", "requests.ephemeral-storage", "requests.memory"),
)
HUGE = ("limits.hugepages-", "requests.hugepages-")
SIZES = ("1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei")
_SUBSCRIPT = re.compile(r"(?P<path>[^\[]+)\['(?P<key>.*)'\]\Z", re.DOTALL)


def field(ref: Object, path: str, allowed: tuple[str, ...]) -> list[Cause]:
    version, label = ref.get("apiVersion") or "", ref.get("fieldPath") or ""
    if not version:
        return [errors.required(f"{path}.apiVersion")]
    if not label:
        return [errors.required(f"{path}.fieldPath")]
    subscripted = _SUBSCRIPT.match(label)
    why = ""
    if version != "v1":
        why = f"unsupported pod version: {version}"
    elif subscripted and subscripted["path"] not in ("metadata.annotations", "metadata.labels"):
        why = f"field label does not support subscript: {label}"
    elif not subscripted and label not in (*_KNOWN, "spec.host"):
        why = f"field label not supported: {label}"
    if why:
        return [errors.bad_value(f"{path}.fieldPath", label, f"error converting fieldPath: {why}")]
    if subscripted:
        lower = subscripted["path"] == "metadata.annotations"
        key = subscripted["key"].lower() if lower else subscripted["key"]
        return checks.text(path, key, names.label_key)
    return checks.listed(f"{path}.fieldPath", "spec.nodeName" if label == "spec.host" else label, allowed)


def resource(ref: Object, path: str, *, volume: bool) -> list[Cause]:
    name, out = ref.get("resource") or "", []
    if volume and not ref.get("containerName"):
        out.append(errors.required(f"{path}.containerName"))
    elif not name:
        out.append(errors.required(f"{path}.resource"))
    elif name not in RESOURCES and not name.startswith(HUGE):
        out.append(errors.not_supported(f"{path}.resource", name, RESOURCES))
    return out + _divisor(name, ref.get("divisor"), f"{path}.divisor")


def _divisor(name: str, divisor: str | None, path: str) -> list[Cause]:
    if divisor is None or not quantity.parse(divisor):
        return []
    kind = name.partition(".")[2]
    if kind == "cpu" and divisor not in ("1m", "1"):
        why = "only divisor's values 1m and 1 are supported with the cpu resource"
        return [errors.bad_value(path, name, why)]
    told = {"memory": "memory", "ephemeral-storage": "local ephemeral storage"}.get(kind, "hugepages")
    if (name in RESOURCES or name.startswith(HUGE)) and kind != "cpu" and divisor not in SIZES:
        why = f"only divisor's values {', '.join(SIZES)} are supported with the {told} resource"
        return [errors.bad_value(path, name, why)]
    return []


def file(item: Object, path: str) -> list[Cause]:
    """A file of a downward volume; ``path`` is the volume's, as the real server tells it."""
    out = [] if item.get("path") else [errors.required(f"{path}.path")]
    out += checks.inner_path(f"{path}.path", item.get("path") or "")
    own, amount = item.get("fieldRef"), item.get("resourceFieldRef")
    if own is not None:
        out += field(own, f"{path}.fieldRef", FILE_FIELDS)
        if amount is not None:
            why = "fieldRef and resourceFieldRef can not be specified simultaneously"
            out.append(errors.bad_value(path, "resource", why))
    elif amount is not None:
        out += resource(amount, f"{path}.resourceFieldRef", volume=True)
    else:
        out.append(errors.required(path, "one of fieldRef and resourceFieldRef is required"))
    return out + checks.file_mode(f"{path}.mode", item.get("mode"))


def _key(ref: Object, path: str) -> list[Cause]:
    out = checks.text(f"{path}.name", ref.get("name") or "", names.dns_subdomain)
    if not ref.get("key"):
        return [*out, errors.required(f"{path}.key")]
    return out + checks.text(f"{path}.key", ref["key"], names.config_key)


def _file_key(ref: Object, path: str) -> list[Cause]:
    out = []
    for name, rule in (("key", names.env_name), ("volumeName", names.dns_label)):
        given = ref.get(name)
        out += checks.text(f"{path}.{name}", given, rule) if given else [errors.required(f"{path}.{name}")]
    if not ref.get("path"):
        return [*out, errors.required(f"{path}.path")]
    return out + checks.no_steps_back(f"{path}.path", ref["path"])


def env(listed: list[Object], path: str) -> list[Cause]:
    out: list[Cause] = []
    for i, item in enumerate(listed):
        at, name = f"{path}[{i}]", item.get("name") or ""
        out += checks.text(f"{at}.name", name, names.env_name) if name else [errors.required(f"{at}.name")]
        source = item.get("valueFrom")
        if source is not None:
            out += _source(source, f"{at}.valueFrom", bool(item.get("value")))
    return out


def _source(source: Object, path: str, valued: bool) -> list[Cause]:
    out, found = [], 0
    if source.get("fieldRef") is not None:
        found += 1
        out += field(source["fieldRef"], f"{path}.fieldRef", ENV_FIELDS)
    if source.get("resourceFieldRef") is not None:
        found += 1
        out += resource(source["resourceFieldRef"], f"{path}.resourceFieldRef", volume=False)
    for name in ("configMapKeyRef", "secretKeyRef"):
        if source.get(name) is not None:
            found += 1
            out += _key(source[name], f"{path}.{name}")
    if source.get("fileKeyRef") is not None:
        found += 1
        out += _file_key(source["fileKeyRef"], f"{path}.fileKeyRef")
    why = ""
    if not found:
        why = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
    elif valued:
        why = "may not be specified when `value` is not empty"
    elif found > 1:
        why = "may not have more than one field specified at a time"
    return [*out, errors.bad_value(path, "", why)] if why else out


def env_from(listed: list[Object], path: str) -> list[Cause]:
    out: list[Cause] = []
    for i, item in enumerate(listed):
        at = f"{path}[{i}]"
        if item.get("prefix"):
            out += checks.text(f"{at}.prefix", item["prefix"], names.env_name)
        found = 0
        for name in ("configMapRef", "secretRef"):
            if item.get(name) is None:
                continue
            found += 1
            given = item[name].get("name")
            where = f"{at}.{name}.name"
            out += checks.text(where, given, names.dns_subdomain) if given else [errors.required(where)]
        if not found:
            out.append(errors.bad_value(path, "", "must specify one of: `configMapRef` or `secretRef`"))
        elif found > 1:
            out.append(errors.bad_value(path, "", "may not have more than one field specified at a time"))
    return out
