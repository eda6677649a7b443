"""Tokens of service accounts: made for a TokenRequest, and read again at every door.

A token is bound to its account's uid and, when asked, to a pod, a secret or a node: it ends when that does, however long it
was to live, because each request looks them up in the API's own cache.
Source: Kubernetes documentation, "Managing Service Accounts", "Service account tokens"; API reference, TokenRequest and
TokenReview; kube-apiserver's pkg/serviceaccount (claims) and pkg/registry/core/serviceaccount/storage/token.go (words).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import structlog
from cryptography.hazmat.primitives.asymmetric import ec

from bus.kube import decoding, errors, times
from bus.kube.auth import jws, users
from bus.kube.auth.impersonation import AUTHENTICATION
from bus.kube.auth.jws import BadToken
from bus.kube.auth.users import User
from bus.kube.catalog import Resource, Version
from bus.kube.errors import Cause
from bus.kube.kinds.base import at
from bus.kube.storage import Object, Reader
from bus.kube.targets import Target, Write
from schemas import times as clock
from schemas.subjects import ObjectKey

log = structlog.get_logger(__name__)

ISSUER = "https://kubernetes.default.svc.cluster.local"  # kubeadm's, and what in-cluster programs expect as an audience
LIFE_S_DEFAULT = 3600
LIFE_S_MIN, LIFE_S_MAX = 600, 365 * 86_400
WARN_LIFE_S = 3607  # what admission asks for a pod: given a year, because programs of before 1.21 read the file once
LEEWAY_S = 60  # after an object's deletion time its tokens go on for this long, as the real server has it
CACHED_MAX = 4096  # tokens whose signature was checked; beyond it all are checked again
PRIVATE = "kubernetes.io"  # the claim with everything that is Kubernetes' own
EXTRA = "authentication.kubernetes.io/"
ACCOUNTS, PODS, SECRETS, NODES = ("", "serviceaccounts"), ("", "pods"), ("", "secrets"), ("", "nodes")


class Keys(Protocol):
    """Whose signatures count: by key id."""

    def signing(self, now_us: int) -> tuple[str, ec.EllipticCurvePrivateKey]: ...
    def verifying(self, now_us: int) -> Mapping[str, ec.EllipticCurvePublicKey]: ...


class Issuer:
    """``now_us``: wall time.  ``names``: the first one is what tokens are issued under, the others still count.  They are
    the API's own audiences too: what a token is for when nobody says."""

    def __init__(self, keys: Keys, reader: Reader, now_us: Callable[[], int], *, names: Sequence[str] = (ISSUER,)) -> None:
        self._keys, self._reader, self._now_us = keys, reader, now_us
        self.name, self.audiences = names[0], tuple(names)
        self._checked: dict[str, tuple[str, jws.Claims]] = {}

    # --- making ------------------------------------------------------------------------------------------------

    def grant(self, target: Target, raw: Any, kind: tuple[Resource, Version], how: Write) -> Object:
        """The TokenRequest ``raw`` for the account of ``target``, answered.  Raises StatusError 400, 404, 409, 422."""
        asked = decoding.read(raw, *kind, validation=how.validation, warnings=how.warnings)
        meta = asked["metadata"]
        if meta.get("name") and meta["name"] != target.name:
            why = "must match the service account name if specified"
            raise errors.bad_request(f"metadata.name: Invalid value: {errors.show(meta['name'])}: {why}")
        spec = asked.setdefault("spec", {})
        spec["audiences"] = spec.get("audiences") or list(self.audiences)
        spec.setdefault("expirationSeconds", LIFE_S_DEFAULT)
        if causes := _validate(spec):
            raise errors.invalid(AUTHENTICATION, "TokenRequest", target.name, causes)
        account = self._reader.get(target.key)
        if account is None:
            raise target.not_found()
        life_s = min(spec["expirationSeconds"], LIFE_S_MAX)
        spec["expirationSeconds"] = life_s
        bound = self._bound(target, spec.get("boundObjectRef"))
        token, expires_s = self.issue(account.object, spec["audiences"], life_s, bound)
        log.info(
            "token.granted",
            account=f"{target.namespace}/{target.name}",
            by=how.origin.actor,
            audiences=spec["audiences"],
            life_s=life_s,
            bound=[f"{what}/{obj['metadata']['name']}" for what, obj in bound.items()],
        )
        now = times.of_micros(self._now_us())
        asked["metadata"] = {"name": target.name, "namespace": target.namespace, "creationTimestamp": now}
        asked["status"] = {"token": token, "expirationTimestamp": times.of_micros(expires_s * clock.US_PER_S)}
        return asked

    def issue(self, account: Object, audiences: Sequence[str], life_s: int, bound: Mapping[str, Object]) -> tuple[str, int]:
        """(token, when it is to be replaced in seconds since 1970).  ``bound``: pod, secret, node, as they are stored."""
        now_s = self._now_us() // clock.US_PER_S
        private: Object = {"namespace": account["metadata"]["namespace"], "serviceaccount": _ref(account)}
        private |= {what: _ref(obj) for what, obj in bound.items()}
        expires_s = ends_s = now_s + life_s
        if life_s == WARN_LIFE_S and "pod" in bound and set(audiences) <= set(self.audiences):
            ends_s = now_s + LIFE_S_MAX
            private["warnafter"] = expires_s
        return self._signed(account, {"aud": list(audiences), "exp": ends_s, "iat": now_s, "nbf": now_s}, private), expires_s

    def legacy(self, account: Object, secret: Object) -> str:
        """The token of a Secret of type ``kubernetes.io/service-account-token``: it ends with its secret, and not before."""
        now_s = self._now_us() // clock.US_PER_S
        private: Object = {"namespace": account["metadata"]["namespace"], "serviceaccount": _ref(account)}
        private["secret"] = _ref(secret)
        return self._signed(account, {"aud": list(self.audiences), "iat": now_s, "nbf": now_s}, private)

    def _signed(self, account: Object, claims: jws.Claims, private: Object) -> str:
        meta = account["metadata"]
        claims |= {"iss": self.name, "jti": str(uuid.uuid4()), "sub": users.account_name(meta["namespace"], meta["name"])}
        return jws.sign({**claims, PRIVATE: private}, *self._keys.signing(self._now_us()))

    def _bound(self, target: Target, ref: Object | None) -> dict[str, Object]:
        """The objects that a reference means.  Raises StatusError 400, 404, 409."""
        if ref is None:
            return {}
        version, kind, name = ref.get("apiVersion") or "", ref.get("kind") or "", ref.get("name") or ""
        if version != "v1" or kind not in ("Pod", "Secret", "Node"):
            raise errors.bad_request(f"cannot bind token to object of type {version}, Kind={kind}")
        group, resource = {"Pod": PODS, "Secret": SECRETS, "Node": NODES}[kind]
        stored = self._reader.get(ObjectKey(group, resource, "" if kind == "Node" else target.namespace, name))
        if stored is None:
            raise errors.not_found(group, resource, name)
        found, uid = stored.object, stored.object["metadata"].get("uid")
        if ref.get("uid") and ref["uid"] != uid:
            why = f"the UID in the bound object reference ({ref['uid']}) does not match the UID in record."
            why += " The object might have been deleted and then recreated"
            raise errors.conflict(group, kind, name, why)
        if kind == "Pod":
            if (at(found, "spec", "serviceAccountName") or "default") != target.name:
                why = "running with different serviceaccount name."
                raise errors.bad_request(f'cannot bind token for serviceaccount "{target.name}" to pod {why}')
            return self.of_pod(found)
        return {kind.lower(): found}

    def of_pod(self, pod: Object) -> dict[str, Object]:
        """What a pod's token is bound to: the pod, and its node when it has one."""
        node = self._reader.get(ObjectKey(*NODES, "", str(at(pod, "spec", "nodeName") or "")))
        return {"pod": pod, **({"node": node.object} if node is not None else {})}

    def key_id(self) -> str:
        """The key that signs now."""
        return self._keys.signing(self._now_us())[0]

    def key_of(self, token: str) -> str:
        """The key that a token names, whether it is good or not.  Raises ValueError for what is no token."""
        return jws.key_of(token)

    # --- reading -----------------------------------------------------------------------------------------------

    def user(self, token: str, audiences: Sequence[str] = ()) -> tuple[User, list[str]]:
        """Whose token it is, and for which of ``audiences`` (the API's own without any).  Raises BadToken."""
        now_us = self._now_us()
        claims = self._claims(token, now_us)
        wanted = tuple(audiences) or self.audiences
        mine = claims.get("aud")
        mine = [mine] if isinstance(mine, str) else mine if isinstance(mine, list) else []
        shared = [a for a in wanted if a in mine]
        if not shared:
            raise BadToken("it is for another audience")
        _in_time(claims, now_us // clock.US_PER_S)
        if claims.get("iss") not in self.audiences:
            raise BadToken("it is another issuer's")
        private, namespace, name = self._account(claims, now_us)
        extra: dict[str, tuple[str, ...]] = {}
        for what, kind, space in (("secret", SECRETS, namespace), ("pod", PODS, namespace), ("node", NODES, "")):
            ref = private.get(what)
            if ref is None:
                continue
            named, uid = str(at(ref, "name") or ""), str(at(ref, "uid") or "")
            if (
                what != "node" or "pod" not in private
            ):  # of a pod's token the node is only told: the pod says whether it lives
                self._alive(what, ObjectKey(*kind, space, named), uid, now_us)
            if what != "secret":
                extra |= {f"{EXTRA}{what}-name": (named,), f"{EXTRA}{what}-uid": (uid,)}
        if claims.get("jti"):
            extra[f"{EXTRA}credential-id"] = (f"JTI={claims['jti']}",)
        groups = (*users.account_groups(namespace), users.AUTHENTICATED)
        uid = str(at(private, "serviceaccount", "uid") or "")
        return User(users.account_name(namespace, name), groups, uid, extra), shared

    def key_counts(self, token: str) -> bool:
        """Whether the key that a token of our own says it was signed with is still in use."""
        try:
            return jws.key_of(token) in self._keys.verifying(self._now_us())
        except BadToken:
            return False

    def _account(self, claims: jws.Claims, now_us: int) -> tuple[Object, str, str]:
        """(what is Kubernetes' own, namespace, name) of claims whose account is there.  Raises BadToken."""
        private = claims.get(PRIVATE)
        private = private if isinstance(private, dict) else {}
        namespace, name = str(private.get("namespace") or ""), str(at(private, "serviceaccount", "name") or "")
        if claims.get("sub") != users.account_name(namespace, name):
            raise BadToken("its subject is not its account")
        self._alive("service account", ObjectKey(*ACCOUNTS, namespace, name), at(private, "serviceaccount", "uid"), now_us)
        return private, namespace, name

    def _claims(self, token: str, now_us: int) -> jws.Claims:
        """Of a token with a good signature.  The signature is checked once; whether its key counts, every time."""
        keys = self._keys.verifying(now_us)
        known = self._checked.get(token)
        if known is not None:
            if known[0] not in keys:
                raise BadToken("the key that signed it was retired")
            return known[1]
        found = jws.verify(token, keys)
        if len(self._checked) >= CACHED_MAX:
            self._checked.clear()
        self._checked[token] = found
        return found[1]

    def _alive(self, what: str, key: ObjectKey, uid: Any, now_us: int) -> None:
        stored = self._reader.get(key)
        if stored is None:
            raise BadToken(f"its {what} {key.name} is gone")
        meta = stored.object["metadata"]
        if meta.get("uid") != uid:
            raise BadToken(f"its {what} {key.name} is another one now")
        deleted = clock.micros(meta.get("deletionTimestamp"))
        if deleted is not None and deleted + LEEWAY_S * clock.US_PER_S < now_us:
            raise BadToken(f"its {what} {key.name} has been deleted")

    # --- who may check -----------------------------------------------------------------------------------------

    def key_set(self) -> Object:
        return jws.key_set(self._keys.verifying(self._now_us()))

    def configuration(self, host: str) -> Object:
        """The OpenID Connect discovery document; ``host`` is where this server is reached."""
        return {
            "issuer": self.name,
            "jwks_uri": f"https://{host}/openid/v1/jwks",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [jws.ALGORITHM],
        }


def _ref(obj: Object) -> Object:
    return {"name": obj["metadata"]["name"], "uid": obj["metadata"].get("uid", "")}


def _validate(spec: Object) -> list[Cause]:
    seconds, field = spec["expirationSeconds"], "spec.expirationSeconds"
    if seconds < LIFE_S_MIN:
        return [errors.bad_value(field, seconds, "may not specify a duration less than 10 minutes")]
    if seconds > 1 << 32:
        return [errors.bad_value(field, seconds, "may not specify a duration larger than 2^32 seconds")]
    return []


def _in_time(claims: jws.Claims, now_s: int) -> None:
    ends, begins = claims.get("exp"), claims.get("nbf", 0)
    if ends is None and at(claims, PRIVATE, "secret") is None:
        raise BadToken("it never ends")
    if ends is not None and (not isinstance(ends, int) or now_s >= ends):
        raise BadToken("it has expired")
    if not isinstance(begins, int) or now_s + LEEWAY_S < begins:  # another server's clock may be ahead
        raise BadToken("it is not valid yet")
