"""Who knocks: a bearer token is a service account's (a signed one) or one that the server knows; and the review that asks.

``TokenReview`` answers for other servers, which were given a token and can't judge it (authentication.k8s.io/v1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bus.kube import errors
from bus.kube.auth import jws
from bus.kube.auth.account_tokens import Issuer
from bus.kube.auth.users import User
from bus.kube.kinds.base import at
from bus.kube.storage import Object
from bus.kube.targets import Target

Known = Callable[[Mapping[str, str]], User | None]  # the user of a request's headers, None refuses it


class Doors:
    """``known`` is asked for every token that is not of a service account."""

    def __init__(self, known: Known, issuer: Issuer) -> None:
        self._known, self._issuer = known, issuer

    def authenticate(self, headers: Mapping[str, str]) -> User | None:
        """The user of a request's headers, None for a token that is wrong."""
        token = _bearer(headers)
        if not jws.looks_like(token):
            return self._known(headers)
        try:
            return self._issuer.user(token)[0]
        except jws.BadToken:
            return self._known(headers)

    def review(self, user: User, target: Target, obj: Object) -> Object:
        """The status of a TokenReview.  Raises StatusError 400."""
        token, wanted = at(obj, "spec", "token") or "", at(obj, "spec", "audiences") or []
        if not token:
            raise errors.bad_request("token is required for TokenReview in authentication")
        try:
            found, audiences = self._issuer.user(token, wanted)
        except jws.BadToken as e:
            whose = self._known({"Authorization": f"Bearer {token}"})
            shared = [a for a in wanted or self._issuer.audiences if a in self._issuer.audiences]
            if whose is None or not shared:
                return {"user": {}, "error": f"[invalid bearer token, {e}]"}
            found, audiences = whose, shared
        return {"authenticated": True, "user": found.info(), "audiences": audiences}


def _bearer(headers: Mapping[str, str]) -> str:
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
