"""A whole hub in one file, and back: keys, accounts, certificates, tokens, and a snapshot of every stream.

    backup     while the hub works.  A stream is consistent in itself; between streams time passes, which is harmless: the
               dispatcher compares two folds, reports are state.  A history is taken before its origin: a mirror that is
               ahead of its origin would skip what the origin writes next.
    restore    beside the target, by a private nats-server that nobody else can reach, renamed into place at the end: a
               crash, or a file that is damaged in its last byte, leaves what was there before.

A restored log goes on with sequence numbers that the lost one had used as well, for other events.  So every stream gets a
new epoch: cursors of the old one are worth nothing, whoever holds them begins anew (DESIGN.md, invariant 1), and nodes that
see it say everything again, because what the lost log had acknowledged may be gone.

The file is a gzipped tar of mode 0600: it holds the hub's keys.  ``manifest.json`` is its first member and has the checksum
of every other one; gzip's own covers the manifest.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gzip
import hashlib
import json
import os
import secrets
import shutil
import tarfile
import zlib
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from bus import connect, stamp
from bus import log as buslog
from bus.hub import init, ports, snapshots, streams, supervise
from bus.identity import jwt, keys

log = structlog.get_logger("bus.hub.backup")

FORMAT = 1
MANIFEST = "manifest.json"
MANIFEST_BYTES_MAX = 16 << 20  # five thousand telemetry sources are one megabyte of it
FILE_BYTES_MAX = 2 << 20  # of a hub's own files an account's JWT is the largest (limit 1 MB)
FILES_MAX = 10_000
_COPY = 1 << 20
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
# Not the hub's state: the streams (snapshots instead), logs, and what is written anew at every start.
_NOT_KEPT = {"jetstream", "log", "servers", "nats.conf", "nats-server.pid.json", "stderr.log"}


class BackupError(Exception):
    """The backup can't be made, read or brought back; the message says why, and nothing was changed."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class KeptFile(_Model):
    path: str
    bytes: int
    sha256: str


class KeptStream(_Model):
    name: str
    epoch: str
    config: dict[str, Any]
    state: dict[str, Any]
    bytes: int
    sha256: str


class Manifest(_Model):
    """``time`` in microseconds since 1970; ``version`` is ours."""

    format: int
    hub: str
    time: int
    version: str
    files: list[KeptFile]
    streams: list[KeptStream]


# --- backup -----------------------------------------------------------------------------------------------------------


async def backup(
    hub: init.Hub, connection: connect.Connection, log_: buslog.Log, path: Path, *, without: Collection[str] = ()
) -> Manifest:
    """Writes the backup of a running hub to ``path``, which must not exist.  ``without``: names of streams to leave out
    (they are made anew, empty).  Raises BackupError, SnapshotError, LogError."""
    path = path.absolute()
    if path.exists():
        raise BackupError(f"{path} exists: a backup is never written over")
    work = path.with_name(f".{path.name}.{secrets.token_hex(4)}.making")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        work.mkdir(mode=0o700)
        kept = [await _snapshot(connection, log_, name, work) for name in _order(hub.shards) if name not in without]
        init.refresh_accounts(hub)
        files = [_kept_file(hub.dir, p) for p in _own_files(hub.dir)]
        manifest = Manifest(
            format=FORMAT, hub=hub.id, time=stamp.now_us(), version=stamp.VERSION, files=files, streams=kept
        )  # fmt: skip
        _pack(manifest, hub.dir, work, work / "file")
        os.link(work / "file", path)  # fails when somebody made one meanwhile; a rename would write over it
        _sync_folder(path.parent)
    except OSError as e:
        raise BackupError(f"can't write the backup {path}: {e}") from e
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return manifest


def _order(shards: int) -> list[str]:
    names = [c["name"] for c in streams.wanted(shards) if c["name"] != "LEASES"]  # whoever led leads no more
    return sorted(names, key=lambda n: not n.startswith("HISTORY-"))


async def _snapshot(connection: connect.Connection, log_: buslog.Log, name: str, work: Path) -> KeptStream:
    epoch = (await log_.info(name)).epoch
    taken = await snapshots.take(connection, log_, name, work / name)
    return KeptStream(epoch=epoch, **asdict(taken))


