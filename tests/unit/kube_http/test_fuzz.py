"""A short run of the fuzzer: every answer is one that Kubernetes gives.  `./just fuzz` runs as long as you like."""

from __future__ import annotations

import pytest

from ops.fuzz.__main__ import run, wrong
from ops.fuzz.requests import Request


@pytest.mark.parametrize("seed", [1, 2])
async def test_no_request_breaks_the_api(seed: int) -> None:
    assert await run(seed, 300, report=lambda _: None) == []


def test_the_fuzzer_sees_what_is_wrong() -> None:
    get = Request("GET", "/")
    assert wrong(get, 500, b"{}", 0) == "answered 500"
    assert wrong(get, 404, b"404: Not Found", 0) == "a 404 that is no Status"
    assert wrong(get, 400, b'{"kind": "Status", "code": 400, "message": "Traceback (most"}', 0) == "a traceback"
    assert wrong(get, 200, b"", 11).startswith("took") and wrong(get, 200, b"", 0) == ""
