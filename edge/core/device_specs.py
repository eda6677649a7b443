"""A Device and its DeviceModel to the one resolved configuration that a mapper gets.  Pure.

What is merely odd becomes a warning in words and is read the way its author most likely meant it; only what can't be
used is left out.  Both are shown in the device's status, because that is where the author looks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast, get_args

from schemas import codec
from schemas.devices import DeviceConfig, Property, PropertyType, cycle_ms
from schemas.kubeedge import DeviceModelSpec, DeviceProperty, DeviceSpec, ModelProperty

TYPES = get_args(PropertyType)


@dataclass(frozen=True, slots=True)
class Resolved:
    """Either ``config``, or why there is none."""

    config: DeviceConfig | None
    problem: str = ""


def parse_device(data: Mapping[str, Any]) -> DeviceSpec:
    """Raises DecodeError."""
    return codec.validate(DeviceSpec, data.get("spec") or {})


def parse_model(data: Mapping[str, Any]) -> DeviceModelSpec:
    """Raises DecodeError."""
    return codec.validate(DeviceModelSpec, data.get("spec") or {})


def resolve(*, namespace: str, name: str, uid: str, trace: str, spec: DeviceSpec, model: DeviceModelSpec | None) -> Resolved:
    """``model`` None: it is not on this node."""
    ref = spec.device_model_ref.name if spec.device_model_ref else ""
    if not ref:
        return Resolved(None, "spec.deviceModelRef.name is empty: a device needs a DeviceModel")
    if model is None:
        return Resolved(None, f"DeviceModel {namespace}/{ref} is not known on this node")
    protocol = spec.protocol.protocol_name or model.protocol
    if not protocol:
        return Resolved(None, f"neither spec.protocol.protocolName nor DeviceModel {namespace}/{ref} names a protocol")
    warnings: list[str] = []
    properties = _properties(spec, model, ref, warnings)
    config = DeviceConfig(
        namespace=namespace,
        name=name,
        uid=uid,
        model=ref,
        protocol=protocol,
        config={**model.protocol_config_data, **spec.protocol.config_data},
        properties=properties,
        rev=0,
        warnings=warnings,
    )
    try:
        rev = int.from_bytes(hashlib.blake2b(codec.encode(config), digest_size=6).digest(), "big")
    except codec.EncodeError as e:
        return Resolved(None, f"the configuration can't be handed to a mapper: {e}")
    return Resolved(config.model_copy(update={"rev": rev, "trace": trace}))


def _properties(spec: DeviceSpec, model: DeviceModelSpec, ref: str, warnings: list[str]) -> list[Property]:
    """The device's properties in its order, then those that the model alone says how to reach."""
    models = {p.name: p for p in model.properties if p.name}
    found: dict[str, Property] = {}
    listed = {p.name for p in spec.properties}
    by_model_alone = [DeviceProperty(name=p.name) for p in model.properties if p.name not in listed and p.visitors]
    for prop in [*spec.properties, *by_model_alone]:
        if prop.name in found:
            warnings.append(f"property {prop.name} is listed twice: the first one counts")
        elif prop.name not in models:
            warnings.append(f"property {prop.name} is not in DeviceModel {ref}: left out")
        else:
            resolved = _property(prop, models[prop.name], warnings)
            if resolved is not None:
                found[prop.name] = resolved
    return list(found.values())


def _property(prop: DeviceProperty, model: ModelProperty, warnings: list[str]) -> Property | None:
    kind = model.type.upper()
    if kind not in TYPES or kind == "STREAM":
        warnings.append(f"property {prop.name}: type {model.type or '(none)'} is not supported: left out")
        return None
    collect_ms, odd = cycle_ms(prop.collect_cycle, f"property {prop.name}: collectCycle")
    report_ms, odd_too = cycle_ms(prop.report_cycle, f"property {prop.name}: reportCycle")
    warnings.extend(text for text in (odd, odd_too) if text)
    writable = model.access_mode == "ReadWrite"
    desired = (prop.desired.value if prop.desired else "") or None
    if desired is not None and not writable:
        warnings.append(f"property {prop.name} is {model.access_mode}: its desired value is not written")
        desired = None
    return Property(
        name=prop.name,
        type=cast(PropertyType, kind),
        writable=writable,
        unit=model.unit,
        minimum=model.minimum,
        maximum=model.maximum,
        collect_cycle_ms=collect_ms,
        report_cycle_ms=report_ms,
        report_to_cloud=prop.report_to_cloud is not False,
        visitor={
            **(model.visitors.config_data if model.visitors else {}),
            **(prop.visitors.config_data if prop.visitors else {}),
        },
        desired=desired,
    )
