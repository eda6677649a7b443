"""The service account tokens of one pod, as they travel to its node: an object of its own beside the pod, of its name.

    {"apiVersion": "skerry.io/v1", "kind": "ServiceAccountTokens", "metadata": {"name", "namespace", "uid": the pod's},
     "tokens": [{"audience", "token", "issued", "expires"}]}

``audience`` "" is the API server's own; times are RFC 3339.  The Kubernetes API has no such
resource: nobody can ask for it there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from schemas.subjects import ObjectKey

GROUP, RESOURCE = "skerry.io", "serviceaccounttokens"
SECRET_TYPE = "kubernetes.io/service-account-token"  # of a Secret that holds a token without an end
ROOT_CA = "kube-root-ca.crt"  # the config map with the API's authority, in every namespace
DEFAULT_LIFE_S = 3600  # ServiceAccountTokenProjection.expirationSeconds


@dataclass(frozen=True, slots=True)
class Asked:
    """One projected token of a pod."""

    audience: str
    life_s: int
    path: str


def key(namespace: str, pod: str) -> ObjectKey:
    return ObjectKey(GROUP, RESOURCE, namespace, pod)


def asked(source: Mapping[str, Any]) -> Asked | None:
    """What a source of a projected volume asks for; None for another kind of source."""
    token = source.get("serviceAccountToken")
    if not isinstance(token, dict):
        return None
    life, audience = token.get("expirationSeconds"), token.get("audience")
    life_s = life if isinstance(life, int) and not isinstance(life, bool) and life > 0 else DEFAULT_LIFE_S
    return Asked(audience if isinstance(audience, str) else "", life_s, str(token.get("path") or ""))


def asked_by(spec: Mapping[str, Any]) -> list[Asked]:
    """Every token that a pod's volumes project."""
    sources = (s for v in _maps(spec.get("volumes")) for s in _maps(_map(v.get("projected")).get("sources")))
    return [a for a in map(asked, sources) if a is not None]


def files(obj: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    """(pod's uid/audience, token) of an object; what has the wrong shape is left out."""
    uid = _map(obj.get("metadata")).get("uid")
    for t in _maps(obj.get("tokens")):
        audience, token = t.get("audience"), t.get("token")
        if isinstance(uid, str) and isinstance(audience, str) and isinstance(token, str):
            yield f"{uid}/{audience}", token.encode()


def _map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _maps(value: object) -> Iterable[Mapping[str, Any]]:
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []
