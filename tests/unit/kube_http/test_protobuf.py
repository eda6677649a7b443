"""Protobuf bodies: what is known is read, everything else is refused and nothing is dropped."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.kube.errors import StatusError
from bus.kube.http import protobuf


def field(number: int, value: bytes | str | int) -> bytes:
    """One field; small numbers only."""
    if isinstance(value, int):
        return bytes([number << 3, value])
    raw = value.encode() if isinstance(value, str) else value
    assert len(raw) < 128 and number < 16
    return bytes([number << 3 | 2, len(raw)]) + raw


def body(api_version: str, kind: str, raw: bytes) -> bytes:
    return protobuf.MAGIC + field(1, field(1, api_version) + field(2, kind)) + field(2, raw)


META = field(1, field(1, "x") + field(8, b"") + field(11, field(1, "l") + field(2, "v")))


def test_a_config_map() -> None:
    raw = META + field(2, field(1, "a") + field(2, "1")) + field(3, field(1, "b") + field(2, b"\xff")) + field(4, 0)
    assert protobuf.decode(body("v1", "ConfigMap", raw)) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "x", "labels": {"l": "v"}},
        "data": {"a": "1"},
        "binaryData": {"b": "/w=="},
        "immutable": False,
    }


def test_zero_behind_a_pointer_is_said_and_other_zeros_are_not() -> None:
    port = field(2, "TCP") + field(3, 80) + field(4, field(1, 0) + field(2, 80) + field(3, "")) + field(5, 0)
    got = protobuf.decode(body("v1", "Service", META + field(2, field(1, port) + field(4, ""))))
    assert got["spec"] == {"ports": [{"protocol": "TCP", "port": 80, "targetPort": 80}]}
    got = protobuf.decode(body("apps/v1", "Deployment", META + field(2, field(1, 0) + field(7, 0))))
    assert got["spec"] == {"replicas": 0}


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", 400),
        (b"{}", 400),
        (protobuf.MAGIC, 415),
        (body("v1", "Pod", META), 415),
        (body("v1", "ConfigMap", field(9, "?")), 415),
        (body("v1", "Namespace", META)[:-3], 400),
        (body("v1", "Namespace", b"\xff" * 12), 400),
        (body("v1", "Namespace", b"\x0f"), 400),
        (body("v1", "Namespace", field(1, 5)), 400),
        (body("v1", "Namespace", field(1, field(1, b"\xff"))), 400),
        (body("apps/v1", "Deployment", field(2, field(3, field(2, field(2, field(10, "probe")))))), 415),
    ],
)
def test_the_rest_is_refused(data: bytes, code: int) -> None:
    with pytest.raises(StatusError) as e:
        protobuf.decode(data)
    assert e.value.code == code


@given(st.sampled_from(["Namespace", "ConfigMap", "Secret", "Service"]), st.binary(max_size=60))
def test_any_bytes_are_an_object_or_refused(kind: str, raw: bytes) -> None:
    got: Any = {}
    codes = []
    try:
        got = protobuf.decode(body("v1", kind, raw))
    except StatusError as e:
        codes.append(e.code)
    assert set(codes) <= {400, 415} and isinstance(got, dict)
