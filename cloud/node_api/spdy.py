"""As much of SPDY/3.1 as ``kubectl port-forward`` speaks inside its WebSocket: frames as bytes and back.  Pure.

A server's side: streams are opened by the client and answered.  Flow control is not spoken: Kubernetes' own
implementation (moby/spdystream) has none, the WebSocket's TCP connection holds a sender back.
Source: SPDY Protocol, Draft 3.1, sections 2.2 (frames), 2.6.10 (name/value header block and its dictionary).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

_WORDS = """options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow
authorization cache-control connection content-base content-encoding content-language content-length content-location
content-md5 content-range content-type date etag expect expires from host if-match if-modified-since if-none-match if-range
if-unmodified-since last-modified location max-forwards pragma proxy-authenticate proxy-authorization range referer
retry-after server te trailer transfer-encoding upgrade user-agent vary via warning www-authenticate method get status"""
_PHRASES = (*_WORDS.split(), "200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin")
_REST = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden"
    "404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,"
    "publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY = b"".join(len(w).to_bytes(4) + w.encode() for w in _PHRASES) + _REST.encode()

VERSION = 3
SYN_STREAM, SYN_REPLY, RST_STREAM, PING, GOAWAY = 1, 2, 3, 6, 7
FIN = 1
PROTOCOL_ERROR, REFUSED_STREAM, CANCEL = 1, 3, 5

HEAD_BYTES = 8
CONTROL_BYTES_MAX = 16 << 10  # three short headers are sent
HEADERS_BYTES_MAX = 16 << 10  # unpacked
HEADERS_MAX = 64
PIECE_BYTES_MAX = 32 << 10  # data is given on in such pieces, whatever a frame's length


class SpdyError(ValueError):
    """Bytes that are not the SPDY that is spoken here; the connection can't go on."""


@dataclass(frozen=True, slots=True)
class Syn:
    stream: int
    headers: Mapping[str, str]
    fin: bool


@dataclass(frozen=True, slots=True)
class Data:
    """A piece of a stream; ``fin``: nothing more comes."""

    stream: int
    data: bytes
    fin: bool


@dataclass(frozen=True, slots=True)
class Reset:
    stream: int
    status: int


@dataclass(frozen=True, slots=True)
class Ping:
    id: int


@dataclass(frozen=True, slots=True)
class GoAway:
    """The client opens no more streams."""


Frame = Syn | Data | Reset | Ping | GoAway


@dataclass(slots=True)
class Decoder:
    """Bytes, cut anywhere, to frames.  Frames of other kinds (SETTINGS, WINDOW_UPDATE ...) are passed over."""

    _buffer: bytearray = field(default_factory=bytearray)
    _inflate: zlib._Decompress = field(default_factory=lambda: zlib.decompressobj(zdict=DICTIONARY))
    _stream: int = 0  # of the data frame that is under way
    _left: int = 0
    _fin: bool = False

    def feed(self, data: bytes) -> list[Frame]:
        """Raises SpdyError."""
        out: list[Frame] = []
        self._buffer += data
        while True:
            if self._left:
                if not self._buffer:
                    return out
                piece = bytes(self._buffer[: min(self._left, PIECE_BYTES_MAX)])
                del self._buffer[: len(piece)]
                self._left -= len(piece)
                out.append(Data(self._stream, piece, self._fin and not self._left))
                continue
            if len(self._buffer) < HEAD_BYTES:
                return out
            first, length = int.from_bytes(self._buffer[:4]), int.from_bytes(self._buffer[5:8])
            flags = self._buffer[4]
            if not first >> 31:
                del self._buffer[:HEAD_BYTES]
                self._stream, self._left, self._fin = first, length, bool(flags & FIN)
                if not length:
                    out.append(Data(first, b"", self._fin))
                continue
            if length > CONTROL_BYTES_MAX:
                raise SpdyError(f"a control frame of {length} bytes")
            if (first >> 16) & 0x7FFF != VERSION:
                raise SpdyError(f"version {(first >> 16) & 0x7FFF}")
            if len(self._buffer) < HEAD_BYTES + length:
                return out
            payload = bytes(self._buffer[HEAD_BYTES : HEAD_BYTES + length])
            del self._buffer[: HEAD_BYTES + length]
            frame = self._control(first & 0xFFFF, flags, payload)
            if frame is not None:
                out.append(frame)

    def _control(self, kind: int, flags: int, payload: bytes) -> Frame | None:
        match kind:
            case 1:  # SYN_STREAM
                return Syn(_word(payload, 0), self._headers(payload[10:]), bool(flags & FIN))
            case 2 | 8:  # SYN_REPLY, HEADERS: a client's have nothing to say, but the compression goes on through them
                self._headers(payload[4:])
                return None
            case 3:
                return Reset(_word(payload, 0), _word(payload, 4))
            case 6:
                return Ping(_word(payload, 0))
            case 7:
                return GoAway()
        return None

    def _headers(self, block: bytes) -> dict[str, str]:
        try:
            raw = self._inflate.decompress(block, HEADERS_BYTES_MAX)
        except zlib.error as e:
            raise SpdyError(f"a header block that can't be unpacked: {e}") from e
        if self._inflate.unconsumed_tail or self._inflate.eof:
            raise SpdyError(f"a header block of more than {HEADERS_BYTES_MAX} bytes")
        count = _word(raw, 0)
        if count > HEADERS_MAX:
            raise SpdyError(f"{count} headers")
        at, out = 4, {}
        for _ in range(count):
            name, at = _text(raw, at)
            out[name.lower()], at = _text(raw, at)
        return out


def _word(data: bytes, at: int) -> int:
    if len(data) < at + 4:
        raise SpdyError("a frame that ends too early")
    return int.from_bytes(data[at : at + 4]) & 0x7FFFFFFF


def _text(data: bytes, at: int) -> tuple[str, int]:
    end = at + 4 + _word(data, at)
    if end > len(data):
        raise SpdyError("a header that ends too early")
    return data[at + 4 : end].decode("utf-8", "replace"), end


class Encoder:
    """Frames to bytes.  What is made must be sent in that order: header blocks are compressed one after the other."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def headers(self, headers: Mapping[str, str]) -> bytes:
        raw = [len(headers).to_bytes(4)]
        for pair in headers.items():
            for text in pair:
                raw += [len(text.encode()).to_bytes(4), text.encode()]
        return self._deflate.compress(b"".join(raw)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)

    def reply(self, stream: int) -> bytes:
        return control(SYN_REPLY, 0, stream.to_bytes(4) + self.headers({}))


def control(kind: int, flags: int, payload: bytes) -> bytes:
    return ((1 << 31) | VERSION << 16 | kind).to_bytes(4) + bytes([flags]) + len(payload).to_bytes(3) + payload


def data(stream: int, piece: bytes, *, fin: bool = False) -> bytes:
    return stream.to_bytes(4) + bytes([FIN if fin else 0]) + len(piece).to_bytes(3) + piece


def reset(stream: int, status: int) -> bytes:
    return control(RST_STREAM, 0, stream.to_bytes(4) + status.to_bytes(4))


def ping(id_: int) -> bytes:
    return control(PING, 0, id_.to_bytes(4))
