"""Making a hub: once, whole or not at all.

``init_hub`` builds everything beside the target and renames it into place, so that a crash leaves either no hub or a hub.
Called again it loads what is there, and brings up to date what may change (host names, ports, the accounts' doors);
what may not (shards, keys) is refused.
"""

from __future__ import annotations

import dataclasses
import datetime
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bus.hub import accounts, config, signers, tls
from bus.hub import ports as ports_
from bus.identity import creds, jwt, keys, permissions

SHARDS_DEFAULT = 4  # NATS-FACTS.md: 4-16 are plenty for a million subjects
SHARDS_MAX = 256
_CORE_USER = "core-admin"
_SYS_USER = "sys-admin"


class HubError(Exception):
    """The hub's folder can't be used as asked; the message says what to do."""


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class HubPorts(Model):
    """0 takes a free port when the hub is made, and keeps it."""

    client: int = Field(default=4222, ge=0, le=65535)
    leaf: int = Field(default=7422, ge=0, le=65535)
    websocket: int = Field(default=8443, ge=0, le=65535, description="443 needs root; sites that allow only 443 need it")


class HubServer(Model):
    """One of the servers of a hub that has three: where it is, and the port of its routes to the others."""

    host: str
    ports: HubPorts
    route: int = Field(default=6222, ge=0, le=65535)


class HubFile(Model):
    """``hub.json``: what a hub is, without secrets."""

    id: str
    epoch: str = Field(description="of this making of the log; streams carry their own, see bus.hub.streams")
    shards: int
    hosts: list[str] = Field(min_length=1)
    listen: str
    ports: HubPorts
    servers: list[HubServer] = Field(default_factory=list, description="of a cluster; none: one server, by hosts and ports")
    fronts: list[HubServer] = Field(default_factory=list, description="of a cluster: they hold links and no log")
    core: str
    edge: str
    join: str
    sys: str
    operator: str


@dataclass(frozen=True, slots=True)
class Member:
    """One nats-server of a hub: its folder (configuration, log, store), its name, where it is reached."""

    dir: Path
    name: str
    host: str
    ports: HubPorts

    @property
    def config_path(self) -> Path:
        return self.dir / "nats.conf"


class Hub:
    """A hub's folder.  Everything about it that is not running."""

    def __init__(self, data_dir: Path, file: HubFile) -> None:
        self.dir = data_dir
        self.file = file

    @property
    def id(self) -> str:
        return self.file.id

    @property
    def shards(self) -> int:
        return self.file.shards

    @property
    def accounts(self) -> accounts.Accounts:
        f = self.file
        return accounts.Accounts(core=f.core, edge=f.edge, join=f.join, sys=f.sys)

    @property
    def server_name(self) -> str:
        return f"hub-{self.file.id}"

    @property
    def config_path(self) -> Path:
        return self.dir / "nats.conf"

    @property
    def ca_path(self) -> Path:
        return self.dir / "tls" / "ca.pem"

    @property
    def core_creds(self) -> Path:
        return self.dir / "creds" / "core.creds"

    @property
    def sys_creds(self) -> Path:
        return self.dir / "creds" / "sys.creds"

    @property
    def replicas(self) -> int:
        """Of every stream: three on a cluster of three or more."""
        return min(3, len(self.file.servers)) or 1

    @property
    def members(self) -> list[Member]:
        """The servers, fronts last; one for a hub that is not a cluster, and then its folder is the hub's."""
        f = self.file
        if not f.servers:
            listen = "127.0.0.1" if f.listen in ("0.0.0.0", "::") else f.listen
            return [Member(self.dir, self.server_name, listen, f.ports)]
        folder = self.dir / "servers"
        every = enumerate([*f.servers, *f.fronts], start=1)
        return [Member(folder / str(n), f"{self.server_name}-{n}", s.host, s.ports) for n, s in every]

    @property
    def _places(self) -> list[tuple[str, HubPorts]]:
        cluster = [(s.host, s.ports) for s in [*self.file.servers, *self.file.fronts]]
        return cluster or [(h, self.file.ports) for h in self.file.hosts]

    @property
    def urls(self) -> list[str]:
        return [f"tls://{_bracket(h)}:{p.client}" for h, p in self._places]

    @property
    def leaf_urls(self) -> list[str]:
        return [f"tls://{_bracket(h)}:{p.leaf}" for h, p in self._places]

    @property
    def websocket_urls(self) -> list[str]:
        return [f"wss://{_bracket(h)}:{p.websocket}" for h, p in self._places]

    def account_jwt(self, public: str) -> Path:
        return self.dir / "accounts" / f"{public}.jwt"

    def node_signer(self) -> signers.NodeSigner:
        """Raises HubError."""
        try:
            return signers.NodeSigner(self.dir, self.key("edge-signing"), self.accounts.edge, self.shards)
        except (OSError, ValueError) as e:
            raise HubError(f"can't read which keys of the hub in {self.dir} are bound to a role: {e}") from e

    def key(self, name: str) -> keys.Key:
        """``operator``, ``core``, ``edge``, ``edge-signing``, ``join``, ``join-signing`` or ``sys``; read each time."""
        path = self.dir / "keys" / f"{name}.seed"
        try:
            return keys.from_seed(path.read_text(), "operator" if name == "operator" else "account")
        except (OSError, keys.BadKey) as e:
            raise HubError(f"can't read the key {path}: {e}") from e


