"""Nobody grants what they don't have, unless they may ``escalate`` roles or ``bind`` them.

Source: Kubernetes "Using RBAC Authorization", "Privilege escalation prevention and bootstrapping".  An admission plugin;
who is no user (our own controllers) is not asked.
"""

from __future__ import annotations

from typing import Any

from bus.kube import errors
from bus.kube.admission.base import Plugin
from bus.kube.auth import rbac, rules, users
from bus.kube.auth.rules import Rule
from bus.kube.auth.users import Attributes, User
from bus.kube.storage import Object
from bus.kube.targets import Target, Write

_ROLES = (rbac.ROLES, rbac.CLUSTERROLES)
_BINDINGS = (rbac.ROLEBINDINGS, rbac.CLUSTERROLEBINDINGS)


class Escalation(Plugin):
    def __init__(self, authorizer: rbac.Rbac) -> None:
        self._rbac = authorizer

    async def admit(self, target: Target, obj: Object, how: Write) -> None:
        self._check(target, obj, {}, how)

    def update(self, target: Target, new: Object, old: Object, how: Write) -> None:
        self._check(target, new, old, how)

    def _check(self, target: Target, new: Object, old: Object, how: Write) -> None:
        user = how.user
        if user is None or target.resource.group != rbac.GROUP or users.MASTERS in user.groups:
            return
        if target.resource.resource in _ROLES:
            self._role(target, new, old, user)
        elif target.resource.resource in _BINDINGS and _changed(new, old, "subjects", "roleRef"):
            self._binding(target, new, user)

    def _may(self, user: User, verb: str, resource: str, namespace: str, name: str) -> bool:
        wanted = Attributes(user, verb, rbac.GROUP, resource, "", namespace, name)
        return self._rbac.authorize(wanted).allowed

    def _role(self, target: Target, new: Object, old: Object, user: User) -> None:
        name = new["metadata"].get("name", "")
        if self._may(user, "escalate", target.resource.resource, target.namespace, name):
            return
        if new.get("aggregationRule") and _changed(new, old, "aggregationRule"):
            problem = self._uncovered(user, target.namespace, rules.FULL)
            if problem:
                raise self._refusal(target, name, f"must have cluster-admin privileges to use an aggregationRule: {problem}")
        if _changed(new, old, "rules"):
            problem = self._uncovered(user, target.namespace, new.get("rules") or [])
            if problem:
                raise self._refusal(target, name, problem)

    def _binding(self, target: Target, new: Object, user: User) -> None:
        ref, name, namespace = new.get("roleRef") or {}, new["metadata"].get("name", ""), target.namespace
        kind, role = ref.get("kind", ""), ref.get("name", "")
        resource = rbac.ROLES if kind == "Role" else rbac.CLUSTERROLES
        if self._may(user, "bind", resource, namespace, role):
            return
        granted = self._rbac.role(kind, namespace, role)
        if granted is None:
            raise errors.not_found(rbac.GROUP, resource, role)
        problem = self._uncovered(user, namespace, granted)
        if problem:
            raise self._refusal(target, name, problem)

    def _uncovered(self, user: User, namespace: str, wanted: Any) -> str:
        """What a user lacks to grant these rules, in the words of the real server; "" when nothing."""
        owned, failed = self._rbac.rules_for(user, namespace)
        try:
            missing: list[Rule] = rules.covers(owned, wanted)
        except rules.TooManyRights as e:
            return str(e)
        if not missing:
            return ""
        said = "\n".join(sorted({rules.text(r) for r in rules.compact(missing)}))
        who = f'user "{user.name}" (groups={rules.quoted(user.groups)})'
        lacks = f"{who} is attempting to grant RBAC permissions not currently held:\n{said}"
        return lacks + (f"; resolution errors: [{' '.join(failed)}]" if failed else "")

    def _refusal(self, target: Target, name: str, why: str) -> errors.StatusError:
        return errors.forbidden(rbac.GROUP, target.resource.resource, name, why)


def _changed(new: Object, old: Object, *fields: str) -> bool:
    return any((new.get(f) or None) != (old.get(f) or None) for f in fields)
