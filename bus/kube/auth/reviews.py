"""Kinds that are asked and never stored: may I, may they, what may I, who am I.

``authorization.k8s.io/v1`` and ``SelfSubjectReview`` of ``authentication.k8s.io/v1`` (Kubernetes API reference).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bus.kube import errors
from bus.kube.auth.impersonation import AUTHENTICATION
from bus.kube.auth.node_rights import Judge
from bus.kube.auth.users import Attributes, User
from bus.kube.kinds.base import at
from bus.kube.storage import Object
from bus.kube.targets import Target

AUTHORIZATION = "authorization.k8s.io"
Ask = Callable[[User, Target, Object], Object]  # who asks, what they address, what they sent -> its status


class Reviews:
    """``more`` are reviews that need more than roles, by (group, resource)."""

    def __init__(self, authorizer: Judge, more: Mapping[tuple[str, str], Ask] | None = None) -> None:
        self._rbac = authorizer
        self._asked: dict[tuple[str, str], Ask] = {
            (AUTHORIZATION, "selfsubjectaccessreviews"): self._self,
            (AUTHORIZATION, "subjectaccessreviews"): self._anybody,
            (AUTHORIZATION, "localsubjectaccessreviews"): self._local,
            (AUTHORIZATION, "selfsubjectrulesreviews"): self._rules,
            (AUTHENTICATION, "selfsubjectreviews"): lambda user, target, obj: {"userInfo": user.info()},
            **(more or {}),
        }

    def answer(self, user: User, target: Target, obj: Object) -> Object:
        """``obj`` with its status.  Raises StatusError 400, 404, 422."""
        ask = self._asked.get((target.resource.group, target.resource.resource))
        if ask is None:
            raise errors.no_such_path()
        obj["metadata"].pop("managedFields", None)
        return {**obj, "status": ask(user, target, obj)}

    def _self(self, user: User, target: Target, obj: Object) -> Object:
        return self._decide(target, obj, user)

    def _anybody(self, user: User, target: Target, obj: Object, namespace: str = "") -> Object:
        spec = obj.get("spec") or {}
        if not spec.get("user") and not spec.get("groups"):
            cause = errors.bad_value("spec.user", "", "at least one of user or group must be specified")
            raise errors.invalid(AUTHORIZATION, "", "", [cause])
        extra = {k: tuple(v) for k, v in (spec.get("extra") or {}).items()}
        who = User(spec.get("user", ""), tuple(spec.get("groups") or ()), spec.get("uid", ""), extra)
        return self._decide(target, obj, who)

    def _local(self, user: User, target: Target, obj: Object) -> Object:
        asked = at(obj, "spec", "resourceAttributes", "namespace") or ""
        if at(obj, "spec", "nonResourceAttributes") is not None:
            cause = _of_path(at(obj, "spec", "nonResourceAttributes"), "disallowed on this kind of request")
            raise errors.invalid(AUTHORIZATION, "", "", [cause])
        if asked != target.namespace:
            field = "spec.resourceAttributes.namespace"
            raise errors.invalid(AUTHORIZATION, "", "", [errors.bad_value(field, asked, "must match metadata.namespace")])
        obj["metadata"]["namespace"] = target.namespace
        return self._anybody(user, target, obj)

    def _decide(self, target: Target, obj: Object, who: User) -> Object:
        resource, path = at(obj, "spec", "resourceAttributes"), at(obj, "spec", "nonResourceAttributes")
        if resource is not None and path is not None:
            cause = _of_path(path, "cannot be specified in combination with resourceAttributes")
            raise errors.invalid(AUTHORIZATION, "", "", [cause])
        if resource is None and path is None:
            why = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
            cause = errors.bad_value("spec.resourceAttributes", None, why)
            raise errors.invalid(AUTHORIZATION, "", "", [cause])
        decision = self._rbac.authorize(_attributes(who, resource, path))
        return {"allowed": decision.allowed, **({"reason": decision.reason} if decision.reason else {})}

    def _rules(self, user: User, target: Target, obj: Object) -> Object:
        namespace = at(obj, "spec", "namespace")
        if not namespace:
            raise errors.bad_request("no namespace on request")
        found, failed = self._rbac.rules_for(user, namespace)
        listed: dict[str, list[Any]] = {"resourceRules": [], "nonResourceRules": []}
        for rule in found:
            of_paths = bool(rule.get("nonResourceURLs"))
            fields = ("nonResourceURLs",) if of_paths else ("apiGroups", "resources", "resourceNames")
            said = {"verbs": rule.get("verbs") or [], **{f: rule[f] for f in fields if rule.get(f)}}
            listed["nonResourceRules" if of_paths else "resourceRules"].append(said)
        return {**listed, "incomplete": bool(failed), **({"evaluationError": ", ".join(failed)} if failed else {})}


def _of_path(path: Any, why: str) -> errors.Cause:
    shown = errors.in_order({"Path": path.get("path", ""), "Verb": path.get("verb", "")})
    return errors.Cause("spec.nonResourceAttributes", "FieldValueInvalid", f"Invalid value: {shown}: {why}")


def _attributes(who: User, resource: Any, path: Any) -> Attributes:
    if resource is None:
        return Attributes(who, path.get("verb", ""), path=path.get("path", "") or "/")
    return Attributes(
        who,
        resource.get("verb", ""),
        resource.get("group", ""),
        resource.get("resource", ""),
        resource.get("subresource", ""),
        resource.get("namespace", ""),
        resource.get("name", ""),
        fields=at(resource, "fieldSelector", "rawSelector") or "",
    )
