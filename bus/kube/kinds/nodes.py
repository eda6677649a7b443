"""Nodes (pkg/apis/core, pkg/registry/core/node)."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any, ClassVar

from bus.kube import errors, names, quantity
from bus.kube.errors import Cause
from bus.kube.kinds import checks, service_rules
from bus.kube.kinds.base import Context, Strategy, at, keep
from bus.kube.selectors import FieldGetter
from bus.kube.storage import Object

EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
INFO = (
    *("machineID", "systemUUID", "bootID", "kernelVersion", "osImage", "containerRuntimeVersion", "kubeletVersion"),
    *("kubeProxyVersion", "operatingSystem", "architecture"),
)
STANDARD = ("cpu", "memory", "ephemeral-storage")  # resources of which there are parts


class Nodes(Strategy):
    """A node is registered with its status, so a create keeps it."""

    fields = ("spec.unschedulable",)
    special: ClassVar[Mapping[str, FieldGetter]] = {
        "spec.unschedulable": lambda o: "true" if at(o, "spec", "unschedulable") else "false"
    }

    def defaults(self, obj: Object, ctx: Context) -> None:
        spec = obj.setdefault("spec", {})
        one, many = spec.get("podCIDR"), spec.get("podCIDRs")
        if one and (not many or many[0] != one):
            spec["podCIDRs"] = [one]
        elif many and not one:
            spec["podCIDR"] = many[0]
        _fill(obj)

    def prepare_create(self, obj: Object, ctx: Context) -> None:
        obj["spec"].pop("configSource", None)

    def prepare_update(self, obj: Object, old: Object, ctx: Context) -> None:
        super().prepare_update(obj, old, ctx)
        keep(obj["spec"], old.get("spec") or {}, "configSource")

    def prepare_status(self, obj: Object, old: Object, ctx: Context) -> None:
        _fill(obj)
        super().prepare_status(obj, old, ctx)

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        spec, status = obj.get("spec") or {}, obj.get("status") or {}
        return _taints(spec.get("taints") or []) + _amounts(status) + _networks(spec)

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        spec, before = obj.get("spec") or {}, old.get("spec") or {}
        out: list[Cause] = []
        if before.get("podCIDRs") and spec.get("podCIDRs") != before["podCIDRs"]:
            why = 'node updates may not change podCIDR except from "" to valid'
            out.append(errors.not_permitted("spec.podCIDRs", why))
        if before.get("providerID") and spec.get("providerID") != before["providerID"]:
            why = 'node updates may not change providerID except from "" to valid'
            out.append(errors.not_permitted("spec.providerID", why))
        return out + _taints(spec.get("taints") or []) + _networks(spec)

    def validate_status(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        return _addresses(obj.get("status") or {}) + _amounts(obj.get("status") or {})


def _fill(obj: Object) -> None:
    """What is always told of a node, known or not."""
    status = obj.setdefault("status", {})
    if status.get("capacity") and not status.get("allocatable"):
        status["allocatable"] = dict(status["capacity"])
    for condition in status.get("conditions") or []:
        condition.setdefault("lastHeartbeatTime", None)
        condition.setdefault("lastTransitionTime", None)
    status.setdefault("daemonEndpoints", {}).setdefault("kubeletEndpoint", {}).setdefault("Port", 0)
    info = status.setdefault("nodeInfo", {})
    for field in INFO:
        info.setdefault(field, "")


def _taints(taints: list[Object]) -> list[Cause]:
    out: list[Cause] = []
    seen: set[tuple[Any, Any]] = set()
    for i, taint in enumerate(taints):
        path, key, value, effect = f"metadata.taints[{i}]", taint.get("key", ""), taint.get("value", ""), taint.get("effect")
        out += checks.text(f"{path}.key", key, names.label_key)
        if problem := names.label_value(value):
            out.append(errors.bad_value(f"{path}.value", value, problem))
        out += checks.one_of(f"{path}.effect", effect, EFFECTS)
        if (key, effect) in seen:
            shown = errors.in_order({"Key": key, "Value": value, "Effect": effect, "TimeAdded": taint.get("timeAdded")})
            why = f"Duplicate value: {shown}: taints must be unique by key and effect pair"
            out.append(Cause(path, "FieldValueDuplicate", why))
        seen.add((key, effect))
    return out


def _amounts(status: Object) -> list[Cause]:
    out: list[Cause] = []
    for field in ("capacity", "allocatable"):
        for name, text in (status.get(field) or {}).items():
            value, path = quantity.parse(text), f"status.{field}.{name}"
            if value < 0:
                out.append(errors.bad_value(path, text, checks.NOT_NEGATIVE))
            elif value.denominator != 1 and name not in STANDARD and not name.startswith("hugepages-"):
                out.append(errors.bad_value(path, text, "must be an integer"))
    return out


def _addresses(status: Object) -> list[Cause]:
    out, seen = [], set[tuple[Any, Any]]()
    for i, address in enumerate(status.get("addresses") or []):
        key = (address.get("type"), address.get("address"))
        if key in seen:
            shown = errors.in_order({"Type": key[0], "Address": key[1]})
            out.append(Cause(f"status.addresses[{i}]", "FieldValueDuplicate", f"Duplicate value: {shown}"))
        seen.add(key)
    return out


def _networks(spec: Object) -> list[Cause]:
    given = spec.get("podCIDRs") or []
    out: list[Cause] = []
    for i, text in enumerate(given):
        out += service_rules.cidr(f"spec.podCIDRs[{i}]", text)
    if out or len(given) < 2:
        return out
    if len(given) > 2 or len({ipaddress.ip_network(text, strict=False).version for text in given}) != 2:
        out.append(errors.bad_value("spec.podCIDRs", given, "may specify no more than one CIDR for each IP family"))
    return out
