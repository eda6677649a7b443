"""One request as admission sees it: what is to be done, by whom, and the object before and after.  Pure.

Source: kubernetes pkg/admission/attributes.go, and staging's api/admission/v1/types.go for the form in which a webhook
gets it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bus.kube.storage import Object
from bus.kube.targets import Write

CREATE, UPDATE, DELETE, CONNECT = "CREATE", "UPDATE", "DELETE", "CONNECT"
GROUP = "admissionregistration.k8s.io"
EXEMPT = frozenset(  # nobody can lock themselves out of what locks them out
    f"{kind}{what}"
    for kind in ("Validating", "Mutating")
    for what in ("WebhookConfiguration", "AdmissionPolicy", "AdmissionPolicyBinding")
)


@dataclass(frozen=True, slots=True)
class Form:
    """A resource in one version, and the kind of what is sent to it."""

    group: str
    version: str
    resource: str
    kind: str
    kind_group: str
    kind_version: str

    def resource_json(self) -> dict[str, str]:
        return {"group": self.group, "version": self.version, "resource": self.resource}

    def kind_json(self) -> dict[str, str]:
        return {"group": self.kind_group, "version": self.kind_version, "kind": self.kind}


@dataclass(slots=True)
class Asked:
    """``objects`` and ``olds``: what the request is about in each form that it can be seen in; the first form is the
    one in which it was asked."""

    operation: str
    forms: tuple[Form, ...]
    namespace: str
    name: str
    subresource: str
    object: Object | None
    old: Object | None
    how: Write
    options: Object
    shown: dict[Form, tuple[Object | None, Object | None]] = field(default_factory=dict)

    @property
    def form(self) -> Form:
        return self.forms[0]

    @property
    def exempt(self) -> bool:
        return self.form.group == GROUP and self.form.kind in EXEMPT

    def request(self, form: Form, uid: str) -> Object:
        """The ``request`` of an AdmissionReview, in the order in which the real server writes it."""
        new, old = self.shown[form]
        sub = {"subResource": self.subresource} if self.subresource else {}
        asked = {"requestSubResource": self.subresource} if self.subresource else {}
        return {
            "uid": uid,
            "kind": form.kind_json(),
            "resource": form.resource_json(),
            **sub,
            "requestKind": self.form.kind_json(),
            "requestResource": self.form.resource_json(),
            **asked,
            **({"name": self.name} if self.name else {}),
            **({"namespace": self.namespace} if self.namespace else {}),
            "operation": self.operation,
            "userInfo": self.user(),
            "object": new,
            "oldObject": old,
            "dryRun": self.how.dry_run,
            "options": self.options or None,
        }

    def user(self) -> Mapping[str, Any]:
        """One of our own components has no groups: it is no user of the API."""
        return self.how.user.info() if self.how.user is not None else {"username": self.how.origin.actor}
