"""Admission webhooks: who is asked about a request, in which order, and what becomes of the answers.

Mutating webhooks are asked one after the other, by the names of their configurations; when one changes the object, those
with ``reinvocationPolicy: IfNeeded`` that were asked before it are asked once more.  Validating ones are asked all at
once, when the object is as it will be stored.  The configurations are read where they are stored at every request, so
all servers over one log agree.

Source: Kubernetes "Dynamic Admission Control"; apiserver pkg/admission/plugin/webhook/{mutating,validating}/dispatcher.go.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bus.kube import errors
from bus.kube.admission import calls, expressions, matching
from bus.kube.admission.asked import GROUP, Asked, Form
from bus.kube.admission.base import Plugin
from bus.kube.admission.calls import Caller, CallError
from bus.kube.errors import StatusError
from bus.kube.patches import jsonpatch
from bus.kube.storage import Object, Reader

MUTATING, VALIDATING = "mutatingwebhookconfigurations", "validatingwebhookconfigurations"
REVIEW_GROUP, REVIEW = "admission.k8s.io", "AdmissionReview"
VERSIONS = ("v1", "v1beta1")
REJECTED_MIN = 400  # the least status of a refusal, whatever a webhook says
WARNINGS_MAX = 100  # of one webhook; how long they may be is for who shows them


class HookError(CallError):
    """``CallError`` with the webhook's name: what the failure policy may ignore."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f'failed calling webhook "{name}": {why}')


@dataclass(frozen=True, slots=True)
class Hook:
    """One webhook of a configuration; ``id`` is its own among all."""

    id: tuple[str, int]
    spec: Object

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    @property
    def ignored(self) -> bool:
        return self.spec.get("failurePolicy") == "Ignore"


class Webhooks(Plugin):
    def __init__(
        self, reader: Reader, caller: Caller, asker: expressions.Asker, uid: Callable[[], str] | None = None
    ) -> None:
        self._reader, self._caller, self._asker = reader, caller, asker
        self._uid = uid or (lambda: str(uuid.uuid4()))

    @property
    def listens(self) -> bool:
        return any(self._reader.list(GROUP, kind) for kind in (MUTATING, VALIDATING))

    def _hooks(self, kind: str) -> list[Hook]:
        listed = self._reader.list(GROUP, kind)  # by name
        return [Hook((s.key.name, i), h) for s in listed for i, h in enumerate(s.object.get("webhooks") or ())]

    def _matched(self, hook: Hook, asked: Asked) -> Form | None:
        """The form in which the webhook is to see the request, None when it isn't asked.  Raises StatusError."""
        spec = hook.spec
        if not matching.labels_match(spec.get("objectSelector"), asked):
            return None
        form = matching.form_of(spec.get("rules") or (), asked, spec.get("matchPolicy") or "Equivalent")
        if form is None or not matching.namespace_matches(spec.get("namespaceSelector"), asked, self._reader):
            return None
        return form

    async def _wanted(self, hook: Hook, asked: Asked) -> Form | None:
        """The same, with the object at hand in that form and its conditions asked."""
        form = self._matched(hook, asked)
        if form is None:
            return None
        await asked.see(form)
        conditions = hook.spec.get("matchConditions")
        if conditions:
            variables = self._asker.variables(asked, form)
            try:
                if not matching.conditions_match(conditions, variables, hook.spec.get("failurePolicy") or "Fail"):
                    return None
            except matching.ConditionError as e:
                raise errors.forbidden(asked.form.group, asked.form.resource, asked.name, str(e)) from e
        return form

    # --- validating

    async def validate(self, asked: Asked) -> None:
        """Raises StatusError: the first refusal, in the order of the webhooks."""
        if asked.exempt:
            return
        wanted = [(h, form) for h in self._hooks(VALIDATING) if (form := await self._wanted(h, asked)) is not None]
        found = await asyncio.gather(*(self._validated(h, form, asked) for h, form in wanted), return_exceptions=True)
        for outcome in found:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _validated(self, hook: Hook, form: Form, asked: Asked) -> None:
        try:
            answer = await self._call(hook, form, asked, mutating=False)
        except HookError as e:
            if hook.ignored:
                return
            raise calls.failure(str(e)) from e
        if not answer.get("allowed"):
            raise rejection(hook.name, answer.get("status"))

    # --- mutating

    async def mutate(self, asked: Asked) -> None:
        """Leaves the changed object in ``asked``; ``asked.again`` collects who is to be asked once more."""
        if asked.exempt:
            return
        for hook in self._hooks(MUTATING):
            form = await self._wanted(hook, asked)
            if form is None or (asked.repeated and hook.id not in asked.again):
                continue
            changed = await self._mutated(hook, form, asked)
            if changed:
                asked.again |= asked.earlier
                asked.earlier = set()
                asked.changed = True
            if hook.spec.get("reinvocationPolicy") == "IfNeeded":
                asked.earlier.add(hook.id)

    async def _mutated(self, hook: Hook, form: Form, asked: Asked) -> bool:
        try:
            answer = await self._call(hook, form, asked, mutating=True)
            if not answer.get("allowed"):
                raise rejection(hook.name, answer.get("status"))
            patch = _patch(hook.name, answer)
        except HookError as e:
            if hook.ignored:
                return False
            raise calls.failure(str(e)) from e
        return bool(patch) and await self._apply(hook, form, asked, patch)

    async def _apply(self, hook: Hook, form: Form, asked: Asked, patch: list[Any]) -> bool:
        """Raises StatusError 500."""
        now = asked.shown[form][0]
        if now is None:
            why = (
                f'admission webhook "{hook.name}" attempted to modify the object, which is not supported for this operation'
            )
            raise calls.failure(why)
        try:
            new = jsonpatch.apply(now, patch)
        except StatusError as e:
            raise calls.failure(jsonpatch.why(now, patch, e)) from e
        return await asked.replace(form, new)

    # --- calling

    async def _call(self, hook: Hook, form: Form, asked: Asked, *, mutating: bool) -> Object:
        """The ``response`` of the review that came back.  Raises HookError, and StatusError 400 for a dry run."""
        spec, name = hook.spec, hook.name
        if asked.how.dry_run and spec.get("sideEffects") not in ("None", "NoneOnDryRun"):
            raise errors.bad_request(f'admission webhook "{name}" does not support dry run')
        version = next((v for v in spec.get("admissionReviewVersions") or () if v in VERSIONS), None)
        if version is None:
            why = "webhook does not accept known AdmissionReview versions (v1, v1beta1)"
            raise HookError(name, f"could not create admission objects: {why}")
        uid = self._uid()
        body = {"kind": REVIEW, "apiVersion": f"{REVIEW_GROUP}/{version}", "request": asked.request(form, uid)}
        try:
            answer = await self._caller.post(spec.get("clientConfig") or {}, body, float(spec.get("timeoutSeconds") or 10))
            review = calls.review_of(answer, REVIEW_GROUP, version, REVIEW)
        except CallError as e:
            raise HookError(name, f"failed to call webhook: {e}") from e
        try:
            response = _checked(review, uid, version, mutating=mutating)
        except CallError as e:
            raise HookError(name, f"received invalid webhook response: {e}") from e
        asked.how.warnings.extend(str(w) for w in (response.get("warnings") or ())[:WARNINGS_MAX])
        return response


