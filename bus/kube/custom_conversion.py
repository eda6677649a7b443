"""Custom resources whose versions a webhook converts: asked when an object is stored, or shown, in another version than it
is in.

What was converted is kept beside the object as it was, so that a list, a watch and a get of the same state ask once.  Many
objects go in one question.  Whoever shows objects has them ``prime``d first; showing itself never waits.

Source: Kubernetes "Versions in CustomResourceDefinitions", "Webhook conversion"; apiextensions-apiserver
pkg/apiserver/conversion/webhook_converter.go.
"""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

from bus.kube import decoding, structural
from bus.kube.admission import calls
from bus.kube.admission.calls import Caller, CallError
from bus.kube.catalog import Resource
from bus.kube.errors import StatusError
from bus.kube.storage import Object

GROUP, REVIEW = "apiextensions.k8s.io", "ConversionReview"
VERSIONS = ("v1", "v1beta1")
OBJECTS_AT_ONCE = 100  # of one question: some hundred kB, and some milliseconds of the webhook's time
KEPT_MAX = 4_096  # converted objects
NOBODY = "nobody here calls webhooks"


class ConversionError(StatusError):
    """500, without a reason, as the real server has it."""

    def __init__(self, message: str) -> None:
        super().__init__(500, "", message)

    def as_status(self) -> dict[str, Any]:
        return {k: v for k, v in super().as_status().items() if k != "reason"}


class Converter:
    """``caller`` None: whatever needs a webhook is refused."""

    def __init__(self, caller: Caller | None, uid: Callable[[], str] = lambda: str(uuid.uuid4())) -> None:
        self._caller, self._uid = caller, uid
        # by the identity of what was converted, which is held here and so is not another's
        self._kept: OrderedDict[tuple[int, str], tuple[Object, Object]] = OrderedDict()

    def shown(self, obj: Object, resource: Resource, version: str) -> Object:
        """In another version; what a webhook must convert was ``prime``d.  May share with ``obj``."""
        if not _foreign(obj, resource, version):
            return decoding.convert(obj, resource, version)
        kept = self._kept.get((id(obj), version))
        if kept is None:
            raise ConversionError(f"{_about(obj)} was not converted in time: try again")
        return kept[1]

    async def prime(self, objects: Iterable[Object], resource: Resource, version: str) -> None:
        """Have them at hand for ``shown``; at most KEPT_MAX at a time.  Raises StatusError 500."""
        if resource.conversion is None:
            return
        wanted = [o for o in objects if _foreign(o, resource, version)]
        found = {id(o): self._kept[id(o), version] for o in wanted if (id(o), version) in self._kept}
        missing = [o for o in wanted if id(o) not in found]
        for start in range(0, len(missing), OBJECTS_AT_ONCE):
            part = missing[start : start + OBJECTS_AT_ONCE]
            for obj, new in zip(part, await self._asked(part, resource, version), strict=True):
                found[id(obj)] = (obj, new)
        for number, pair in found.items():
            self._kept[number, version] = pair
            self._kept.move_to_end((number, version))
        while len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)

    async def convert(self, obj: Object, resource: Resource, version: str) -> Object:
        """One object, not kept.  Raises StatusError 500."""
        if not _foreign(obj, resource, version):
            return decoding.convert(obj, resource, version)
        return (await self._asked([obj], resource, version))[0]

    async def _asked(self, objects: list[Object], resource: Resource, version: str) -> list[Object]:
        about, wanted = _about(objects[0]), resource.api_version(version)
        webhook = resource.conversion or {}
        review_version = next((v for v in webhook.get("conversionReviewVersions") or () if v in VERSIONS), None)
        if review_version is None:
            raise ConversionError("no supported conversion review versions")
        if self._caller is None:
            raise ConversionError(f"{about} failed: {NOBODY}")
        uid = self._uid()
        request = {"uid": uid, "desiredAPIVersion": wanted, "objects": objects}
        body = {"kind": REVIEW, "apiVersion": f"{GROUP}/{review_version}", "request": request}
        try:
            answer = await self._caller.post(webhook.get("clientConfig") or {}, body, None)
            review = calls.review_of(answer, GROUP, review_version, REVIEW)
            found = _checked(review, uid, review_version)
        except CallError as e:
            raise ConversionError(f"{about} failed: {e}") from e
        if len(found) != len(objects):
            raise ConversionError(f"{about} returned {len(found)} objects, expected {len(objects)}")
        return [_taken(i, old, new, resource, version) for i, (old, new) in enumerate(zip(objects, found, strict=True))]


def _foreign(obj: Object, resource: Resource, version: str) -> bool:
    return resource.conversion is not None and obj.get("apiVersion") != resource.api_version(version)


def _about(obj: Object) -> str:
    return f"conversion webhook for {obj.get('apiVersion')}, Kind={obj.get('kind')}"


def _checked(review: Object, uid: str, version: str) -> list[Any]:
    """Raises CallError."""
    response = review.get("response")
    if not isinstance(response, dict):
        raise CallError("no response provided")
    if version == "v1" and response.get("uid") != uid:
        raise CallError(f'expected response.uid="{uid}", got "{response.get("uid") or ""}"')
    result = response.get("result") if isinstance(response.get("result"), dict) else {}
    status = (result or {}).get("status") or ""
    if status != "Success":
        raise CallError(str((result or {}).get("message") or f"response.result.status was '{status}', not 'Success'"))
    found = response.get("convertedObjects")
    return found if isinstance(found, list) else []


def _taken(index: int, old: Object, new: Any, resource: Resource, version: str) -> Object:
    """What came back, when it is the same object; only its labels and annotations may be others.  Raises StatusError."""
    about, wanted = _about(old), resource.api_version(version)
    if not isinstance(new, dict) or not isinstance(new.get("metadata"), dict):
        raise ConversionError(f"{about} returned invalid metadata: missing metadata in converted object")
    if new.get("apiVersion") != wanted:
        why = f"invalid groupVersion (expected {wanted}, received {new.get('apiVersion') or ''})"
        raise ConversionError(f"{about} returned invalid object at index {index}: {why}")
    if new.get("kind") != old.get("kind"):
        why = f"invalid kind (expected {old.get('kind')}, received {new.get('kind') or ''})"
        raise ConversionError(f"{about} returned invalid object at index {index}: {why}")
    before, after = old["metadata"], new["metadata"]
    for field, word in (("name", "name"), ("namespace", "namespace"), ("uid", "UID")):
        if (before.get(field) or "") != (after.get(field) or ""):
            why = f"must have the same {word}: {before.get(field) or ''} != {after.get(field) or ''}"
            raise ConversionError(f"{about} returned invalid object: {why}")
    meta = {k: v for k, v in before.items() if k not in ("labels", "annotations")}
    for field in ("labels", "annotations"):
        said = after.get(field)
        if said:
            if not isinstance(said, dict) or not all(isinstance(v, str) for v in said.values()):
                raise ConversionError(f"{about} returned invalid metadata: invalid metadata.{field} in converted object")
            meta[field] = said
    body = {k: v for k, v in new.items() if k != "metadata"}
    schema = resource.versions[version].schema
    structural.prune(body, {**schema, "properties": {**schema.get("properties", {}), "apiVersion": {}, "kind": {}}})
    return {**body, "metadata": meta}
