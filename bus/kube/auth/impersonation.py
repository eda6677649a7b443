"""Acting as somebody else: the ``Impersonate-*`` headers (Kubernetes "User impersonation")."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import unquote

from bus.kube import errors
from bus.kube.auth import users
from bus.kube.auth.users import Attributes, User

AUTHENTICATION = "authentication.k8s.io"
USER, UID, GROUP, EXTRA = "Impersonate-User", "Impersonate-Uid", "Impersonate-Group", "Impersonate-Extra-"
HEADERS_MAX = 256  # groups and extras of one request; each is authorized


def apply(headers: Mapping[str, str], user: User, require: Callable[[Attributes], None]) -> User:
    """Who ``user`` wants to be for this request: themselves without such headers.  ``require`` raises for what they may not
    do.  Raises StatusError 400, 403."""
    asked = [(k, v) for k, v in headers.items() if k.lower().startswith("impersonate-")]
    if not asked:
        return user
    if len(asked) > HEADERS_MAX:
        raise errors.bad_request(f"at most {HEADERS_MAX} Impersonate headers")
    name = headers.get(USER, "")
    groups = tuple(v for k, v in asked if k.lower() == GROUP.lower())
    uid = headers.get(UID, "")
    extra: dict[str, list[str]] = {}
    for k, v in asked:
        if k.lower().startswith(EXTRA.lower()):
            extra.setdefault(unquote(k[len(EXTRA) :]).lower(), []).append(v)
    if not name:
        raise errors.bad_request("requested impersonation of groups, uid or extra without impersonating a user")
    account = users.split_account(name)
    if account is not None:
        require(Attributes(user, "impersonate", "", "serviceaccounts", "", *account))
    else:
        require(Attributes(user, "impersonate", "", "users", name=name))
    for group in groups:
        require(Attributes(user, "impersonate", "", "groups", name=group))
    if uid:
        require(Attributes(user, "impersonate", AUTHENTICATION, "uids", name=uid))
    for key, values in extra.items():
        for value in values:
            require(Attributes(user, "impersonate", AUTHENTICATION, "userextras", key, name=value))
    return User(name, _groups(name, groups), uid, {k: tuple(v) for k, v in extra.items()}, user.actor)


def _groups(name: str, given: tuple[str, ...]) -> tuple[str, ...]:
    """What the named user would be in, had they logged in themselves."""
    account = users.split_account(name)
    groups = given or (users.account_groups(account[0]) if account else ())
    if name == users.ANONYMOUS:
        return groups if users.UNAUTHENTICATED in groups else (*groups, users.UNAUTHENTICATED)
    if users.AUTHENTICATED in groups or users.UNAUTHENTICATED in groups:
        return groups
    return (*groups, users.AUTHENTICATED)
