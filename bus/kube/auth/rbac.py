"""Roles and bindings as an index, and the answers from it (Kubernetes "Using RBAC Authorization").

The index is made of what the reader holds and made again when a role or a binding has changed; a look at an unchanged one
costs four numbers.  So a right that was given or taken counts with the next request, on every server.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from bus.kube.auth import rules, users
from bus.kube.auth.rules import Rule
from bus.kube.auth.users import Attributes, Decision, User
from bus.kube.storage import Object, Reader

GROUP = "rbac.authorization.k8s.io"
ROLES, CLUSTERROLES = "roles", "clusterroles"
ROLEBINDINGS, CLUSTERROLEBINDINGS = "rolebindings", "clusterrolebindings"
_RESOURCES = (ROLES, CLUSTERROLES, ROLEBINDINGS, CLUSTERROLEBINDINGS)
_Subject = tuple[str, str]  # (kind, name); a service account is the user that it is


@dataclass(frozen=True, slots=True)
class _Binding:
    name: str
    namespace: str  # "" binds everywhere
    role_kind: str
    role: str

    def says(self, subject: Object) -> str:
        """By what somebody is allowed, in the words of the real server."""
        kind = "RoleBinding" if self.namespace else "ClusterRoleBinding"
        name = f"{self.name}/{self.namespace}" if self.namespace else self.name
        whom = subject.get("name", "")
        if subject.get("kind") == "ServiceAccount":
            whom = f"{whom}/{subject.get('namespace') or self.namespace}"
        return f'{kind} "{name}" of {self.role_kind} "{self.role}" to {subject.get("kind", "")} "{whom}"'


@dataclass(slots=True)
class _Index:
    """Bindings by namespace ("" for everywhere) and subject; roles by namespace ("" for cluster roles) and name."""

    bindings: dict[str, dict[_Subject, list[tuple[_Binding, Object]]]] = field(default_factory=dict)
    roles: dict[tuple[str, str], list[Rule]] = field(default_factory=dict)

    def add_binding(self, obj: Object, namespace: str) -> None:
        ref = obj.get("roleRef") or {}
        binding = _Binding(obj["metadata"]["name"], namespace, ref.get("kind", ""), ref.get("name", ""))
        by_subject = self.bindings.setdefault(namespace, {})
        for subject in obj.get("subjects") or []:
            by_subject.setdefault(_key(subject, namespace), []).append((binding, subject))

    def bound(self, user: User, namespace: str) -> Iterator[tuple[_Binding, Object]]:
        """Everything that binds a user: everywhere first, then in the namespace."""
        whom: list[_Subject] = [("User", user.name), *(("Group", g) for g in user.groups)]
        for space in ("", namespace) if namespace else ("",):
            by_subject = self.bindings.get(space)
            if by_subject:
                for subject in whom:
                    yield from by_subject.get(subject, ())

    def rules_of(self, binding: _Binding) -> list[Rule] | str:
        """The role's rules, or why there are none."""
        space = binding.namespace if binding.role_kind == "Role" else ""
        found = self.roles.get((space, binding.role))
        if found is None:
            return f'{binding.role_kind.lower()}.{GROUP} "{binding.role}" not found'
        return found


def _key(subject: Object, namespace: str) -> _Subject:
    kind, name = subject.get("kind", ""), subject.get("name", "")
    if kind == "ServiceAccount":
        return ("User", users.account_name(subject.get("namespace") or namespace, name))
    return (kind, name)


class Rbac:
    """Implements ``Authorizer``."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._seen: tuple[int, ...] = ()
        self._index = _Index()

    def _fresh(self) -> _Index:
        now = tuple(self._reader.changed(GROUP, r) for r in _RESOURCES)
        if now != self._seen:
            index = _Index()
            for resource in (ROLES, CLUSTERROLES):
                for s in self._reader.list(GROUP, resource):
                    index.roles[s.key.namespace, s.key.name] = s.object.get("rules") or []
            for resource in (ROLEBINDINGS, CLUSTERROLEBINDINGS):
                for s in self._reader.list(GROUP, resource):
                    index.add_binding(s.object, s.key.namespace)
            self._seen, self._index = now, index
        return self._index

    def authorize(self, wanted: Attributes) -> Decision:
        if users.MASTERS in wanted.user.groups:
            return Decision(True)
        index, failed = self._fresh(), dict[str, None]()
        for binding, subject in index.bound(wanted.user, "" if wanted.path else wanted.namespace):
            found = index.rules_of(binding)
            if isinstance(found, str):
                failed[found] = None
            elif any(rules.allows(r, wanted) for r in found):
                return Decision(True, f"RBAC: allowed by {binding.says(subject)}")
        return Decision(False, f"RBAC: {_errors(failed)}" if failed else "")

    def rules_for(self, user: User, namespace: str) -> tuple[list[Rule], list[str]]:
        """Everything that a user may do in a namespace ("": what they may do everywhere), and what couldn't be found."""
        index, failed = self._fresh(), dict[str, None]()
        out: list[Rule] = []
        for binding, _ in index.bound(user, namespace):
            found = index.rules_of(binding)
            if isinstance(found, str):
                failed[found] = None
            else:
                out += found
        if users.MASTERS in user.groups and not all(r in out for r in rules.FULL):
            out += rules.FULL
        return out, list(failed)

    def role(self, kind: str, namespace: str, name: str) -> list[Rule] | None:
        """The rules of a role that a binding names."""
        return self._fresh().roles.get((namespace if kind == "Role" else "", name))


def _errors(failed: Iterable[str]) -> str:
    listed = list(failed)
    return listed[0] if len(listed) == 1 else "[" + ", ".join(listed) + "]"
