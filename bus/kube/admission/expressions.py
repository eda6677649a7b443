"""What expressions of webhooks and admission policies can name: the request, the object before and after, its namespace, and
who may do what.

The authorizer is asked by a chain of calls (Kubernetes CEL libraries, "Authorizer"); each step of the chain is a map here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bus.kube.admission.asked import Asked, Form
from bus.kube.storage import Object, Reader
from schemas.subjects import ObjectKey

_SPACE_FIELDS = ("name", "generateName", "namespace", "labels", "annotations", "uid", "creationTimestamp", "generation")


class Asker:
    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def variables(self, asked: Asked, form: Form, params: Object | None = None) -> dict[str, Any]:
        """By name; the object must have been seen in ``form``."""
        new, old = asked.shown[form]
        return {
            "object": new,
            "oldObject": old,
            "request": self.request(asked, form),
            "namespaceObject": self.namespace(asked),
            "params": params,
        }

    @staticmethod
    def request(asked: Asked, form: Form) -> Mapping[str, Any]:
        """Without the objects, which are variables of their own; every field is there, as in a typed message."""
        raw = asked.request(form, "")
        kept = {k: v for k, v in raw.items() if k not in ("object", "oldObject", "uid")}
        blank: Object = {"name": "", "namespace": "", "subResource": "", "requestSubResource": ""}
        user = {"username": "", "uid": "", "groups": [], "extra": {}, **asked.user()}
        return {**blank, **kept, "userInfo": user}

    def namespace(self, asked: Asked) -> Object | None:
        """None for what is in none, and for namespaces themselves."""
        if not asked.namespace or (asked.form.group, asked.form.resource) == ("", "namespaces"):
            return None
        stored = self._reader.get(ObjectKey("", "namespaces", "", asked.namespace))
        if stored is None:
            return None
        space = stored.object
        meta = {k: v for k, v in space["metadata"].items() if k in _SPACE_FIELDS}
        return {"metadata": meta, "spec": space.get("spec") or {}, "status": space.get("status") or {}}
