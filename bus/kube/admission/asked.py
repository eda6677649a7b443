"""One request as admission sees it: what is to be done, by whom, and the object before and after.  Pure.

Source: kubernetes pkg/admission/attributes.go, and staging's api/admission/v1/types.go for the form in which a webhook
gets it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

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


class Eyes(Protocol):
    """How an object looks in another version, and what it is when it comes back from there."""

    async def show(self, obj: Object, asked: Asked, form: Form) -> Object: ...

    async def read(self, obj: Any, asked: Asked, form: Form) -> Object:
        """Raises StatusError 500 for what is no such object."""


@dataclass(slots=True)
class Asked:
    """``forms``: those in which the request can be seen, the first is the one in which it was asked.  ``object`` and ``old``
    are in the first form.  ``shown`` holds both in every form that somebody looked at."""

    operation: str
    forms: tuple[Form, ...]
    namespace: str
    name: str
    subresource: str
    object: Object | None
    old: Object | None
    how: Write
    options: Object
    eyes: Eyes
    shown: dict[Form, tuple[Object | None, Object | None]] = field(default_factory=dict)
    # of webhooks that change the object:
    changed: bool = False
    repeated: bool = False
    earlier: set[tuple[str, int]] = field(default_factory=set)  # asked already, and willing to be asked again
    again: set[tuple[str, int]] = field(default_factory=set)

    async def see(self, form: Form) -> None:
        """Have both objects at hand in a form."""
        if form not in self.shown:
            new = None if self.object is None else await self.eyes.show(self.object, self, form)
            old = None if self.old is None else await self.eyes.show(self.old, self, form)
            self.shown[form] = (new, old)

    async def replace(self, form: Form, new: Any) -> bool:
        """Somebody made ``new`` out of the object as it was shown; True when that changes anything."""
        read = await self.eyes.read(new, self, form)
        changed = read != self.object
        self.object = read
        self.shown.clear()
        return changed

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
