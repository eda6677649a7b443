"""A user as the API sees them, and what one request wants to do (Kubernetes "Authenticating", "Authorization")."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

ANONYMOUS = "system:anonymous"
MASTERS = "system:masters"  # may do everything, whatever the roles say
AUTHENTICATED, UNAUTHENTICATED = "system:authenticated", "system:unauthenticated"
ACCOUNTS = "system:serviceaccounts"
ACCOUNT_PREFIX = "system:serviceaccount:"


@dataclass(frozen=True, slots=True)
class User:
    """``impersonator`` is the user who really asks, when somebody acts as this one."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    impersonator: str = ""

    @property
    def actor(self) -> str:
        """As events name who did something: both names, when somebody acts as another."""
        return f"{self.name} (by {self.impersonator})" if self.impersonator else self.name

    def info(self) -> dict[str, object]:
        """A ``UserInfo`` of authentication.k8s.io/v1."""
        out: dict[str, object] = {"username": self.name}
        if self.uid:
            out["uid"] = self.uid
        if self.groups:
            out["groups"] = list(self.groups)
        if self.extra:
            out["extra"] = {k: list(v) for k, v in sorted(self.extra.items())}
        return out


NOBODY = User(ANONYMOUS, (UNAUTHENTICATED,))


def authenticated(name: str, groups: tuple[str, ...] = ()) -> User:
    """A user who proved who they are."""
    return User(name, tuple(dict.fromkeys((*groups, AUTHENTICATED))))


def account_name(namespace: str, name: str) -> str:
    """The user name of a service account."""
    return f"{ACCOUNT_PREFIX}{namespace}:{name}"


def account_groups(namespace: str) -> tuple[str, ...]:
    return (ACCOUNTS, f"{ACCOUNTS}:{namespace}")


def split_account(user_name: str) -> tuple[str, str] | None:
    """(namespace, name) of a service account's user name."""
    namespace, colon, name = user_name.removeprefix(ACCOUNT_PREFIX).partition(":")
    whole = user_name.startswith(ACCOUNT_PREFIX) and colon and namespace and name and ":" not in name
    return (namespace, name) if whole else None


@dataclass(frozen=True, slots=True)
class Attributes:
    """What one request wants.  ``path`` is set for what is no resource; then only ``verb`` counts beside it."""

    user: User
    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""
    fields: str = ""  # the field selector of a list

    @property
    def whole(self) -> str:
        """``pods/log``, as rules name it."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


@dataclass(frozen=True, slots=True)
class Decision:
    """``reason`` says by what it is allowed, or what went wrong while looking; often there is none."""

    allowed: bool
    reason: str = ""


class Authorizer(Protocol):
    def authorize(self, wanted: Attributes) -> Decision: ...
