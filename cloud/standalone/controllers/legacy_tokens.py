"""Secrets of type ``kubernetes.io/service-account-token``: the way to a token that doesn't end by itself.

They are filled with a token, the authority of the API and the namespace, and they go with their account.  When another key
signs, they are signed anew, so that a key which is no longer used can be retired.
Source: Kubernetes documentation, "Managing Service Accounts" (token controller), "Create a long-lived API token".
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Protocol

from cloud.standalone.controllers import base
from cloud.standalone.controllers.base import SERVICEACCOUNTS, Controller, Kind, Object, Plan, Seen, View
from schemas import times
from schemas.pod_tokens import SECRET_TYPE
from schemas.subjects import ObjectKey

NAME = "serviceaccount-token"
SECRETS: Kind = ("", "secrets")
ACCOUNT, UID = "kubernetes.io/service-account.name", "kubernetes.io/service-account.uid"
LOOK_US = 60 * times.US_PER_S  # whether its key still signs


class Issuer(Protocol):
    """Signs (bus/kube/auth/account_tokens.py); which key, and when, is its business."""

    def key_id(self) -> str: ...
    def key_of(self, token: str) -> str: ...
    def legacy(self, account: Object, secret: Object) -> str: ...


def _is_token(secret: Object) -> bool:
    return secret.get("type") == SECRET_TYPE


def concerns(view: View, seen: Seen | None, old: Seen | None) -> Iterable[ObjectKey]:
    s = seen or old
    assert s is not None
    if (s.key.group, s.key.resource) == SECRETS:
        if seen is not None and _is_token(seen.object):
            yield seen.key
    elif seen is None or old is None:
        for secret in view.list(SECRETS, s.key.namespace):
            if _is_token(secret.object) and base.notes(secret.object).get(ACCOUNT) == s.key.name:
                yield secret.key


def controller(issuer: Issuer | None, ca: str) -> Controller:
    def reconcile(view: View, key: ObjectKey, now_us: int) -> Plan:
        secret = view.get(key)
        if issuer is None or secret is None or base.deleting(secret.object) or not _is_token(secret.object):
            return Plan()
        notes = base.notes(secret.object)
        account = view.get(ObjectKey(*SERVICEACCOUNTS, key.namespace, notes.get(ACCOUNT, "")))
        if account is None or notes.get(UID, uid := base.uid(account.object)) != uid:
            return Plan([base.delete(secret, account)])
        data = dict(secret.object.get("data") or {})
        wanted = {"namespace": _text(key.namespace), **({"ca.crt": _text(ca)} if ca else {})}
        if _key_of(issuer, data.get("token")) != issuer.key_id():
            wanted["token"] = _text(issuer.legacy(account.object, secret.object))
        if {**data, **wanted} == data and UID in notes:
            return Plan([], LOOK_US)
        filled = base.with_meta(secret.object, annotations={**notes, UID: uid})
        return Plan([base.update(secret, {**filled, "data": {**data, **wanted}}, account)], LOOK_US)

    return Controller(NAME, (SECRETS, SERVICEACCOUNTS), concerns, reconcile)


def _text(value: str) -> str:
    return base64.b64encode(value.encode()).decode()


def _key_of(issuer: Issuer, encoded: object) -> str:
    """The id of the key that signed a token in a secret, "" for none."""
    try:
        return issuer.key_of(base64.b64decode(str(encoded or "")).decode())
    except ValueError:
        return ""
