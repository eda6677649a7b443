"""The subject grammar: how names become NATS subject tokens, and back, without loss.

One module knows how subjects look; everyone else calls these functions.  A token is made from any text:

* ``.`` becomes ``_`` (no DNS name has an underscore, so ordinary Kubernetes names stay readable),
* every other character that NATS or a reader could trip over becomes ``%XX`` of its UTF-8 bytes,
* the empty group (Kubernetes "core") becomes ``core`` and an empty namespace becomes ``-``.

``unescape(escape(text)) == text`` for every text; a token that ``escape`` can't have made is refused.
Source: NATS subject rules (no whitespace, ``.``, ``*``, ``>``), DESIGN.md section 2.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import NamedTuple

_READABLE = re.compile(r"[A-Za-z0-9\-:=@+~.]{2,1024}")  # only dots to replace: nearly every name there is
_PLAIN = re.compile(r"[A-Za-z0-9\-:=@+~]")
_TOKEN = re.compile(r"(?:[A-Za-z0-9\-:=@+~_]|%[0-9A-F]{2})+\Z")
TOKEN_BYTES_MAX = 1024  # a Kubernetes name has at most 253 characters; three bytes for each when escaped
EMPTY = "-"
CORE_GROUP = "core"


class SubjectError(ValueError):
    """A text that is not a subject of this grammar; the message says which part and why."""


def escape(text: str) -> str:
    """One subject token for any non-empty text; the empty text becomes ``-``."""
    if _READABLE.fullmatch(text):
        return text.replace(".", "_")
    if text == "":
        return EMPTY
    if text == EMPTY:
        return "%2D"
    out = []
    for ch in text:
        if ch == ".":
            out.append("_")
        elif _PLAIN.match(ch):
            out.append(ch)
        else:
            try:
                out.extend(f"%{b:02X}" for b in ch.encode())
            except UnicodeEncodeError as e:
                raise SubjectError(f"{text!r} can't be written as UTF-8: {e.reason}") from e
    token = "".join(out)
    if len(token) > TOKEN_BYTES_MAX:
        raise SubjectError(f"a name of {len(text)} characters is too long for a subject token ({TOKEN_BYTES_MAX} bytes)")
    return token


def unescape(token: str) -> str:
    """The text of a token; raises SubjectError for a token that ``escape`` never makes."""
    if token == EMPTY:
        return ""
    if len(token) > TOKEN_BYTES_MAX or not _TOKEN.match(token):
        raise SubjectError(f"{token[:80]!r} is not a token of this grammar")
    if "%" not in token:
        return token.replace("_", ".")
    raw = bytearray()
    i = 0
    while i < len(token):
        ch = token[i]
        if ch == "%":
            raw.append(int(token[i + 1 : i + 3], 16))
            i += 3
        else:
            raw += b"." if ch == "_" else ch.encode()
            i += 1
    try:
        text = raw.decode()
    except UnicodeDecodeError as e:
        raise SubjectError(f"{token[:80]!r} is not UTF-8 when unescaped") from e
    if escape(text) != token:
        raise SubjectError(f"{token[:80]!r} is not the canonical token of {text!r}")
    return text


def escape_group(group: str) -> str:
    if group == "":
        return CORE_GROUP
    return "%63ore" if group == CORE_GROUP else escape(group)


def unescape_group(token: str) -> str:
    if token == CORE_GROUP:
        return ""
    if token == EMPTY:
        raise SubjectError(f"{token!r} is not the token of a group: the empty group is {CORE_GROUP!r}")
    return CORE_GROUP if token == "%63ore" else unescape(token)


class ObjectKey(NamedTuple):
    """The address of an object, independent of API version.  ``namespace`` is "" for cluster-scoped kinds.

    A tuple, because it is the key of every table: hashed and compared in C, it is a fifth of the dispatcher's time less."""

    group: str
    resource: str
    namespace: str
    name: str

    def tokens(self) -> str:
        """``<group>.<resource>.<namespace>.<name>`` as subject tokens."""
        return f"{escape_group(self.group)}.{escape(self.resource)}.{escape(self.namespace)}.{escape(self.name)}"

    def __str__(self) -> str:
        where = f"{self.namespace}/" if self.namespace else ""
        return f"{self.resource}{'.' + self.group if self.group else ''} {where}{self.name}"


def key_of_tokens(tokens: list[str]) -> ObjectKey:
    if len(tokens) != 4:
        raise SubjectError(f"an object address has four tokens, got {len(tokens)}: {'.'.join(tokens)[:120]!r}")
    return ObjectKey(unescape_group(tokens[0]), unescape(tokens[1]), unescape(tokens[2]), unescape(tokens[3]))


def shard_of(scope: str, shards: int) -> int:
    """The shard of a scope: stable for ever, for a number of shards that is fixed when a hub is made."""
    if shards < 1:
        raise ValueError(f"a hub has at least one shard, got {shards}")
    return zlib.crc32(scope.encode()) % shards


# --- CLUSTER, META, live -------------------------------------------------------------------------------------------


def cluster(key: ObjectKey) -> str:
    return f"cluster.{key.tokens()}"