def _own_files(folder: Path) -> Iterator[Path]:
    for top in sorted(folder.iterdir()):
        if top.name in _NOT_KEPT or top.name.startswith("."):
            continue
        for p in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if p.is_file() and not p.is_symlink() and not p.name.endswith(".tmp"):
                yield p


def _kept_file(folder: Path, path: Path) -> KeptFile:
    data = path.read_bytes()
    return KeptFile(path=str(path.relative_to(folder)), bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def _pack(manifest: Manifest, folder: Path, snapshots_in: Path, target: Path) -> None:
    with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as raw:
        # Level 1: snapshots are compressed already.
        with tarfile.open(fileobj=raw, mode="w:gz", compresslevel=1, format=tarfile.PAX_FORMAT) as tar:
            text = manifest.model_dump_json().encode()
            whole = snapshots_in / MANIFEST
            whole.write_bytes(text)
            _add(tar, whole, MANIFEST)
            for f in manifest.files:
                _add(tar, folder / f.path, f"hub/{f.path}")
            for s in manifest.streams:
                _add(tar, snapshots_in / s.name, f"streams/{s.name}")
        raw.flush()
        os.fsync(raw.fileno())


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = path.stat().st_size, 0o600
    with path.open("rb") as f:
        tar.addfile(info, f)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


# --- reading a backup -------------------------------------------------------------------------------------------------


def unpack(path: Path, into: Path) -> Manifest:
    """Every member into ``into`` (``hub/...``, ``streams/...``), each compared with its checksum, nothing else accepted.

    Raises BackupError: truncated, damaged, or not a backup."""
    try:
        with gzip.open(path) as whole, tarfile.open(fileobj=whole, mode="r|") as tar:
            members = iter(tar)
            manifest = _manifest(path, tar, next(members, None))
            owed = {f"hub/{f.path}": (f.bytes, f.sha256) for f in manifest.files}
            owed |= {f"streams/{s.name}": (s.bytes, s.sha256) for s in manifest.streams}
            for name in owed:
                if not _tame(name):
                    raise BackupError(f"{path} names a file outside of itself: {name!r}")
            for member in members:
                want = owed.pop(member.name, None)
                data = tar.extractfile(member) if member.isreg() else None
                if want is None or data is None:
                    raise BackupError(f"{path} holds {member.name[:100]!r}, which its manifest doesn't know")
                with contextlib.closing(data):
                    if _copy(data, into / member.name) != want:
                        raise BackupError(f"{path} is damaged: the checksum of {member.name} is wrong")
            if owed:
                raise BackupError(f"{path} is not whole: {', '.join(sorted(owed)[:5])} is missing")
            while whole.read(_COPY):  # tar ends before gzip's checksum, which is the manifest's
                pass
    except (tarfile.TarError, EOFError, zlib.error, OSError) as e:
        raise BackupError(f"{path} is no backup, or is damaged: {e}") from e
    return manifest


def _manifest(path: Path, tar: tarfile.TarFile, member: tarfile.TarInfo | None) -> Manifest:
    data = tar.extractfile(member) if member is not None and member.isreg() else None
    if member is None or data is None or member.name != MANIFEST or member.size > MANIFEST_BYTES_MAX:
        raise BackupError(f"{path} is no backup of a hub: it does not begin with {MANIFEST}")
    try:
        raw = json.loads(data.read())
        if raw.get("format") != FORMAT:
            raise BackupError(f"{path} has format {raw.get('format')!r}; this version reads {FORMAT}")
        manifest = Manifest.model_validate(raw)
    except (ValueError, AttributeError, ValidationError) as e:
        raise BackupError(f"the manifest of {path} can't be read: {str(e)[:500]}") from e
    if len(manifest.files) > FILES_MAX or any(f.bytes > FILE_BYTES_MAX for f in manifest.files):
        raise BackupError(f"the manifest of {path} names more or larger files than a hub has")
    return manifest


def _tame(name: str) -> bool:
    parts = name.split("/")
    return len(parts) >= 2 and all(p not in ("", ".", "..") and "\0" not in p for p in parts)


def _copy(data: Any, path: Path) -> tuple[int, str]:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    size, digest = 0, hashlib.sha256()
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as f:
        while chunk := data.read(_COPY):
            size += len(chunk)
            digest.update(chunk)
            f.write(chunk)
        f.flush()
        os.fsync(f.fileno())
    return size, digest.hexdigest()


# --- restore ----------------------------------------------------------------------------------------------------------


async def restore(path: Path, data_dir: Path, *, replace: bool = False) -> tuple[init.Hub, Manifest, Path | None]:
    """The hub of a backup in ``data_dir``, its streams in new epochs; it does not run yet.

    ``replace``: a hub of the same id that is there is moved aside (third of the answer) and its revocations are kept: a
    node whose access was taken away after the backup stays out.  Raises BackupError, HubError, SnapshotError, LogError,
    ServerError; then nothing was changed."""
    data_dir = data_dir.absolute()
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    with _alone(data_dir):
        await _clear_leftovers(data_dir)
        old = _what_is_there(data_dir, replace)
        work = data_dir.with_name(f".{data_dir.name}.{secrets.token_hex(4)}.restoring")
        work.mkdir(mode=0o700)
        try:
            manifest = unpack(path, work)
            made = work / "hub"
            hub = _prepare(made, manifest, old)
            async with _private_server(hub, made) as (connection, store):
                await bring_back(connection, store, manifest, work / "streams")
                await streams.ensure_streams(store, shards=hub.shards)
            for name in ("nats-server.pid.json", "stderr.log", "nats.conf"):
                (made / name).unlink(missing_ok=True)
            init.render(hub, data_dir)
            aside = _swap(made, data_dir, old is not None)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return init.load_hub(data_dir), manifest, aside


async def bring_back(connection: connect.Connection, log_: buslog.Log, manifest: Manifest, folder: Path) -> None:
    """Every stream of a backup into a hub that has none of them, origins before their mirrors, each in an epoch of its own.

    Raises SnapshotError, LogError, BackupError when a stream came back as something else than it was."""
    for kept in sorted(manifest.streams, key=lambda s: "mirror" in s.config):
        config = {**kept.config, "num_replicas": 1}  # `hub run` makes it what it should be
        taken = snapshots.Taken(kept.name, config, kept.state, kept.bytes, kept.sha256)
        metadata = {**_ours(kept.config), buslog.EPOCH_METADATA: secrets.token_hex(8)}
        await snapshots.give_back(connection, log_, taken, folder / kept.name, metadata)
        now = await log_.info(kept.name)
        # A mirror goes on at once, and what has passed its age goes at once.
        grows, shrinks = "mirror" in kept.config, bool(kept.config.get("max_age"))
        last, messages = int(kept.state["last_seq"]), int(kept.state["messages"])
        if now.last_seq < last or (now.last_seq > last and not grows) or (now.messages != messages and not grows | shrinks):
            raise BackupError(
                f"stream {kept.name} came back with {now.messages} messages up to #{now.last_seq}, "
                f"it had {messages} up to #{last}"
            )
        log.info("stream.restored", stream=kept.name, messages=now.messages, last=now.last_seq, was=kept.epoch)


def _ours(config: dict[str, Any]) -> dict[str, str]:
    """Metadata without what the server itself writes there."""
    return {k: v for k, v in (config.get("metadata") or {}).items() if not k.startswith("_nats.")}


@contextmanager
def _alone(data_dir: Path) -> Iterator[None]:
    """One restore of a folder at a time."""
    with open(data_dir.with_name(f".{data_dir.name}.restore.lock"), "wb") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            raise BackupError(f"{data_dir} is being restored by somebody else") from e
        try:
            yield
        finally:
            Path(f.name).unlink(missing_ok=True)


async def _clear_leftovers(data_dir: Path) -> None:
    """A restore that was killed leaves its folder and its private server."""
    for work in data_dir.parent.glob(f".{data_dir.name}.*.restoring"):
        with contextlib.suppress(init.HubError):
            await supervise.hub_server(init.load_hub(work / "hub")).stop_left_behind()
        shutil.rmtree(work, ignore_errors=True)


def _what_is_there(data_dir: Path, replace: bool) -> init.Hub | None:
    if not data_dir.exists() or not any(data_dir.iterdir()):
        return None
    if not (data_dir / "hub.json").exists():
        raise BackupError(f"{data_dir} is not empty and holds no hub: name another folder")
    old = init.load_hub(data_dir)
    if not replace:
        raise BackupError(f"{data_dir} holds hub {old.id}: it is replaced only when asked for (--replace)")
    if any(supervise.hub_server(old, n).left_running for n in range(1, len(old.members) + 1)):
        raise BackupError(f"the hub in {data_dir} runs: end it first (`skerry hub stop --data {data_dir}`)")
    return old


def _prepare(made: Path, manifest: Manifest, old: init.Hub | None) -> init.Hub:
    """The folder of a hub that could run, but has no streams yet."""
    for name in ("jetstream", "log"):
        (made / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    hub = init.load_hub(made)
    if hub.id != manifest.hub:
        raise BackupError(f"the backup says that it is of hub {manifest.hub}, but holds {hub.id}")
    if old is not None and old.id != hub.id:
        raise BackupError(f"the backup is of hub {hub.id}, in {old.dir} is {old.id}: it is not replaced by another hub")
    if old is not None:
        _keep_revocations(old, hub)
    # A cluster comes back as one server, at the place of its first: its nodes find it there.
    first = [{"servers": [], "fronts": [], "hosts": [s.host], "ports": s.ports} for s in hub.file.servers[:1]]
    changes = {"epoch": secrets.token_hex(8), **(first[0] if first else {})}
    fresh = init.Hub(made, hub.file.model_copy(update=changes))
    init.render(fresh, made)
    return fresh


def _keep_revocations(old: init.Hub, hub: init.Hub) -> None:
    for name, public in (("EDGE", hub.accounts.edge), ("JOIN", hub.accounts.join)):
        path = hub.account_jwt(public)
        try:
            before = jwt.claims_of(old.account_jwt(public).read_text())["nats"].get("revocations", {})
        except (OSError, ValueError, KeyError) as e:
            raise BackupError(f"the revocations of the hub in {old.dir} can't be read: {e}") from e
        claims = jwt.claims_of(path.read_text())
        kept = claims["nats"].get("revocations", {})
        merged = {k: max(kept.get(k, 0), before.get(k, 0)) for k in {*kept, *before}}
        if merged != kept:
            nats = {**claims["nats"], "revocations": merged}
            token = jwt.sign(public, name, nats, hub.key("operator"), now_s=stamp.now_us() // 1_000_000)
            keys.write_private(path, token)


@asynccontextmanager
async def _private_server(hub: init.Hub, made: Path) -> AsyncIterator[tuple[connect.Connection, buslog.Log]]:
    """A nats-server on the folder that only we know of: loopback, a free port, no door for leafs or browsers."""
    port = ports.free_ports(1)[0]
    keys.write_private(hub.config_path, init.private_config(hub, port))
    server = supervise.hub_server(hub, host="127.0.0.1", port=port)
    await server.start()
    try:
        url = f"tls://127.0.0.1:{port}"
        settings = connect.ConnectSettings((url,), "skerry hub restore", credentials=hub.core_creds, ca=hub.ca_path)
        connection = await connect.connect(settings)
        try:
            store = buslog.Log(connection, timeout_s=snapshots.SILENCE_S_MAX)
            yield connection, store
            await store.close()
        finally:
            await connection.close()
    finally:
        await server.stop()


def _swap(made: Path, data_dir: Path, replaced: bool) -> Path | None:
    """The one moment in which anything changes; what was there is kept beside."""
    if not replaced:
        if data_dir.exists():
            data_dir.rmdir()  # empty, checked before
        made.rename(data_dir)
        _sync_folder(data_dir.parent)
        return None
    aside = data_dir.with_name(f"{data_dir.name}.replaced-{stamp.now_us() // 1_000_000}")
    _exchange(made, data_dir)
    made.rename(aside)
    _sync_folder(data_dir.parent)
    return aside


def _exchange(one: Path, other: Path) -> None:
    """Both names change places at once: renameat2(2) with RENAME_EXCHANGE, which Python has no call for."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) != 0:
        number = ctypes.get_errno()
        raise BackupError(f"{other} can't be replaced here ({os.strerror(number)}): move it away and restore without it")