def _bracket(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def load_hub(data_dir: Path) -> Hub:
    """Raises HubError when there is no whole hub in ``data_dir``."""
    path = data_dir / "hub.json"
    try:
        file = HubFile.model_validate_json(path.read_bytes())
    except FileNotFoundError as e:
        raise HubError(f"{data_dir} holds no hub ({path.name} is missing): make one with `skerry hub init`") from e
    except (OSError, ValidationError) as e:
        raise HubError(f"can't read {path}: {e}") from e
    missing = [n for n in ("keys", "tls", "accounts", "creds") if not (data_dir / n).is_dir()]
    if missing:
        raise HubError(f"the hub in {data_dir} is damaged: {', '.join(missing)} is missing; restore it from a backup")
    return Hub(data_dir, file)


def init_hub(
    data_dir: Path,
    *,
    hosts: Sequence[str] | None = None,
    ports: HubPorts | None = None,
    listen: str | None = None,
    shards: int | None = None,
    servers: Sequence[HubServer] = (),
    fronts: Sequence[HubServer] = (),
) -> Hub:
    """The hub in ``data_dir``, made if there is none.

    ``servers``: a cluster of three (or five), each with a copy of the folder; fixed when it is made.  ``fronts``: servers
    beside them that hold nodes' links and nothing of the log, for more nodes than three servers have open files for.
    ``hosts`` are the names and addresses under which nodes reach it (default: localhost).  None keeps what is there.
    Raises HubError: the folder holds something else, or the hub there differs in what can't change.
    """
    data_dir = data_dir.absolute()
    if (data_dir / "hub.json").exists():
        hub = load_hub(data_dir)
        if shards is not None and shards != hub.shards:
            raise HubError(f"the hub in {data_dir} has {hub.shards} shards, fixed when it was made; {shards} were asked for")
        had = [s.host for s in [*hub.file.servers, *hub.file.fronts]]
        if (servers or fronts) and [s.host for s in [*servers, *fronts]] != had:
            raise HubError(f"the servers of the hub in {data_dir} were fixed when it was made; others were asked for")
        return _update(hub, hosts, ports, listen)
    _check_place(data_dir)
    if servers and len(servers) not in (3, 5):
        raise HubError(f"a cluster has 3 or 5 servers (a majority must be left), {len(servers)} were asked for")
    if fronts and not servers:
        raise HubError("fronts stand beside a cluster of 3 or 5 servers that have the log, and none was asked for")
    names = list(dict.fromkeys(s.host for s in [*servers, *fronts]))
    hosts = [*(hosts or ()), *names] if servers else list(hosts or ("localhost", "127.0.0.1"))
    return _make(data_dir, list(hosts), ports or HubPorts(), listen or "0.0.0.0", shards, servers, fronts)


def _check_place(data_dir: Path) -> None:
    """Whether a hub can be made there.  Raises HubError."""
    if data_dir.is_mount():
        raise HubError(
            f"{data_dir} is a mount point, and a hub is made beside its place and then moved there as a whole. "
            f"Name a folder in it: {data_dir / 'hub'}"
        )
    try:
        used = data_dir.exists() and any(data_dir.iterdir())
    except OSError as e:  # a file, or a folder that we may not read
        raise HubError(f"can't make a hub in {data_dir}: {e.strerror}. Name another folder") from e
    if used:
        raise HubError(
            f"{data_dir} is not empty and holds no hub.json: it is half-made or something else. "
            "Move it away or name another folder"
        )


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _make(
    data_dir: Path,
    hosts: list[str],
    ports: HubPorts,
    listen: str,
    shards: int | None,
    servers: Sequence[HubServer],
    fronts: Sequence[HubServer],
) -> Hub:
    shards = SHARDS_DEFAULT if shards is None else shards
    if not 1 <= shards <= SHARDS_MAX:
        raise HubError(f"a hub has 1 to {SHARDS_MAX} shards, {shards} were asked for")
    work = data_dir.parent / f".{data_dir.name}.{secrets.token_hex(4)}.making"
    try:
        data_dir.parent.mkdir(parents=True, exist_ok=True)
        work.mkdir(mode=0o700)
    except OSError as e:
        raise HubError(f"can't make a hub in {data_dir}: {work.parent}: {e.strerror}. It needs a place beside it") from e
    try:
        for name in ("keys", "tls", "accounts", "creds", "jetstream", "log"):
            (work / name).mkdir(mode=0o700)
        made = {n: keys.generate("account") for n in ("core", "edge", "edge-signing", "join", "join-signing", "sys")}
        made["operator"] = keys.generate("operator")
        for name, key in made.items():
            keys.write_private(work / "keys" / f"{name}.seed", key.seed + "\n")
        signers.scope(work, made["edge-signing"].public)
        file = HubFile(
            id=secrets.token_hex(5),
            epoch=secrets.token_hex(8),
            shards=shards,
            hosts=hosts,
            listen=listen,
            ports=_fixed(ports),
            servers=[_fixed_server(s) for s in servers],
            fronts=[_fixed_server(s) for s in fronts],
            operator=made["operator"].public,
            core=made["core"].public,
            edge=made["edge"].public,
            join=made["join"].public,
            sys=made["sys"].public,
        )
        building = Hub(work, file)
        tls.make_ca(work / "tls", file.id, _now())
        _write_accounts(building)
        write_users(building)
        render(building, data_dir)
        if data_dir.exists():
            data_dir.rmdir()  # empty, checked by the caller; a rename onto it would fail on some file systems
        work.rename(data_dir)
    except BaseException as e:
        shutil.rmtree(work, ignore_errors=True)
        if isinstance(e, OSError):  # the disk is full, or the place changed under us
            raise HubError(f"can't make a hub in {data_dir}: {e}") from e
        raise
    return load_hub(data_dir)


def _update(hub: Hub, hosts: Sequence[str] | None, ports: HubPorts | None, listen: str | None) -> Hub:
    changes: dict[str, object] = {}
    if hosts is not None:
        changes["hosts"] = list(hosts)
    if ports is not None:
        asked, had = ports.model_dump(), hub.file.ports.model_dump()
        changes["ports"] = HubPorts(**{n: asked[n] or had[n] for n in had})
    if listen is not None:
        changes["listen"] = listen
    hub = Hub(hub.dir, hub.file.model_copy(update=changes))
    _write_accounts(hub)
    render(hub, hub.dir)
    return hub


def _fixed(wanted: HubPorts) -> HubPorts:
    """Every 0 replaced by a port that is free now."""
    asked = wanted.model_dump()
    try:
        free = iter(ports_.free_ports(len(asked)))
    except ports_.NoFreePort as e:
        raise HubError(str(e)) from e
    return HubPorts(**{name: port or next(free) for name, port in asked.items()})


def refresh_accounts(hub: Hub) -> None:
    """What the servers' resolvers were told since (revocations) into the hub's own files."""
    if hub.file.servers:
        _write_accounts(hub)


def _fixed_server(wanted: HubServer) -> HubServer:
    route = wanted.route or ports_.free_ports(1)[0]
    return HubServer(host=wanted.host, ports=_fixed(wanted.ports), route=route)


def _write_accounts(hub: Hub) -> None:
    """Account JWTs for the resolver.  What a newer version of this code says differently is written anew, revocations kept;
    a server that runs already hears of it at its next start."""
    operator = hub.key("operator")
    names = hub.accounts
    now_s = int(_now().timestamp())
    signing = {
        n: [signers.entry(hub.dir, k) for k in signers.believed(hub.dir, n, hub.key(f"{n}-signing").public, now_s)]
        for n in signers.SIGNERS
    }
    wanted = {
        "CORE": (names.core, accounts.core(names)),
        "EDGE": (names.edge, accounts.edge(names, signing["edge"])),
        "JOIN": (names.join, accounts.join(names, signing["join"])),
        "SYS": (names.sys, accounts.sys()),
    }
    for name, (public, nats) in wanted.items():
        paths = [hub.account_jwt(public)]
        if hub.file.servers:  # each resolver has a folder of its own
            paths += [m.dir / "accounts" / f"{public}.jwt" for m in hub.members]
        old = {p: jwt.claims_of(p.read_text()) for p in paths if p.exists()}
        revoked: dict[str, int] = {}
        for claims in old.values():
            for key, since in claims["nats"].get("revocations", {}).items():
                revoked[key] = max(since, revoked.get(key, 0))
        token = jwt.sign(public, name, {**nats, "revocations": revoked} if revoked else nats, operator, now_s=now_s)
        for p in paths:
            if p not in old or not jwt.same_claims(old[p], jwt.claims_of(token)):
                p.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                keys.write_private(p, token)


def write_users(hub: Hub) -> None:
    """New users of CORE and SYS, in their files."""
    now_s = int(_now().timestamp())
    for user, account, path in ((_CORE_USER, "core", hub.core_creds), (_SYS_USER, "sys", hub.sys_creds)):
        key = keys.generate("user")
        token = jwt.sign(key.public, user, permissions.everything(), hub.key(account), now_s=now_s)
        creds.Credentials(token, key.seed).write(path)


def render(hub: Hub, final: Path) -> None:
    """Certificate, server configuration and hub.json; paths in the configuration are those of ``final``."""
    directory = hub.dir / "tls"
    hosts = list(dict.fromkeys([*hub.file.hosts, "localhost", "127.0.0.1"]))
    if not tls.good(directory / "server.pem", hosts, _now()):
        tls.issue(directory, directory / "server.pem", directory / "server.key", hosts, _now())
    if hub.file.servers:
        if not tls.good(directory / "route.pem", hosts, _now()):
            tls.issue(directory, directory / "route.pem", directory / "route.key", hosts, _now(), client=True)
        for n, member in enumerate(hub.members, start=1):
            for name in ("jetstream", "log"):
                (member.dir / name).mkdir(mode=0o700, parents=True, exist_ok=True)
            keys.write_private(member.config_path, config.hub(_member_config(hub, final, n)))
    else:
        keys.write_private(hub.dir / "nats.conf", config.hub(_config(hub, final)))
    keys.write_private(hub.dir / "hub.json", hub.file.model_dump_json(indent=2) + "\n")


def private_config(hub: Hub, port: int) -> str:
    """nats-server's configuration for work on the folder that nobody else may see: loopback, no leafs, no WebSocket."""
    return config.private(_config(hub, hub.dir), port)


def _member_config(hub: Hub, final: Path, n: int) -> config.HubConfig:
    me, one = [*hub.file.servers, *hub.file.fronts][n - 1], _config(hub, final)
    return dataclasses.replace(
        one,
        data=final / "servers" / str(n),
        server_name=f"{hub.server_name}-{n}",
        client_port=me.ports.client,
        leaf_port=me.ports.leaf,
        websocket_port=me.ports.websocket,
        route_port=me.route,
        # Not the fronts: servers tell each other who else is there, and those with the log count a majority by this list.
        routes=tuple(f"tls://{_bracket(s.host)}:{s.route}" for s in hub.file.servers),
        front=n > len(hub.file.servers),
    )


def _config(hub: Hub, final: Path) -> config.HubConfig:
    operator = hub.key("operator")
    operator_jwt = jwt.sign(
        operator.public, f"skerry-{hub.id}", {"type": "operator", "system_account": hub.file.sys}, operator, now_s=0
    )
    return config.HubConfig(
        dir=final,
        data=final,
        server_name=hub.server_name,
        listen=hub.file.listen,
        client_port=hub.file.ports.client,
        leaf_port=hub.file.ports.leaf,
        websocket_port=hub.file.ports.websocket,
        operator_jwt=operator_jwt,
        system_account=hub.file.sys,
    )


def issue_server_cert(hub: Hub, name: str, hosts: Sequence[str]) -> tuple[Path, Path]:
    """(certificate, key) paths of a server certificate of the hub's CA under ``tls/<name>.pem``; reissued when it no longer
    fits.  The Kubernetes API's, for one.  Raises tls.TlsError."""
    cert, key = hub.dir / "tls" / f"{name}.pem", hub.dir / "tls" / f"{name}.key"
    if not key.exists() or not tls.good(cert, hosts, _now()):
        tls.issue(hub.dir / "tls", cert, key, hosts, _now())
    return cert, key