def meta(scope: str, key: ObjectKey, shards: int) -> str:
    """META carries the shard as its second token: a stream's subject filter can't hash (a departure from DESIGN.md)."""
    return f"meta.{shard_of(scope, shards)}.{escape(scope)}.{key.tokens()}"


def meta_scope(scope: str, shards: int) -> str:
    """Filter for everything of one scope in META."""
    return f"meta.{shard_of(scope, shards)}.{escape(scope)}.>"


def live_scope(scope: str) -> str:
    """Where META republishes a scope: what a replica subscribes to."""
    return f"live.{escape(scope)}.>"


def parse_cluster(subject: str) -> ObjectKey:
    parts = subject.split(".")
    if len(parts) != 5 or parts[0] != "cluster":
        raise SubjectError(f"{subject[:160]!r} is not cluster.<group>.<resource>.<namespace>.<name>")
    return key_of_tokens(parts[1:])


def parse_meta(subject: str) -> tuple[int, str, ObjectKey]:
    """(shard, scope, key) of a META subject."""
    parts = subject.split(".")
    if len(parts) != 7 or parts[0] != "meta" or not re.fullmatch(r"0|[1-9][0-9]{0,4}", parts[1]):
        raise SubjectError(f"{subject[:160]!r} is not meta.<shard>.<scope>.<group>.<resource>.<namespace>.<name>")
    return int(parts[1]), unescape(parts[2]), key_of_tokens(parts[3:])


def parse_meta_scope(subject: str) -> str:
    """The scope alone, whatever follows it.  Raises SubjectError."""
    parts = subject.split(".", 3)
    if len(parts) != 4 or parts[0] != "meta":
        raise SubjectError(f"{subject[:160]!r} is not meta.<shard>.<scope>...")
    return unescape(parts[2])


def parse_live(subject: str) -> tuple[str, ObjectKey]:
    """(scope, key) of a live subject."""
    parts = subject.split(".")
    if len(parts) != 6 or parts[0] != "live":
        raise SubjectError(f"{subject[:160]!r} is not live.<scope>.<group>.<resource>.<namespace>.<name>")
    return unescape(parts[1]), key_of_tokens(parts[2:])


def stream_of(subject: str) -> str:
    """The stream that stores a subject; raises SubjectError for one that is not stored."""
    room, _, rest = subject.partition(".")
    if room in ("meta", "report"):
        return f"{room.upper()}-{rest.partition('.')[0]}"
    if room in ("cluster", "telemetry", "identity", "audit"):
        return room.upper()
    if room == "lease":
        return "LEASES"
    raise SubjectError(f"{subject[:160]!r} is not stored in a stream")


# --- REPORT, TELEMETRY ---------------------------------------------------------------------------------------------


def report(node: str, kind: str, shards: int, namespace: str | None = None, name: str | None = None) -> str:
    """``report.<shard>.<node>.<kind>[.<namespace>.<name>]``; kind is node, pod, twin, event ..."""
    head = f"report.{shard_of(node, shards)}.{escape(node)}.{escape(kind)}"
    return head if name is None else f"{head}.{escape(namespace or '')}.{escape(name)}"


def report_node(node: str, shards: int) -> str:
    """Filter for everything one node reports; also the one report permission of a node."""
    return f"report.{shard_of(node, shards)}.{escape(node)}.>"


@dataclass(frozen=True, slots=True)
class ReportAddress:
    shard: int
    node: str
    kind: str
    namespace: str
    name: str


def parse_report(subject: str) -> ReportAddress:
    parts = subject.split(".")
    if len(parts) not in (4, 6) or parts[0] != "report" or not re.fullmatch(r"0|[1-9][0-9]{0,4}", parts[1]):
        raise SubjectError(f"{subject[:160]!r} is not report.<shard>.<node>.<kind>[.<namespace>.<name>]")
    namespace, name = (unescape(parts[4]), unescape(parts[5])) if len(parts) == 6 else ("", "")
    return ReportAddress(int(parts[1]), unescape(parts[2]), unescape(parts[3]), namespace, name)


def device_token(namespace: str, device: str) -> str:
    """A device in subjects: its name in the default namespace, ``namespace/name`` elsewhere (the slash is escaped)."""
    if "/" in namespace or "/" in device or not namespace or not device:
        raise SubjectError(f"{namespace!r}/{device!r} does not name a device")
    return escape(device if namespace == "default" else f"{namespace}/{device}")


def parse_device_token(token: str) -> tuple[str, str]:
    text = unescape(token)
    namespace, slash, device = text.partition("/")
    if not slash:
        namespace, device = "default", text
    if device_token(namespace, device) != token:
        raise SubjectError(f"{token[:80]!r} is not the canonical token of a device")
    return namespace, device


def telemetry(node: str, namespace: str, device: str, prop: str) -> str:
    return f"telemetry.{escape(node)}.{device_token(namespace, device)}.{escape(prop)}"


