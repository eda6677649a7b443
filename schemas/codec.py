"""Bytes to events and back.  Any bytes at all either decode or raise DecodeError: quickly, in bounded memory.

Old versions are read for ever: ``upcast`` lifts a raw map of version n to n + 1, step by step.  A version that this
code does not know yet raises UnknownVersion, which a reader keeps and reports but does not apply.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgpack
from pydantic import BaseModel, ValidationError

from schemas import event

EVENT_BYTES_MAX = 1 << 20  # nats-server's default max_payload; Kubernetes' own object limit is 1.5 MB in etcd
DEPTH_MAX = 100  # deeper than any real object; msgpack's C code stops at 512, pydantic and JSON clients much earlier
CONTAINERS_MAX = 50_000  # maps and lists in one document; a real object of 1 MiB has some thousands
_LEAVES = frozenset({str, int, float, bool, bytes, type(None)})


class CodecError(ValueError):
    """Base of the two ways that bytes and models can fail each other."""


class EncodeError(CodecError):
    """A model that has no bytes: too large, too deep, or a value that msgpack does not have."""


class DecodeError(CodecError):
    """Bytes that are not what they should be; the message says what was wrong, and where."""


class UnknownVersion(DecodeError):
    """A well-formed event of a version from the future."""


M = TypeVar("M", bound=BaseModel)
Raw = dict[str, Any]


def _no_ext(code: int, data: bytes) -> None:
    raise ValueError(f"extension type {code} is not used here")


def unpack(data: bytes, bytes_max: int = EVENT_BYTES_MAX) -> Any:
    """The value of one msgpack document; raises DecodeError."""
    if len(data) > bytes_max:
        raise DecodeError(f"{len(data)} bytes, the limit is {bytes_max}")
    try:
        value = msgpack.unpackb(data, ext_hook=_no_ext, strict_map_key=True, raw=False, timestamp=0)
        _check_shape(value)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException, MemoryError) as e:
        raise DecodeError(f"not a msgpack document: {type(e).__name__}: {str(e)[:200]}") from e
    return value


def _check_shape(value: Any) -> None:
    """Raises ValueError for what no event has: deep nesting, a flood of containers, keys that are not text, extensions.

    Level by level, so that no input can exhaust the stack; exact types, because this runs for every event."""
    level = [value]
    containers = 0
    for _ in range(DEPTH_MAX):
        deeper: list[Any] = []
        for v in level:
            kind = type(v)
            if kind is dict:
                for key, item in v.items():
                    if type(key) is not str:
                        raise ValueError("a map key is not text")
                    if type(item) not in _LEAVES:
                        deeper.append(item)
            elif kind is list:
                deeper += [item for item in v if type(item) not in _LEAVES]
            elif kind not in _LEAVES:
                raise ValueError(f"a {kind.__name__} is not used here")
        if not deeper:
            return
        containers += len(deeper)
        if containers > CONTAINERS_MAX:
            raise ValueError(f"more than {CONTAINERS_MAX} maps and lists")
        level = deeper
    raise ValueError(f"nested deeper than {DEPTH_MAX}")


def pack(value: Any, bytes_max: int = EVENT_BYTES_MAX, *, checked: bool = False) -> bytes:
    """msgpack bytes of a plain value; raises EncodeError.  ``checked``: it came from ``unpack``, which looked at it."""
    try:
        if not checked:
            _check_shape(value)
        data: bytes = msgpack.packb(value, use_bin_type=True)
    except (ValueError, TypeError, OverflowError, RecursionError) as e:
        raise EncodeError(f"can't be written as msgpack: {type(e).__name__}: {str(e)[:200]}") from e
    if len(data) > bytes_max:
        raise EncodeError(f"{len(data)} bytes, the limit is {bytes_max}")
    return data


def encode(model: BaseModel, bytes_max: int = EVENT_BYTES_MAX) -> bytes:
    """Bytes of any of our models; defaults are left out, so that absent means default for ever."""
    return pack(model.model_dump(exclude_defaults=True), bytes_max)


def decode_as(model: type[M], data: bytes, bytes_max: int = EVENT_BYTES_MAX) -> M:
    """One of our models from bytes; raises DecodeError naming the first bad field."""
    return validate(model, unpack(data, bytes_max))


def validate(model: type[M], raw: Any) -> M:
    """One of our models from a plain value (an event's ``data``); raises DecodeError naming the first bad field."""
    try:
        return model.model_validate(raw)
    except ValidationError as e:
        first = e.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(p) for p in first["loc"]) or "(whole)"
        raise DecodeError(f"not a {model.__name__}: {where}: {first['msg']}") from e
    except RecursionError as e:
        raise DecodeError(f"not a {model.__name__}: nested too deep") from e


# --- events: versions -----------------------------------------------------------------------------------------------

# UPCASTERS[n] lifts a raw event of version n to n + 1.  Once shipped, an entry is never changed or removed.
UPCASTERS: Mapping[int, Callable[[Raw], Raw]] = {}


def upcast(raw: Raw, upcasters: Mapping[int, Callable[[Raw], Raw]] = UPCASTERS, current: int = event.EVENT_VERSION) -> Raw:
    """A raw event in the current version; raises UnknownVersion for one from the future."""
    v = raw.get("v", 1)
    if not isinstance(v, int) or isinstance(v, bool) or v < 1:
        raise DecodeError(f"not an Event: v: {v!r} is not a version")
    if v > current:
        raise UnknownVersion(f"event version {v}, this code knows up to {current}")
    while v < current:
        try:
            raw = {**upcasters[v](raw), "v": v + 1}
        except (LookupError, TypeError, ValueError, AttributeError) as e:  # an upcaster reads fields that may be anything
            raise DecodeError(f"not an Event of version {v}: {type(e).__name__}: {str(e)[:200]}") from e
        v += 1
    return raw


def encode_event(ev: event.Event) -> bytes:
    """``v`` is always written: it is what a reader looks at first."""
    return pack({"v": ev.v, **ev.model_dump(exclude_defaults=True)})


def encode_applied(envelope: Mapping[str, str | int], data: bytes | None) -> bytes:
    """The bytes of an event from its fields and its ``data``, which is msgpack already: for who sends one object to many
    scopes, or thousands of events a second.

    ``envelope`` is in the order of the model, ``v`` first, without defaults and without ``data``; what it is made of came
    from events that were validated.  The same bytes as ``encode_event``'s (a test holds that).  Raises EncodeError."""
    try:
        packed: bytes = msgpack.packb(envelope, use_bin_type=True)
    except (ValueError, TypeError, OverflowError) as e:
        raise EncodeError(f"can't be written as msgpack: {type(e).__name__}: {str(e)[:200]}") from e
    if data is not None:
        # msgpack specification: a map of up to 15 entries begins with 0x80 | n, one of up to 65,535 with 0xde and two bytes.
        count = len(envelope)
        head = bytes((0x80 | (count + 1),)) if count < 15 else b"\xde" + (count + 1).to_bytes(2, "big")
        packed = b"".join((head, packed[1 if count < 16 else 3 :], b"\xa4data", data))
    if len(packed) > EVENT_BYTES_MAX:
        raise EncodeError(f"{len(packed)} bytes, the limit is {EVENT_BYTES_MAX}")
    return packed


def decode_event(data: bytes) -> event.Event:
    raw = unpack(data)
    if not isinstance(raw, dict):
        raise DecodeError(f"not an Event: a map is needed, got {type(raw).__name__}")
    return validate(event.Event, upcast(raw))
