"""The engine's multiplexed streams, however they are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.containers.errors import RuntimeFailure
from edge.containers.streams import Demultiplexer

messages = st.lists(st.tuples(st.integers(1, 2), st.binary(max_size=40)), max_size=12)


@given(messages, st.integers(1, 50))
def test_any_cut_gives_the_same_bytes(sent: list[tuple[int, bytes]], size: int) -> None:
    wire = b"".join(bytes([n, 0, 0, 0]) + len(d).to_bytes(4) + d for n, d in sent)
    frames = Demultiplexer()
    got = [piece for at in range(0, len(wire), size) for piece in frames.feed(wire[at : at + size])]
    for stream in (1, 2):
        assert b"".join(d for n, d in got if n == stream) == b"".join(d for n, d in sent if n == stream)
    assert b"".join(d for _, d in got) == b"".join(d for _, d in sent)


def test_what_is_no_such_stream_is_refused() -> None:
    for bad in (b"HTTP/1.1 500 no", b"\3\0\0\0\0\0\0\1x"):
        with pytest.raises(RuntimeFailure):
            Demultiplexer().feed(bad)