def parse_telemetry(subject: str) -> tuple[str, str, str, str]:
    """(node, namespace, device, property) of a telemetry subject."""
    parts = subject.split(".")
    if len(parts) != 4 or parts[0] != "telemetry":
        raise SubjectError(f"{subject[:160]!r} is not telemetry.<node>.<device>.<property>")
    return unescape(parts[1]), *parse_device_token(parts[2]), unescape(parts[3])


# --- requests between a node and the cloud (not stored) ------------------------------------------------------------


def sync_request(node: str, nonce: str) -> str:
    """A node asks for its scopes.  The subject names the asker (its permission is ``sync.<node>.*``)."""
    return f"sync.{escape(node)}.{escape(nonce)}"


def sync_answer(node: str, nonce: str) -> str:
    """Where the answer goes: derived from the authorised request subject, never from the reply the asker named."""
    return f"answer.{escape(node)}.{escape(nonce)}"


def beat(node: str) -> str:
    """The sign of life of a node's link: not stored."""
    return f"beat.{escape(node)}"


def command(node: str, verb: str) -> str:
    return f"cmd.{escape(node)}.{escape(verb)}"


def tunnel_down(node: str, gateway: str, session: str) -> str:
    """Frames of a tunnel from an API server (``gateway``) to a node."""
    return f"tunnel.{escape(node)}.down.{escape(gateway)}.{escape(session)}"


def tunnel_up(node: str, gateway: str, session: str) -> str:
    """Frames of a tunnel from a node; its permission names the sender."""
    return f"tunnel.{escape(node)}.up.{escape(gateway)}.{escape(session)}"


def parse_tunnel(subject: str) -> tuple[str, str, str, str]:
    """(node, ``up`` or ``down``, gateway, session) of a tunnel's subject."""
    parts = subject.split(".")
    if len(parts) != 5 or parts[0] != "tunnel" or parts[2] not in ("up", "down"):
        raise SubjectError(f"{subject[:160]!r} is not tunnel.<node>.<up|down>.<gateway>.<session>")
    return unescape(parts[1]), parts[2], unescape(parts[3]), unescape(parts[4])


def tunnels_down(node: str) -> str:
    """Filter for everything that comes down to a node; also its permission."""
    return f"tunnel.{escape(node)}.down.>"


def tunnels_up(node: str) -> str:
    """Filter for everything that a node may send; its permission."""
    return f"tunnel.{escape(node)}.up.>"


def tunnels_of(gateway: str) -> str:
    """Filter for what all nodes send to one API server."""
    return f"tunnel.*.up.{escape(gateway)}.*"


# --- the node's own bus: daemon and mappers ------------------------------------------------------------------------

LOCAL_DEVICES = "device.list"  # request: DeviceListRequest -> DeviceList
LOCAL_TWIN_REPORT = "device.twin"  # request: TwinReport -> TwinReportAnswer; stored by the daemon before it answers
LOCAL_DEVICES_CHANGED = "device.changed.>"  # all of local_devices_changed()

# request: {"last_by_subj": <telemetry subject>} -> JetStream's answer to STREAM.MSG.GET.  Under a name of its own: in an
# account without JetStream, ``$JS.API`` always means that account's own, which then says "not enabled".
LOCAL_TELEMETRY_LAST = "device.telemetry.last"


def local_devices_changed(protocol: str) -> str:
    """Published (empty) by the daemon when a device, a model or a desired value of this protocol changed."""
    return f"device.changed.{escape(protocol)}"


# --- joining, identity, and the link of a node's leaf server --------------------------------------------------------


def join_request(token: str) -> str:
    """A node that has only a join token asks here; the token's bootstrap credentials allow exactly this subject."""
    return f"join.{escape(token)}"


def renew_request(node: str) -> str:
    """A node asks for a fresh JWT; its permission names the asker."""
    return f"renew.{escape(node)}"


def inbox(node: str) -> str:
    """Prefix of a node's inboxes: the only place where it may receive replies."""
    return f"_INBOX.{escape(node)}"


def identity_token(token: str) -> str:
    return f"identity.tokens.{escape(token)}"


def identity_node(node: str) -> str:
    return f"identity.nodes.{escape(node)}"


IDENTITY_API_KEYS = "identity.keys.api"  # the keys that sign tokens of service accounts, as one state


def identity_door(node: str) -> str:
    return f"identity.doors.{escape(node)}"


def identity_trust(node: str) -> str:
    return f"identity.trust.{escape(node)}"


def audit(what: str, name: str) -> str:
    """``audit.<what>.<name>``, e.g. ``audit.join.edge-1``."""
    return f"audit.{escape(what)}.{escape(name)}"


def lease(role: str) -> str:
    """``lease.<role>``: who leads a role of the cloud, ``dispatcher-3`` for one."""
    return f"lease.{escape(role)}"


def telemetry_node(node: str) -> str:
    """Filter for the telemetry of one node."""
    return f"telemetry.{escape(node)}.>"


def uplink(node: str, life: str) -> str:
    """Prefix of the subjects on which the hub fetches a leaf's telemetry stream.

    ``life`` is one life of the leaf's store: a node that was wiped and joined again numbers its stream anew, and the hub
    must not go on from the old number."""
    return f"up.{escape(node)}.{escape(life)}"
