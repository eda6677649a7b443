"""The rules of ``metadata``: what a create sets, what an update may change, what is invalid.

Source: apiserver's pkg/registry/rest (BeforeCreate, BeforeUpdate) and apimachinery's validation of ObjectMeta.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable

from bus.kube import errors, names
from bus.kube.catalog import Resource
from bus.kube.errors import Cause
from bus.kube.kinds.base import Strategy
from bus.kube.storage import Object

SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"  # no vowels, no look-alikes: apimachinery's util/rand
SUFFIX_CHARS = 5
GENERATED_BASE_MAX = 63 - SUFFIX_CHARS
ANNOTATIONS_BYTES_MAX = 256 << 10
FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"
Random = Callable[[int], bytes]


def generated(prefix: str, random: Random) -> str:
    letters = "".join(SUFFIX_LETTERS[b % len(SUFFIX_LETTERS)] for b in random(SUFFIX_CHARS))
    return prefix[:GENERATED_BASE_MAX] + letters


def for_create(obj: Object, resource: Resource, namespace: str, strategy: Strategy, *, now: str, random: Random) -> None:
    """Complete the metadata of a new object, in place; raises StatusError 400."""
    meta = obj["metadata"]
    if meta.pop("resourceVersion", "") not in ("", "0"):
        raise errors.bad_request("resourceVersion should not be set on objects to be created")
    check_namespace(meta, resource, namespace)
    if not meta.get("name") and meta.get("generateName"):
        meta["name"] = generated(meta["generateName"], random)
    for field in ("selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"):
        meta.pop(field, None)
    meta["uid"] = str(uuid.UUID(bytes=random(16), version=4))
    meta["creationTimestamp"] = now
    if strategy.generation:
        meta["generation"] = 1


def check_namespace(meta: Object, resource: Resource, namespace: str) -> None:
    """Raises StatusError 400."""
    given = meta.get("namespace") or ""
    if given and given != namespace:
        raise errors.bad_request("the namespace of the provided object does not match the namespace sent on the request")
    _placed(meta, resource, namespace)


def _placed(meta: Object, resource: Resource, namespace: str) -> None:
    if resource.namespaced:
        meta["namespace"] = namespace
    else:
        meta.pop("namespace", None)


def check_address(meta: Object, resource: Resource, namespace: str, name: str) -> None:
    """Of an update: it is about the object that the path names.  Raises StatusError 400."""
    given, space = meta.get("name") or "", meta.get("namespace") or ""
    if not given:
        why = "name must be provided"
        raise errors.bad_request(f"the name of the object ({name} based on URL) was undeterminable: {why}")
    if given != name:
        raise errors.bad_request(f"the name of the object ({given[:80]}) does not match the name on the URL ({name})")
    if resource.namespaced and space and space != namespace:
        raise errors.bad_request("the namespace of the provided object does not match the namespace sent on the request")
    _placed(meta, resource, namespace)


# Where the real server keeps a kind, when that isn't under the resource's name: its answer says so.
_PREFIXES = {"nodes": "minions", "services": "services/specs", "endpoints": "services/endpoints", "ingresses": "ingress"}


def check_uid(obj: Object, old: Object, resource: Resource) -> None:
    """Of a whole object that is sent: raises StatusError 409 when it is about another one of the same name."""
    uid, have, meta = obj["metadata"].get("uid"), old["metadata"].get("uid"), old["metadata"]
    if not uid or uid == have:
        return
    prefix = f"{resource.group}/{resource.resource}" if resource.custom else resource.resource
    parts = ["/registry", _PREFIXES.get(prefix, prefix), *([meta["namespace"]] if resource.namespaced else []), meta["name"]]
    why = f"StorageError: invalid object, Code: 4, Key: {'/'.join(parts)}, ResourceVersion: 0, AdditionalErrorMsg: "
    why += f"Precondition failed: UID in precondition: {uid}, UID in object meta: {have}"
    raise errors.conflict(resource.group, resource.resource, meta["name"], why)


def for_update(obj: Object, old: Object, resource: Resource) -> None:
    """What an update may not change is as it was, in place.  Raises StatusError 422 when a patch changes the UID."""
    meta, before = obj["metadata"], old["metadata"]
    if meta.get("uid") and meta["uid"] != before.get("uid"):
        cause = errors.bad_value("metadata.uid", meta["uid"], "field is immutable")
        raise errors.invalid(resource.group, resource.kind, before["name"], [cause, cause])
    fixed = ("uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds", "generateName")
    for field in (*fixed, "name", "namespace"):
        if field in before:
            meta[field] = before[field]
        else:
            meta.pop(field, None)
    meta.pop("selfLink", None)
    if "managedFields" in before and "managedFields" not in meta:
        meta["managedFields"] = before["managedFields"]


def validate(obj: Object, name_problem: Callable[[str], str]) -> list[Cause]:
    meta, out = obj["metadata"], []
    name = meta.get("name", "")
    if not name:
        out.append(errors.required("metadata.name", "name or generateName is required"))
    elif problem := name_problem(name):
        out.append(errors.bad_value("metadata.name", name, problem))
    for key, value in meta.get("labels", {}).items():
        if problem := names.label_key(key):
            out.append(errors.bad_value("metadata.labels", key, problem))
        if problem := names.label_value(value):
            out.append(errors.bad_value("metadata.labels", value, problem))
    total = 0
    for key, value in meta.get("annotations", {}).items():
        total += len(key) + len(value)
        if problem := names.label_key(key.lower()):
            out.append(errors.bad_value("metadata.annotations", key, problem))
    if total > ANNOTATIONS_BYTES_MAX:
        why = f"Too long: may not be more than {ANNOTATIONS_BYTES_MAX} bytes"
        out.append(Cause("metadata.annotations", "FieldValueTooLong", why))
    for finalizer in meta.get("finalizers", []):
        if problem := names.label_key(finalizer):
            out.append(errors.bad_value("metadata.finalizers", finalizer, problem))
        elif "/" not in finalizer and finalizer not in (FOREGROUND, ORPHAN, "kubernetes") and "." not in finalizer:
            why = "name is neither a standard finalizer name nor is it fully qualified"
            out.append(errors.bad_value("metadata.finalizers", finalizer, why))
    if {FOREGROUND, ORPHAN} <= set(meta.get("finalizers", [])):
        why = f"finalizer {ORPHAN} and {FOREGROUND} cannot be both set"
        out.append(errors.bad_value("metadata.finalizers", "", why))
    controllers = 0
    for i, owner in enumerate(meta.get("ownerReferences", [])):
        controllers += bool(owner.get("controller"))
        for field in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(field):
                out.append(errors.bad_value(f"metadata.ownerReferences[{i}].{field}", "", f"{field} must not be empty"))
    if controllers > 1:
        out.append(errors.bad_value("metadata.ownerReferences", "", "Only one reference can have Controller set to true"))
    return out


def validate_update(obj: Object, old: Object) -> list[Cause]:
    if not old["metadata"].get("deletionTimestamp"):
        return []
    added = set(obj["metadata"].get("finalizers", [])) - set(old["metadata"].get("finalizers", []))
    if not added:
        return []
    why = f"no new finalizers can be added if the object is being deleted, found new finalizers {sorted(added)}"
    return [errors.not_permitted("metadata.finalizers", why)]
