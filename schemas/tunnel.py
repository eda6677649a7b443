"""The tunnel: one stream of bytes each way and channel, between an API server and a node's daemon, over the bus.

The cloud asks ``cmd.<node>.tunnel`` (Open -> Opened).  From then on both sides send frames, the cloud on
``tunnel.<node>.down.<gateway>.<session>``, the node on ``tunnel.<node>.up.<gateway>.<session>``:

    type     1 byte    what the frame is
    channel  1 byte    0 stdin, 1 stdout, 2 stderr, 4 resize (the numbers of Kubernetes' channel.k8s.io); 0 elsewhere
    number   4 bytes   1, 2, 3 ... in each direction: the bus may lose messages when a link breaks, and a gap tells
    payload            DATA bytes; CREDIT 4 bytes; READY and PING nothing; END nothing; CLOSE an Ended in msgpack

A side may have WINDOW_BYTES of a channel under way that the other has not read; CREDIT says how much was read since.  So
what a slow reader costs is bounded, and it stops only its own stream.  Either side pings when it has nothing to say.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

WINDOW_BYTES = 256 << 10  # a channel's bytes under way: 2.5 MB/s at a round trip of 100 ms, and all that an unread one holds
CHUNK_BYTES_MAX = 32 << 10  # of a frame: beats and reports pass between the frames of a large copy
CHANNELS_MAX = 5
COMMAND_PARTS_MAX = 1_024
COMMAND_CHARS_MAX = 128 << 10  # what a Linux kernel takes as one argument (MAX_ARG_STRLEN)
TUNNEL = "tunnel"  # the verb of ``subjects.command``

STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)

_HEAD = struct.Struct(">BBI")
_CREDIT = struct.Struct(">I")
NUMBER_MAX = (1 << 32) - 1  # at 32 KiB a frame: 128 TB


class FrameError(ValueError):
    """Bytes that are not a frame."""


class Type(enum.IntEnum):
    DATA = 1
    END = 2  # nothing more comes on this channel in this direction
    CREDIT = 3
    READY = 4  # what was asked for has begun
    CLOSE = 5  # the session is over, with its result
    PING = 6


@dataclass(frozen=True, slots=True)
class Frame:
    type: Type
    channel: int
    number: int
    payload: bytes = b""


def encode(frame: Frame) -> bytes:
    return _HEAD.pack(frame.type, frame.channel, frame.number) + frame.payload


def decode(data: bytes) -> Frame:
    """Raises FrameError."""
    if not _HEAD.size <= len(data) <= _HEAD.size + CHUNK_BYTES_MAX:
        raise FrameError(f"a frame has {_HEAD.size} to {_HEAD.size + CHUNK_BYTES_MAX} bytes, not {len(data)}")
    kind, channel, number = _HEAD.unpack_from(data)
    try:
        type_ = Type(kind)
    except ValueError as e:
        raise FrameError(f"there is no frame of type {kind}") from e
    if channel >= CHANNELS_MAX:
        raise FrameError(f"there is no channel {channel}")
    payload = data[_HEAD.size :]
    if (type_ is Type.DATA) != bool(payload) and type_ not in (Type.CREDIT, Type.CLOSE):
        raise FrameError(f"a {type_.name} frame with {len(payload)} bytes")
    if type_ is Type.CREDIT:
        credit_of(payload)
    return Frame(type_, channel, number, payload)


def credit(read: int) -> bytes:
    return _CREDIT.pack(read)


def credit_of(payload: bytes) -> int:
    """Bytes that the other side has read since its last CREDIT.  Raises FrameError."""
    if len(payload) != _CREDIT.size:
        raise FrameError(f"a CREDIT has {_CREDIT.size} bytes, not {len(payload)}")
    (read,) = _CREDIT.unpack(payload)
    if not 0 < read <= WINDOW_BYTES:
        raise FrameError(f"a CREDIT is 1 to {WINDOW_BYTES}, not {read}")
    return int(read)


# --- opening and ending -----------------------------------------------------------------------------------------------

Count = Annotated[int, Field(ge=0)]
Name = Annotated[str, Field(min_length=1, max_length=253)]
Token = Annotated[str, Field(pattern=r"^[0-9a-f]{16,64}$")]
Command = Annotated[list[Annotated[str, Field(max_length=COMMAND_CHARS_MAX)]], Field(max_length=COMMAND_PARTS_MAX)]


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Logs(Model):
    """The log of one container: STDOUT and STDERR upward, both in the order in which they were written, on STDOUT."""

    kind: Literal["logs"]
    container: Name
    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail: Count | None = Field(default=None, description="only the last lines")
    since_us: Count = Field(default=0, description="only lines since this wall time, in microseconds")
    since_s: Count = Field(default=0, description="only lines of the last seconds, by the node's own clock")
    bytes_max: Count | None = None
    streams: Literal["all", "stdout", "stderr"] = "all"


class Exec(Model):
    """A command in a running container."""

    kind: Literal["exec"]
    container: Name
    command: Command
    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    tty: bool = False


class Attach(Model):
    """The main process of a running container."""

    kind: Literal["attach"]
    container: Name
    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    tty: bool = False


class Port(Model):
    """One TCP connection into the pod's network: STDIN down, STDOUT up."""

    kind: Literal["port"]
    port: Annotated[int, Field(ge=1, le=65535)]


class Usage(Model):
    """What the node and its containers use (schemas/usage.py, as msgpack on STDOUT).  It is about no pod."""

    kind: Literal["usage"]


What = Annotated[Logs | Exec | Attach | Port | Usage, Field(discriminator="kind")]


class Open(Model):
    """``gateway`` and ``session`` are random: who can't guess them can't speak in the session."""

    gateway: Token
    session: Token
    pod_uid: Name
    namespace: Name
    pod: Name
    what: What


class Opened(Model):
    """A refusal has the code and reason of the Status that the client gets."""

    accepted: bool
    code: Count = 0
    reason: str = ""
    message: str = ""


class Ended(Model):
    """``code`` 0: it went well, and a command ended with ``exit_code``; else as in Opened."""

    code: Count = 0
    reason: str = ""
    message: str = ""
    exit_code: int = 0
