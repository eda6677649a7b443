"""Who may use the standalone API: bearer tokens in a file, and the kubeconfig that carries one.

The file has a line ``<token> <user> [<group>,<group>]`` for each user (after Kubernetes' "Static token file"): the
administrator's is made with the first start and is in ``system:masters``.  What others may do is up to roles and bindings.
"""

from __future__ import annotations

import base64
import hmac
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

import yaml

from bus.kube.auth import users
from bus.kube.auth.users import User

ADMIN = "admin"


class AccessError(Exception):
    """The token file can't be read or made; the message says which and why."""


def _user(name: str, groups: str = "") -> User:
    given = tuple(g for g in groups.split(",") if g)
    return users.authenticated(name, (*given, users.MASTERS) if name == ADMIN else given)


class Tokens:
    """Constant-time comparison over the few tokens of the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._users = self._load()

    def _load(self) -> list[tuple[str, User]]:
        try:
            if not self._path.exists():
                self._path.parent.mkdir(parents=True, exist_ok=True)
                fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(fd, "w") as f:
                    f.write(f"{secrets.token_urlsafe(32)} {ADMIN} {users.MASTERS}\n")
            if self._path.stat().st_mode & 0o077:
                raise AccessError(f"{self._path} can be read by others: chmod 600 {self._path}")
            rows = [line.split() for line in self._path.read_text().splitlines() if line.strip() and line[0] != "#"]
        except OSError as e:
            raise AccessError(f"can't use the token file {self._path}: {e}") from e
        bad = [n for n, r in enumerate(rows, 1) if len(r) not in (2, 3)]
        if bad or not rows:
            raise AccessError(
                f"{self._path}: each line must be <token> <user> [<group>,<group>]; look at line {bad[0] if bad else 1}"
            )
        return [(r[0], _user(*r[1:])) for r in rows]

    def authenticate(self, headers: Mapping[str, str]) -> User | None:
        """The user of a request's ``Authorization: Bearer`` header: anonymous without one, None for a wrong one."""
        header = headers.get("Authorization", "")
        if not header:
            return users.NOBODY
        scheme, _, given = header.partition(" ")
        if scheme.lower() != "bearer":
            return None
        found = None
        for token, user in self._users:
            if hmac.compare_digest(token.encode(), given.strip().encode("utf8", "replace")):
                found = user
        return found

    def token_of(self, user: str) -> str:
        for token, known in self._users:
            if known.name == user:
                return token
        raise AccessError(f"{self._path} has no token of {user!r}")


def write_kubeconfig(path: Path, *, server: str, ca: Path, token: str, cluster: str = "skerry") -> None:
    """A kubeconfig (mode 0600) that kubectl and every Kubernetes client can use; replaced whole or not at all."""
    ca_data = base64.b64encode(ca.read_bytes()).decode()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": cluster, "cluster": {"server": server, "certificate-authority-data": ca_data}}],
        "users": [{"name": ADMIN, "user": {"token": token}}],
        "contexts": [{"name": cluster, "context": {"cluster": cluster, "user": ADMIN}}],
        "current-context": cluster,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w") as f:
        yaml.safe_dump(config, f, sort_keys=False)
    new.replace(path)
