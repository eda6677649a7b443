"""Events: one store, spoken as core's kind and as that of events.k8s.io (pkg/apis/core/validation/events.go)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from bus.kube import errors, names
from bus.kube.errors import Cause
from bus.kube.kinds.base import Context, Strategy, at
from bus.kube.selectors import FieldGetter, field_of
from bus.kube.storage import Object

TEXT_CHARS_MAX, NOTE_BYTES_MAX = 128, 1024
_ABOUT = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
_NAMESPACE = "does not match event.namespace"


def _about(field: str) -> FieldGetter:
    return lambda o: field_of(o, f"involvedObject.{field}")


class Events(Strategy):
    """Events are found by what they are about."""

    create_on_update = True
    fields: tuple[str, ...] = (
        *(f"involvedObject.{f}" for f in _ABOUT),
        *("reason", "reportingComponent", "source", "type"),
    )
    special: ClassVar[Mapping[str, FieldGetter]] = {
        "source": lambda o: field_of(o, "source.component") or field_of(o, "reportingComponent")
    }

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        about, own = at(obj, "involvedObject", "namespace") or "", obj["metadata"].get("namespace", "")
        if about != own and (about or own != "default"):
            return [errors.bad_value("involvedObject.namespace", about, _NAMESPACE)]
        return _modern(obj, "reportingComponent", "message") if obj.get("eventTime") else []

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        return self.validate(obj, ctx)


class ModernEvents(Events):
    """Those that are spoken as events.k8s.io/v1; the object is in core's form nevertheless."""

    fields = (*(f"regarding.{f}" for f in _ABOUT), "reason", "reportingController", "type")
    special: ClassVar[Mapping[str, FieldGetter]] = {
        **{f"regarding.{field}": _about(field) for field in _ABOUT},
        "reportingController": lambda o: field_of(o, "reportingComponent"),
    }

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        about, own = at(obj, "involvedObject", "namespace") or "", obj["metadata"].get("namespace", "")
        if about != own and (about or own not in ("default", "kube-system")):
            return [errors.bad_value("regarding.namespace", about, _NAMESPACE)]
        out = [] if obj.get("eventTime") else [errors.required("eventTime")]
        if obj.get("type") not in ("Normal", "Warning"):
            out.append(errors.bad_value("type", "", f"has invalid value: {obj.get('type') or ''}"))
        for old in ("firstTimestamp", "lastTimestamp", "count", "source"):
            if obj.get(old):
                name = "deprecated" + old[0].upper() + old[1:]
                out.append(errors.bad_value(name, obj[old], "needs to be unset"))
        return out + _modern(obj, "reportingController", "note")

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        """Only a series goes on."""
        out = [c for c in self.validate(obj, ctx) if not c.field.startswith("deprecated")]
        fixed = ("involvedObject", "reason", "message", "type", "eventTime", "action", "reportingComponent", "related")
        for field in (*fixed, "reportingInstance"):
            if obj.get(field) != old.get(field):
                out.append(errors.bad_value(field, obj.get(field), "field is immutable"))
        return out


def _modern(obj: Object, controller: str, note: str) -> list[Cause]:
    """Of every event with a time of its own."""
    out: list[Cause] = []
    reporter = obj.get("reportingComponent") or ""
    if not reporter:
        out.append(errors.required(controller))
    elif problem := names.label_key(reporter):
        out.append(errors.bad_value(controller, reporter, problem))
    for field in ("reportingInstance", "action", "reason"):
        value = obj.get(field) or ""
        if not value:
            out.append(errors.required(field))
        elif len(value) > TEXT_CHARS_MAX:
            out.append(errors.bad_value(field, "", f"can have at most {TEXT_CHARS_MAX} characters"))
    if len((obj.get("message") or "").encode()) > NOTE_BYTES_MAX:
        out.append(errors.bad_value(note, "", f"can have at most {NOTE_BYTES_MAX} characters"))
    return out
