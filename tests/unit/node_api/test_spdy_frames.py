"""SPDY frames, cut anywhere; malformed ones are refused in bounded memory."""

from __future__ import annotations

import hashlib
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.node_api import spdy
from cloud.node_api.spdy import Data, Decoder, Encoder, GoAway, Ping, Reset, SpdyError, Syn

streams = st.integers(1, 0x7FFFFFFF)
names = st.text("abcdefgh-:", min_size=1, max_size=10)
frames = st.one_of(
    st.builds(Syn, streams, st.dictionaries(names, st.text(max_size=20), max_size=5), st.booleans()),
    st.builds(Data, streams, st.binary(max_size=300), st.booleans()),
    st.builds(Reset, streams, st.integers(1, 11)),
    st.builds(Ping, streams),
    st.just(GoAway()),
)


def encode(frame: spdy.Frame, encoder: Encoder) -> bytes:
    match frame:
        case Syn():
            payload = frame.stream.to_bytes(4) + bytes(6) + encoder.headers(frame.headers)
            return spdy.control(spdy.SYN_STREAM, spdy.FIN if frame.fin else 0, payload)
        case Data():
            return spdy.data(frame.stream, frame.data, fin=frame.fin)
        case Reset():
            return spdy.reset(frame.stream, frame.status)
        case Ping():
            return spdy.ping(frame.id)
        case GoAway():
            return spdy.control(spdy.GOAWAY, 0, bytes(8))


def joined(frames: list[spdy.Frame]) -> list[spdy.Frame]:
    """Pieces of one data frame as one."""
    out: list[spdy.Frame] = []
    for f in frames:
        last = out[-1] if out else None
        if isinstance(f, Data) and isinstance(last, Data) and last.stream == f.stream and not last.fin:
            out[-1] = Data(f.stream, last.data + f.data, f.fin)
        else:
            out.append(f)
    return out


def test_the_dictionary_is_that_of_the_specification() -> None:
    assert len(spdy.DICTIONARY) == 1423
    digest = "51d27341373f923f3cd88e1eb7162aeaa3723d7585ff2399201dc06498407f02"
    assert hashlib.sha256(spdy.DICTIONARY).hexdigest() == digest


@given(st.lists(frames, max_size=8), st.integers(1, 100))
def test_frames_come_back_however_they_are_cut(sent: list[spdy.Frame], size: int) -> None:
    encoder, decoder = Encoder(), Decoder()
    wire = b"".join(encode(f, encoder) for f in sent)
    got = [f for at in range(0, len(wire), size) for f in decoder.feed(wire[at : at + size])]
    assert joined(got) == joined(sent)


@given(st.binary(max_size=200))
def test_any_bytes_are_frames_or_refused(data: bytes) -> None:
    decoder = Decoder()
    try:
        for _ in range(4):
            decoder.feed(data)
    except SpdyError:
        pass
    assert len(decoder._buffer) <= spdy.CONTROL_BYTES_MAX + spdy.HEAD_BYTES + len(data)


def test_a_data_frame_of_any_length_is_not_gathered() -> None:
    decoder = Decoder()
    head = (1).to_bytes(4) + b"\1" + (0xFFFFFF).to_bytes(3)
    assert decoder.feed(head) == []
    seen = 0
    for _ in range(0xFFFFFF // 65535):
        got = decoder.feed(bytes(65535))
        assert all(isinstance(f, Data) and len(f.data) <= spdy.PIECE_BYTES_MAX for f in got)
        seen += sum(len(f.data) for f in got if isinstance(f, Data))
        assert not decoder._buffer
    assert seen == 0xFFFFFF // 65535 * 65535


def syn(block: bytes) -> bytes:
    return spdy.control(spdy.SYN_STREAM, 0, (1).to_bytes(4) + bytes(6) + block)


def packed(raw: bytes) -> bytes:
    deflate = zlib.compressobj(zdict=spdy.DICTIONARY)
    return deflate.compress(raw) + deflate.flush(zlib.Z_SYNC_FLUSH)


@pytest.mark.parametrize(
    "wire",
    [
        syn(packed(bytes(10_000_000))),  # a bomb
        syn(packed((1).to_bytes(4) + (1 << 30).to_bytes(4))),
        syn(packed((65).to_bytes(4) + bytes(8 * 65))),
        syn(packed(b"\0")),
        syn(zlib.compress(b"without the dictionary")),
        syn(b"not zlib"),
        spdy.control(spdy.SYN_STREAM, 0, b"\0"),
        spdy.control(spdy.RST_STREAM, 0, b"\0\0\0\1"),
        spdy.control(spdy.PING, 0, b""),
        b"\x80\x02" + bytes(6),  # SPDY/2
        b"\x80\x03\x00\x01\x00\xff\xff\xff",  # 16 MB of headers
    ],
)
def test_what_is_malformed_is_refused(wire: bytes) -> None:
    with pytest.raises(SpdyError):
        Decoder().feed(wire)


def test_other_frames_are_passed_over() -> None:
    decoder = Decoder()
    settings = spdy.control(4, 0, bytes(4))
    window = spdy.control(9, 0, bytes(8))
    assert decoder.feed(settings + window + spdy.ping(3)) == [Ping(3)]
