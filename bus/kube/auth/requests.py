"""What a request wants to do, and the refusal of those who may not (Kubernetes "Authorization").

A path that names a resource is asked for as a resource before anybody looks whether it is served: who may not, does not
learn what there is.
"""

from __future__ import annotations

from collections.abc import Mapping

from bus.kube import errors
from bus.kube.auth.users import Attributes, Authorizer, User
from bus.kube.errors import StatusError
from bus.kube.http.paths import Address

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete", "GET": "get", "HEAD": "get"}
STREAMED = frozenset({"exec", "attach", "portforward"})  # opened by GET, but they do more than look


def of_path(user: User, method: str, path: str) -> Attributes:
    """For what is no resource."""
    return Attributes(user, method.lower(), path=path)


def of_resource(user: User, method: str, address: Address, query: Mapping[str, str]) -> Attributes:
    verb, name, fields = _VERBS.get(method, ""), address.name, ""
    if address.watch or (verb == "get" and query.get("watch", "0").lower() in ("1", "t", "true", "") and not name):
        verb = "watch"
    elif verb == "get" and not name:
        verb = "list"
    elif verb == "delete" and not name:
        verb = "deletecollection"
    if verb in ("list", "watch", "deletecollection") and not name:
        fields = query.get("fieldSelector", "")
        name = _selected(fields)
    namespace = address.namespace or ""
    if (address.group, address.resource) == ("", "namespaces"):
        namespace = address.name
    return Attributes(user, verb, address.group, address.resource, address.subresource, namespace, name, fields=fields)


def _selected(fields: str) -> str:
    """The one name that a list asks for."""
    for term in fields.split(","):
        left, _, right = term.partition("=")
        if left.strip() == "metadata.name":
            return right.removeprefix("=").strip()
    return ""


def require(authorizer: Authorizer, wanted: Attributes) -> None:
    """Raises StatusError 403."""
    decision = authorizer.authorize(wanted)
    if not decision.allowed:
        raise refusal(wanted, decision.reason)


def refusal(wanted: Attributes, reason: str = "") -> StatusError:
    """403 in the words of the real server."""
    because = f": {reason}" if reason else ""
    if wanted.path:
        message = f'forbidden: User "{wanted.user.name}" cannot {wanted.verb} path "{wanted.path}"{because}'
        return StatusError(403, "Forbidden", message, {})
    where = f'in the namespace "{wanted.namespace}"' if wanted.namespace else "at the cluster scope"
    why = f'User "{wanted.user.name}" cannot {wanted.verb} resource "{wanted.whole}" in API group "{wanted.group}" {where}'
    return errors.forbidden(wanted.group, wanted.resource, wanted.name, why + because)
