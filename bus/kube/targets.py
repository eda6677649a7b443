"""What a request is about, how a write is to be done, and which objects a list means."""

from __future__ import annotations

from dataclasses import dataclass, field

from bus.kube import errors, gotext, selectors
from bus.kube.auth.users import User
from bus.kube.catalog import Resource, Version
from bus.kube.errors import StatusError
from bus.kube.kinds import strategy
from bus.kube.storage import Object, Origin
from schemas.subjects import ObjectKey


@dataclass(frozen=True, slots=True)
class Write:
    """How a write is to be done.  ``manager`` is the fieldManager, ``validation`` the fieldValidation (Ignore, Warn,
    Strict); what a client should be warned of is added to ``warnings``.  ``user`` is who asked; None is one of our own
    components, which may grant what it likes."""

    origin: Origin
    dry_run: bool = False
    manager: str = ""
    force: bool = False
    validation: str = "Ignore"
    warnings: list[str] = field(default_factory=list)
    user: User | None = None
    options: Object = field(default_factory=dict)  # of the request, as it said them


@dataclass(frozen=True, slots=True)
class Target:
    """What a request is about."""

    resource: Resource
    version: Version
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def key(self) -> ObjectKey:
        res = self.resource
        return ObjectKey(*res.place, self.namespace if res.namespaced else "", self.name)

    def not_found(self) -> StatusError:
        return errors.not_found(self.resource.group, self.resource.resource, self.name)

    def conflict(self, why: str = "") -> StatusError:
        return errors.conflict(self.resource.group, self.resource.resource, self.name, why)


class Filter:
    """A label and a field selector over one resource.  Raises StatusError 400 for a text that is none."""

    def __init__(self, resource: Resource, version: Version, labels: str = "", fields: str = "") -> None:
        rules = strategy(resource)
        allowed = {"metadata.name", "metadata.namespace", *rules.fields, *version.selectable}
        try:
            self.labels = selectors.parse_labels(labels)
        except selectors.SelectorError as e:
            raise errors.bad_request(str(e)) from e
        try:
            self.fields = selectors.parse_fields(fields, allowed)
        except selectors.UnknownField as e:
            known = 'is not a known field selector: only "metadata.name", "metadata.namespace"'
            own = bool(rules.fields) or resource.custom
            raise errors.bad_request(f"field label not supported: {e}" if own else f"{gotext.quoted(str(e))} {known}") from e
        except selectors.SelectorError as e:
            raise errors.bad_request(str(e)) from e
        self._special = rules.special

    def matches(self, obj: Object) -> bool:
        meta = obj.get("metadata", {})
        return self.labels.matches(meta.get("labels")) and self.fields.matches(obj, self._special)

    def __bool__(self) -> bool:
        return bool(self.labels) or bool(self.fields)