def _checked(review: Object, uid: str, version: str, *, mutating: bool) -> Object:
    """Raises CallError."""
    response = review.get("response")
    if not isinstance(response, dict):
        raise CallError("webhook response was absent")
    if version == "v1beta1":  # as it was: neither the uid nor the patch type need be there
        kept = {k: v for k, v in response.items() if k not in ("patch", "patchType")}
        if mutating and response.get("patch"):
            kept |= {"patch": response["patch"], "patchType": "JSONPatch"}
        return kept
    if response.get("uid") != uid:
        raise CallError(f"expected response.uid={errors.show(uid)}, got {errors.show(response.get('uid') or '')}")
    said = (response.get("apiVersion"), review.get("apiVersion"), review.get("kind"))
    if said[1] is None or said[2] is None:
        got = f"{review.get('apiVersion') or ''}, Kind={review.get('kind') or ''}"
        raise CallError(f"expected webhook response of {REVIEW_GROUP}/v1, Kind={REVIEW}, got {got}")
    patch, kind = response.get("patch"), response.get("patchType")
    if not mutating:
        if patch:
            raise CallError("validating webhook may not return response.patch")
        if kind is not None:
            raise CallError("validating webhook may not return response.patchType")
    elif patch and kind is None:
        raise CallError("webhook returned response.patch but not response.patchType")
    elif not patch and kind is not None:
        raise CallError("webhook returned response.patchType but not response.patch")
    elif kind == "":
        raise CallError('webhook returned invalid response.patchType of ""')
    return response


def _patch(name: str, response: Object) -> list[Any]:
    """The operations, decoded.  Raises HookError."""
    text = response.get("patch")
    if not text:
        return []
    try:
        patch = json.loads(base64.b64decode(str(text), validate=True))
    except (ValueError, binascii.Error, RecursionError) as e:
        raise HookError(name, f"received undecodable patch in webhook response: {jsonpatch.undecodable(text)}") from e
    if not isinstance(patch, list):
        why = "json: cannot unmarshal object into Go value of type jsonpatch.Patch"
        raise HookError(name, f"received undecodable patch in webhook response: {why}")
    if patch and response.get("patchType") != "JSONPatch":
        raise HookError(name, f"unsupported patch type {errors.show(response.get('patchType'))}")
    return patch


class Rejection(StatusError):
    """A refusal in a webhook's own words."""

    def as_status(self) -> dict[str, Any]:
        status = super().as_status()
        for field in ("reason", "details"):
            if not status.get(field):
                status.pop(field, None)
        return status


def rejection(name: str, status: Any) -> Rejection:
    """What the client gets; ``status`` is the webhook's."""
    said: Object = status if isinstance(status, dict) else {}
    code, reason, message = said.get("code"), str(said.get("reason") or ""), str(said.get("message") or "")
    if not isinstance(code, int) or code < REJECTED_MIN:
        code = REJECTED_MIN
    head = f'admission webhook "{name}" denied the request'
    why = message or reason
    details = said.get("details")
    text = f"{head}: {why}" if why else f"{head} without explanation"
    return Rejection(code, reason, text, details if isinstance(details, dict) else None)
