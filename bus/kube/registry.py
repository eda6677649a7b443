"""The API's rules without HTTP: what a create, an update, a patch and a delete do to an object, or why they are refused.

The HTTP server calls it, and so do controllers and report workers in their own process.  Every refusal is a StatusError with
the code and reason that a client of the real API would get.  Objects that come back are copies, with their
``metadata.resourceVersion`` filled in (the storage keeps them without).

A write reads the object, computes the next one purely, and stores it expecting the revision that was read.  When somebody
else was faster, it starts again, unless the caller named a resourceVersion: then it is the caller's conflict.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from bus.kube import decoding, deletion, errors, objectmeta, subresources, times, validity, withdrawal
from bus.kube.admission.base import Plugin
from bus.kube.admission.calls import Caller
from bus.kube.catalog import CRD_GROUP, CRD_RESOURCE, Catalog, Resource, Version
from bus.kube.custom_conversion import Converter
from bus.kube.decoding import clone
from bus.kube.deletion import Deleted, DeleteOptions
from bus.kube.errors import StatusError
from bus.kube.kinds import base, strategy
from bus.kube.patches import apply, checks, choose, managers
from bus.kube.reviewing import Reviewing
from bus.kube.storage import (
    AlreadyExists,
    Conflict,
    NoRoom,
    Object,
    Reader,
    Storage,
    StorageError,
    Stored,
    TooLarge,
    Unavailable,
)
from bus.kube.targets import Filter, Target, Write
from schemas.subjects import ObjectKey

if TYPE_CHECKING:  # needs cryptography, 8 MB that a node's list-watch must not carry
    from bus.kube.auth.account_tokens import Issuer

ATTEMPTS_MAX = 8  # of one write against others; each loser means that another write went through
NAME_ATTEMPTS_MAX = 8  # of a generated name: 27^5 suffixes, so even one retry is rare
DELETES_AT_ONCE = 32  # of a collection: each waits for the log, and the request has a minute
REVISION_WAIT_S = 3.0  # for a revision that another server already answered with; kube-apiserver waits as long
REVISION_POLL_S = 0.02
PRESENTED_AT_ONCE = 1_000  # objects that a webhook may have to convert
CROWDED = "too many others are changing it; try again"


__all__ = ["Filter", "Registry", "Target", "Write"]


class Registry:
    """``storage`` may be a Reader only: then every write is refused (405).  ``clock`` gives microseconds since 1970.
    ``admission`` makes the plugins that a write must pass.  ``issuer`` makes tokens of service accounts.
    ``caller`` calls webhooks."""

    def __init__(
        self,
        storage: Reader,
        *,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
        random: Callable[[int], bytes] = os.urandom,
        admission: Callable[[Registry], Sequence[Plugin]] = lambda _: (),
        issuer: Issuer | None = None,
        caller: Caller | None = None,
    ) -> None:
        self.reader = storage
        self.catalog = Catalog(storage)
        self.caller, self.converter = caller, Converter(caller)
        self._storage = storage if isinstance(storage, Storage) else None
        self._clock = clock
        self._random = random
        self.issuer = issuer
        self._plugins = tuple(admission(self))
        self.reviewing = Reviewing(self, self._plugins)

    @property
    def writable(self) -> bool:
        return self._storage is not None

    def now_us(self) -> int:
        """The registry's clock."""
        return self._clock()

    # --- reading -----------------------------------------------------------------------------------------------

    def resource(self, group: str, resource: str, version: str | None = None) -> tuple[Resource, Version]:
        """The resource and one served version of it (the storage version without ``version``); raises StatusError 404."""
        found = self.catalog.find(group, resource)
        name = version or (found.storage_version if found else "")
        if found is None or (version is not None and name not in found.preferred):
            raise errors.no_such_path()
        return found, found.versions[name]

    async def get(
        self, group: str, resource: str, namespace: str, name: str, *, version: str | None = None, subresource: str = ""
    ) -> Object:
        """The object, or its scale; raises StatusError 404."""
        res, ver = self.resource(group, resource, version)
        obj = await self.presented(res, ver, self.stored(Target(res, ver, namespace, name)))
        return subresources.get(res, ver, obj, subresource)

    async def list(
        self,
        group: str,
        resource: str,
        namespace: str | None = None,
        *,
        labels: str = "",
        fields: str = "",
        version: str | None = None,
    ) -> tuple[Objects, int]:
        """All matching objects, sorted by namespace and name, and the revision at which this is the truth."""
        res, ver = self.resource(group, resource, version)
        wanted = Filter(res, ver, labels, fields)
        rev = self.reader.revision()
        stored = self.reader.list(*res.place, namespace)
        return await self.all_presented(res, ver, [s for s in stored if wanted.matches(s.object)]), rev

    def present(self, resource: Resource, version: Version, stored: Stored) -> Object:
        """A stored object as this version shows it: a copy that belongs to the caller."""
        obj: Object = clone(self.show(resource, version, stored))
        return obj

    def show(self, resource: Resource, version: Version, stored: Stored) -> Object:
        """The same for who only reads it: shares with the storage."""
        obj = self.converter.shown(stored.object, resource, version.name)
        return {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(stored.rev)}}

    async def presented(self, resource: Resource, version: Version, stored: Stored) -> Object:
        """``present``, also where a webhook must be asked; raises StatusError 500."""
        await self.converter.prime([stored.object], resource, version.name)
        return self.present(resource, version, stored)

    async def all_presented(self, resource: Resource, version: Version, stored: Sequence[Stored]) -> Objects:
        """The same of many."""
        out: Objects = []
        for start in range(0, len(stored), PRESENTED_AT_ONCE):
            part = stored[start : start + PRESENTED_AT_ONCE]
            await self.converter.prime([s.object for s in part], resource, version.name)
            out += [self.present(resource, version, s) for s in part]
        return out

    async def wait_revision(self, rev: int) -> None:
        """Until this reader knows ``rev``; raises StatusError 504 when that takes too long."""
        deadline = time.monotonic() + REVISION_WAIT_S
        while self.reader.revision() < rev:
            if time.monotonic() > deadline:
                raise errors.revision_too_large(rev, self.reader.revision())
            await asyncio.sleep(REVISION_POLL_S)

    def stored(self, target: Target) -> Stored:
        """As it is stored (shared: don't change it); raises StatusError 404."""
        stored = self.reader.get(target.key)
        if stored is None:
            raise target.not_found()
        return stored

    # --- create ------------------------------------------------------------------------------------------------

    async def create(
        self,
        group: str,
        resource: str,
        namespace: str,
        obj: Any,
        *,
        how: Write,
        version: str | None = None,
        name: str = "",
        subresource: str = "",
    ) -> Object:
        """The stored object.  ``name`` goes with a subresource (``binding``, ``eviction`` of a pod), which answers with a
        Status.  Raises StatusError 400, 403, 404, 405, 409, 413, 422, 503."""
        res, ver = self.resource(group, resource, version)
        self.writer(res, "create")
        if subresource:
            return await subresources.create(self, Target(res, ver, namespace, name, subresource), obj, how)
        new = decoding.read(obj, res, ver, validation=how.validation, warnings=how.warnings)
        new["metadata"].pop("managedFields", None)
        return await self._create(Target(res, ver, namespace), new, how)

    async def _create(self, target: Target, new: Object, how: Write) -> Object:
        """A new object of what was read."""
        res, ver = target.resource, target.version
        storage = self.writer(res, "create")
        generate = not new["metadata"].get("name") and bool(new["metadata"].get("generateName"))
        for attempt in range(NAME_ATTEMPTS_MAX):
            draft, inner = decoding.hub(clone(new), res, ver)
            await self._draft(draft, dataclasses.replace(target, version=inner), how, ver)
            key = dataclasses.replace(target, name=draft["metadata"]["name"]).key
            try:
                made = await self.presented(res, ver, await self._store_new(storage, res, key, draft, how))
                if how.dry_run:
                    del made["metadata"]["resourceVersion"]  # it has none
                return made
            except AlreadyExists as e:
                if not generate or attempt == NAME_ATTEMPTS_MAX - 1:
                    raise errors.already_exists(res.group, res.resource, key.name) from e
        raise AssertionError("the last attempt returns or raises")

    async def _draft(self, draft: Object, target: Target, how: Write, spoken: Version) -> None:
        """Everything that makes a new object out of what was sent in version ``spoken``, in place."""
        res, ver, namespace = target.resource, target.version, target.namespace
        rules, ctx = strategy(res), self.context(res, ver, how)
        objectmeta.for_create(draft, res, namespace, rules, now=ctx.now, random=self._random)
        if res.namespaced:
            self._check_namespace(res, namespace, draft["metadata"].get("name", ""))
        rules.defaults(draft, ctx)
        if not draft["metadata"].get("managedFields", True):
            del draft["metadata"]["managedFields"]
        elif how.user is not None and "managedFields" not in draft["metadata"]:
            me = managers.Entry(how.manager, "Update", "", draft["apiVersion"], ctx.now, frozenset())
            managers.created(draft, managers.kind_of(res, ver), me)
        listening = self.reviewing.listening
        await self._fill(draft, target, how)
        if listening:
            await self._mutate_new(draft, target, how, spoken)
        causes = objectmeta.validate(draft, rules.name_problem)
        if draft["metadata"].get("name"):
            rules.prepare_create(draft, ctx)
            causes += rules.validate(draft, ctx)
        if causes:
            raise errors.invalid(res.group, res.kind, draft["metadata"].get("name", ""), causes)
        for plugin in self._plugins:
            if listening and plugin.listens:
                shown = decoding.convert(draft, res, spoken.name)
                await self.reviewing.validate_new(plugin, shown, dataclasses.replace(target, version=spoken), how)
            await plugin.admit(target, draft, how)

    async def _fill(self, draft: Object, target: Target, how: Write) -> None:
        for plugin in self._plugins:
            await plugin.fill(target, draft, how)
        if self._plugins:  # defaults of what they filled in
            strategy(target.resource).defaults(draft, self.context(target.resource, target.version, how))

    async def _mutate_new(self, draft: Object, target: Target, how: Write, spoken: Version) -> None:
        """What others make of a new object, in place; its form is the stored one before and after."""
        res = target.resource
        shown: Object = clone(decoding.convert(draft, res, spoken.name))

        async def fill() -> None:
            inner: Object = clone(decoding.hub(shown, res, spoken)[0])
            await self._fill(inner, target, how)
            shown.clear()
            shown.update(decoding.convert(inner, res, spoken.name))

        await self.reviewing.mutate_new(shown, dataclasses.replace(target, version=spoken), how, fill)
        draft.clear()
        draft.update(decoding.hub(shown, res, spoken)[0])

    def removing(self, target: Target, how: Write) -> None:
        """Before an object is deleted or evicted.  Raises StatusError."""
        old = self.stored(target).object
        for plugin in self._plugins:
            plugin.remove(target, old, how)

    def admit_token(self, target: Target, spec: Object, how: Write) -> None:
        """A TokenRequest as it was sent; raises StatusError."""
        for plugin in self._plugins:
            plugin.token(target, spec, how)

    async def placed(self, target: Target, pod: Object, how: Write) -> None:
        """What must be there before a pod gets its node.  Raises StatusError."""
        for plugin in self._plugins:
            await plugin.placed(target, pod, how)

    async def _store_new(self, storage: Storage, res: Resource, key: ObjectKey, draft: Object, how: Write) -> Stored:
        obj = await self._stored_form(draft, res)
        if how.dry_run:
            if self.reader.get(key) is not None:
                raise AlreadyExists(str(key))
            return Stored(key, self.reader.revision(), obj)
        try:
            return await storage.create(key, obj, how.origin)
        except AlreadyExists:
            raise
        except StorageError as e:
            raise refusal(res, key.name, e) from e

    async def _stored_form(self, obj: Object, res: Resource) -> Object:
        """What the rules have passed, as it is stored."""
        return await self.converter.convert(obj, res, res.storage_version) if res.custom else obj

    def _check_namespace(self, res: Resource, namespace: str, name: str) -> None:
        space = self.reader.get(ObjectKey("", "namespaces", "", namespace))
        if space is None:
            raise errors.not_found("", "namespaces", namespace)
        if space.object["metadata"].get("deletionTimestamp"):
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            cause = errors.Cause("metadata.namespace", "NamespaceTerminating", f"namespace {namespace} is being terminated")
            raise errors.forbidden(res.group, res.resource, name, why, [cause])

    # --- update and patch --------------------------------------------------------------------------------------

    async def update(
        self,
        group: str,
        resource: str,
        namespace: str,
        name: str,
        obj: Any,
        *,
        how: Write,
        version: str | None = None,
        subresource: str = "",
    ) -> Object:
        """The whole object (or its status, its scale) replaced.  With a resourceVersion in it, only that one is replaced
        (409 otherwise).  An update that changes nothing writes nothing.  Raises StatusError as ``create`` does."""
        target = Target(*self.resource(group, resource, version), namespace, name, subresource)
        self.writer(target.resource, "update")
        if subresource not in ("", "status"):
            return await subresources.update(self, target, lambda _: obj, how)
        new = self._readable(obj, target, how)
        rules = strategy(target.resource)
        if not subresource and rules.create_on_update and self.reader.get(target.key) is None:
            new["metadata"].pop("managedFields", None)
            new["metadata"].pop("resourceVersion", None)
            return await self._create(target, new, how)
        if how.user is not None and not rules.unconditional_update and not new["metadata"].get("resourceVersion"):
            self.stored(target)
            cause = errors.bad_value("metadata.resourceVersion", 0, "must be specified for an update")
            raise errors.invalid(target.resource.group, target.resource.resource, name, [cause])
        found = self.reader.get(target.key)
        if found is not None:
            objectmeta.check_uid(new, found.object, target.resource)
        return await self.change(target, lambda _: clone(new), how)

    async def patch(
        self,
        group: str,
        resource: str,
        namespace: str,
        name: str,
        patch: Any,
        *,
        kind: str,
        how: Write,
        version: str | None = None,
        subresource: str = "",
    ) -> Object:
        """``kind`` is json, merge, strategic or apply.  ``apply`` creates what doesn't exist.  Raises StatusError as
        ``create`` does, and 415 for a strategic patch of a custom resource."""
        target = Target(*self.resource(group, resource, version), namespace, name, subresource)
        res, ver = target.resource, target.version
        self.writer(res, "patch")
        if kind == "apply":
            return await self._apply(target, patch, how)
        if subresource not in ("", "status"):
            scaled = subresources.SCALE if subresource == "scale" else res
            edit = choose.patcher(patch, kind, scaled, scaled.versions[scaled.storage_version])
            return await subresources.update(self, target, edit, how)
        edit = choose.patcher(patch, kind, res, ver)

        def make(current: Object) -> Object:
            return self._readable(edit(current), target, how, patched=patch)

        return await self.change(target, make, how)

    async def _apply(self, target: Target, patch: Any, how: Write) -> Object:
        """Server-side apply: creates what isn't there, merges into what is."""
        res, ver, sub = target.resource, target.version, target.subresource
        if sub == "scale" and sub in ver.subresources:
            return await subresources.apply_scale(self, target, patch, how)
        if sub not in ("", "status"):
            raise errors.unsupported_media_type(choose.PATCH_TYPES[:3])
        kind = managers.kind_of(res, ver)
        said = checks.applied(patch, res.api_version(ver.name), res.kind, target.name, kind.node)
        config = apply.wanted(self._readable(said, target, how), res, sub)
        said, asked = apply.wanted(said, res, sub), config["metadata"].pop("resourceVersion", "")
        me = managers.Entry(how.manager, "Apply", sub, config["apiVersion"], times.of_micros(self._clock()), frozenset())
        if self.reader.get(target.key) is None and not sub:
            new = clone(config)
            new["metadata"]["managedFields"] = apply.first(said, kind, me)
            try:
                return await self._create(target, new, how)
            except StatusError as e:
                if e.reason != "AlreadyExists":
                    raise

        def make(current: Object) -> Object:
            merged = apply.apply(current, config, said, kind, me, force=how.force)
            new = decoding.read(merged, res, ver)  # what fields left behind (an empty map) goes
            new["metadata"]["managedFields"] = merged["metadata"]["managedFields"]
            new["metadata"]["resourceVersion"] = asked
            return new

        return await self.change(target, make, how, tracked=False)

    def _readable(self, raw: Any, target: Target, how: Write, patched: Any = None) -> Object:
        """What an update or a patch made, checked against the address it was sent to."""
        res, name = target.resource, target.name
        new = decoding.read(raw, res, target.version, validation=how.validation, warnings=how.warnings, patched=patched)
        objectmeta.check_address(new["metadata"], res, target.namespace, name)
        return new

    async def change(
        self,
        target: Target,
        make: Callable[[Object], Object],
        how: Write,
        *,
        tracked: bool = True,
        asked_as: str = "",
        reviewed: bool = False,
    ) -> Object:
        """``make`` gets the current object (with resourceVersion; its own copy) and gives the next one.

        Not ``tracked``: it cares for the ownership of fields itself.  ``asked_as``: the subresource that was asked for,
        where the whole object is written.  ``reviewed``: webhooks and policies saw already why."""
        res, ver = target.resource, target.version
        storage = self.writer(res, "update")
        asked = dataclasses.replace(target, subresource=asked_as or target.subresource)
        listening = not reviewed and self.reviewing.listening
        for _ in range(ATTEMPTS_MAX):
            stored = self.stored(target)
            current = await self.presented(res, ver, stored)
            spoken = make(clone(current))
            if listening:
                spoken = await self.reviewing.mutate_next(spoken, current, asked, how)
            new, inner = decoding.hub(spoken, res, ver)
            wanted = new["metadata"].pop("resourceVersion", "") or "0"
            if wanted not in ("0", str(stored.rev)):
                raise target.conflict() if wanted.isdecimal() else errors.no_revision(wanted)
            if inner is not ver:
                current = clone(stored.object)
            else:
                del current["metadata"]["resourceVersion"]
            self._next(new, current, dataclasses.replace(target, version=inner), how)
            ours = (
                how.user is None and target.subresource == "status"
            )  # our own reports: their ownership is nobody's question
            if not new["metadata"].get("managedFields", True):
                del new["metadata"]["managedFields"]
            if tracked and not ours and "managedFields" in new["metadata"]:
                now = times.of_micros(self._clock())
                who = (how.manager, "Update", asked.subresource, new["apiVersion"])
                timed = "" if asked.subresource == "scale" else now  # as the real server, which forgets that of a scaling
                me = managers.Entry(*who, timed, frozenset())
                managers.updated(new, current, managers.kind_of(res, inner), me)
            if listening:
                after = await self.presented(res, ver, dataclasses.replace(stored, object=new))
                before = await self.presented(res, ver, stored)
                await self.reviewing.validate_next(after, before, asked, how)
            if new == current and (not res.custom or validity.same(new, current)):
                return await self.presented(res, ver, stored)
            if target.subresource in ("", "resize"):
                for plugin in self._plugins:
                    await plugin.admit_update(target, new, stored, how)
            try:
                return await self.presented(res, ver, await self._replace(storage, res, stored, new, how))
            except Conflict:
                continue  # who named a resourceVersion fails at the check above, with the new revision
        raise target.conflict(CROWDED)

    def _next(self, new: Object, old: Object, target: Target, how: Write) -> None:
        """Everything that makes a valid successor of ``old`` out of ``new``, in place.  Raises StatusError."""
        res, ver, subresource = target.resource, target.version, target.subresource
        rules, ctx = strategy(res), self.context(res, ver, how)
        objectmeta.for_update(new, old, res)
        if subresource == "status":
            if "status" not in ver.subresources:
                raise errors.no_such_path()
            rules.prepare_status(new, old, ctx)
            causes = rules.validate_status(new, old, ctx)
        elif subresource in subresources.INTERNAL:
            causes = []  # made by ourselves out of the current object
            if subresource in subresources.COUNTED and new.get("spec") != old.get("spec"):
                new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
        else:
            rules.defaults(new, ctx)
            rules.prepare_update(new, old, ctx)
            causes = objectmeta.validate(new, rules.name_problem) + objectmeta.validate_update(new, old)
            causes += rules.validate_update(new, old, ctx)
            if rules.generation and not rules.same_spec(new, old, ctx):
                new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
        if causes:
            raise errors.invalid(res.group, res.kind, new["metadata"].get("name", ""), causes)
        for plugin in self._plugins if subresource in ("", "status") else ():
            (plugin.status if subresource else plugin.update)(target, new, old, how)

    async def _replace(self, storage: Storage, res: Resource, stored: Stored, new: Object, how: Write) -> Stored:
        """Raises Conflict, or StatusError.  An object that was only waiting for this is removed."""
        obj = await self._stored_form(new, res)
        if how.dry_run:
            return Stored(stored.key, stored.rev, obj)
        try:
            if deletion.finished(obj):
                gone = await storage.delete(stored.key, stored.rev, how.origin)
                if res.custom:
                    await withdrawal.finish(self, res, how)
                return Stored(stored.key, gone.rev, obj)
            return await storage.replace(stored.key, obj, stored.rev, how.origin)
        except Conflict:
            raise
        except StorageError as e:
            raise refusal(res, stored.key.name, e) from e

    # --- delete ------------------------------------------------------------------------------------------------

    async def delete(
        self,
        group: str,
        resource: str,
        namespace: str,
        name: str,
        *,
        how: Write,
        options: DeleteOptions | None = None,
        version: str | None = None,
        reviewed: bool = False,
    ) -> Deleted:
        """Gone, or marked and waiting (finalizers, a node's grace).  ``reviewed``: admission saw already why.  Raises
        StatusError 404, 405, 409, 503."""
        res, ver = self.resource(group, resource, version)
        target = Target(res, ver, namespace, name)
        storage = self.writer(res, "delete")
        opts = options or DeleteOptions()
        if (group, resource) == ("", "namespaces") and name in deletion.IMMORTAL:
            raise errors.forbidden(group, resource, name, "this namespace may not be deleted")
        if (group, resource) == (CRD_GROUP, CRD_RESOURCE) and not how.dry_run and not opts.dry_run:
            self._preconditions(res, self.stored(target), opts)
            await self.reviewing.deleted(target, await self.presented(res, ver, self.stored(target)), how, opts)
            return await withdrawal.delete(self, target, how)
        for _ in range(ATTEMPTS_MAX):
            stored = self.stored(target)
            self._preconditions(res, stored, opts)
            self.removing(target, how)
            if not reviewed:
                await self.reviewing.deleted(target, await self.presented(res, ver, stored), how, opts)
            obj, now = deletion.mark(clone(stored.object), strategy(res), opts, self._clock())
            try:
                if how.dry_run or opts.dry_run:
                    return Deleted(await self.presented(res, ver, Stored(stored.key, stored.rev, obj)), now)
                if now:
                    gone = await storage.delete(stored.key, stored.rev, how.origin)
                    if res.custom:
                        await withdrawal.finish(self, res, how)
                    return Deleted(await self.presented(res, ver, Stored(stored.key, gone.rev, obj)), True)
                if obj != stored.object:
                    stored = await storage.replace(stored.key, obj, stored.rev, how.origin)
                return Deleted(await self.presented(res, ver, stored), False)
            except Conflict:
                continue
            except StorageError as e:
                raise refusal(res, name, e) from e
        raise target.conflict(CROWDED)

    def _preconditions(self, res: Resource, stored: Stored, opts: DeleteOptions) -> None:
        uid = stored.object["metadata"].get("uid")
        for what, wanted, have in (("UID", opts.uid, uid), ("ResourceVersion", opts.revision, str(stored.rev))):
            if wanted is not None and wanted != have:
                after = "deleted and then recreated" if what == "UID" else "modified"
                why = f"the {what} in the precondition ({wanted}) does not match the {what} in record ({have})"
                why += f". The object might have been {after}"
                raise errors.conflict(res.group, res.kind, stored.key.name, why)  # of the kind, as the real server

    async def delete_collection(
        self,
        group: str,
        resource: str,
        namespace: str | None,
        *,
        how: Write,
        options: DeleteOptions | None = None,
        labels: str = "",
        fields: str = "",
        version: str | None = None,
    ) -> Objects:
        """Deletes all that match; what was there before, as a list.  An object that vanishes meanwhile is no error."""
        res, ver = self.resource(group, resource, version)
        self.writer(res, "deletecollection")
        wanted = Filter(res, ver, labels, fields)
        found = [s for s in self.reader.list(*res.place, namespace) if wanted.matches(s.object)]
        for start in range(0, len(found), DELETES_AT_ONCE):
            keys = [s.key for s in found[start : start + DELETES_AT_ONCE]]
            tries = (self.delete(group, resource, k.namespace, k.name, how=how, options=options) for k in keys)
            for outcome in await asyncio.gather(*tries, return_exceptions=True):
                if isinstance(outcome, BaseException) and getattr(outcome, "code", None) != 404:
                    raise outcome
        return await self.all_presented(res, ver, found)

    # --- shared ------------------------------------------------------------------------------------------------

    def writer(self, res: Resource, verb: str) -> Storage:
        """Raises StatusError 405 when nobody may write."""
        if self._storage is None or not res.stored:
            raise errors.method_not_allowed(res.group, res.resource, verb)
        return self._storage

    def context(self, res: Resource, ver: Version, how: Write) -> base.Context:
        return base.Context(res, ver, self.reader, times.of_micros(self._clock()), how.warnings)


Objects = list[Object]  # a name of its own: inside the class ``list`` is the method


def refusal(res: Resource, name: str, error: StorageError) -> StatusError:
    """What a client is told of what the storage said."""
    if isinstance(error, Conflict):
        return errors.conflict(res.group, res.resource, name)
    if isinstance(error, TooLarge):
        return errors.too_large(f"Request entity too large: {error}")
    if isinstance(error, NoRoom):
        return errors.no_room(f"nothing was written: {error}")
    if isinstance(error, Unavailable):
        return errors.unavailable(f"the log can't be reached, the write may or may not have happened: {error}")
    return errors.internal(str(error))
