"""From a write of the registry to the request that webhooks and admission policies see, and back.

They see objects in the version in which the request was made (or in another, where a rule names that one), as a client
would get them; the registry works on the form that is stored.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from bus.kube import conversions, decoding, errors, subresources
from bus.kube.admission import calls
from bus.kube.admission.asked import CONNECT, CREATE, DELETE, UPDATE, Asked, Form
from bus.kube.admission.base import Plugin
from bus.kube.catalog import Resource, Version
from bus.kube.deletion import DeleteOptions
from bus.kube.errors import StatusError
from bus.kube.kinds import strategy
from bus.kube.kinds.base import at
from bus.kube.storage import Object
from bus.kube.targets import Target, Write

if TYPE_CHECKING:
    from bus.kube.registry import Registry

UNASKED = ("binding",)  # written by ourselves; who asked for it was asked about already
SYSTEM = ("uid", "creationTimestamp", "generation")  # of a new object: what it gets only when it was changed


class Reviewing:
    """``plugins``: those that may listen, in their order."""

    def __init__(self, registry: Registry, plugins: Sequence[Plugin]) -> None:
        self._registry, self._plugins = registry, plugins

    @property
    def listening(self) -> bool:
        """Whether anybody wants to see requests: if not, nothing here costs anything."""
        return any(p.listens for p in self._plugins)

    # --- new objects

    async def mutate_new(self, draft: Object, target: Target, how: Write, fill: Callable[[], Awaitable[None]]) -> None:
        """``draft``, in its spoken form, in place.  ``fill`` fills in what is missing again, after somebody changed it."""
        hidden = {f: draft["metadata"].pop(f) for f in SYSTEM if f in draft["metadata"]}
        name = draft["metadata"].get("name", "")
        if draft["metadata"].get("generateName"):
            draft["metadata"].pop("name", None)  # it may be one that was generated
        asked = self._asked(CREATE, target, decoding.clone(draft), None, how)
        await self._mutate(asked)
        if asked.changed and asked.object is not None:
            _become(draft, asked.object)
        draft["metadata"] = {"name": name, **draft["metadata"], **hidden}
        if asked.changed:
            await fill()
            bare = {k: v for k, v in draft["metadata"].items() if k not in SYSTEM}
            asked.object, asked.repeated = {**decoding.clone(draft), "metadata": bare}, True
            asked.shown.clear()
            await self._mutate(asked)
            _become(draft, asked.object)
            draft["metadata"] = {"name": name, **draft["metadata"], **hidden}

    async def validate_new(self, plugin: Plugin, draft: Object, target: Target, how: Write) -> None:
        """Raises StatusError."""
        await plugin.validate(self._asked(CREATE, target, draft, None, how))

    # --- changed objects

    async def mutate_next(self, new: Object, old: Object, target: Target, how: Write) -> Object:
        """The next object, both in their spoken form; raises StatusError."""
        if target.subresource in UNASKED:
            return new
        res, ver = target.resource, target.version
        if new["metadata"].get("resourceVersion") == "":  # merged by the server, out of this one
            new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
        if target.subresource in ("", "status"):
            rules = strategy(res)
            if decoding.hub(new, res, ver)[1] is ver:
                rules.defaults(new, self._registry.context(res, ver, how))
        asked = self._asked(UPDATE, target, self._seen(new, target), self._seen(old, target), how)
        await self._mutate(asked)
        if asked.changed:
            asked.repeated = True
            await self._mutate(asked)
        return new if not asked.changed or asked.object is None else self._unseen(asked.object, new, target)

    async def validate_next(self, new: Object, old: Object, target: Target, how: Write) -> None:
        """Raises StatusError."""
        if target.subresource in UNASKED:
            return
        asked = self._asked(UPDATE, target, self._seen(new, target), self._seen(old, target), how)
        for plugin in self._plugins:
            if plugin.listens:
                await plugin.validate(asked)

    @staticmethod
    def _seen(obj: Object, target: Target) -> Object:
        if target.subresource != "scale":
            return obj
        return subresources.scale_of(target.version, obj)

    @staticmethod
    def _unseen(changed: Object, new: Object, target: Target) -> Object:
        if target.subresource != "scale":
            return changed
        subresources.set_replicas(target.version, new, at(changed, "spec", "replicas") or 0)
        return new

    # --- everything else

    async def deleted(self, target: Target, old: Object, how: Write, options: DeleteOptions) -> None:
        """Raises StatusError when somebody is against it."""
        if not self.listening:
            return
        asked = self._asked(DELETE, target, None, old, how, _delete_options(how, options))
        await self._mutate(asked)
        for plugin in self._plugins:
            if plugin.listens:
                await plugin.validate(asked)

    async def made(self, target: Target, kind: Resource, obj: Object, how: Write) -> Object:
        """Of a kind that is sent to a subresource and never stored; raises StatusError."""
        return await self.sent(CREATE, target, kind, obj, how)

    async def sent(self, operation: str, target: Target, kind: Resource, obj: Object, how: Write) -> Object:
        if not self.listening:
            return obj
        asked = self._asked(operation, target, decoding.clone(obj), None, how, kind=kind)
        await self._mutate(asked)
        for plugin in self._plugins:
            if plugin.listens:
                await plugin.validate(asked)
        return obj if asked.object is None else asked.object

    async def _mutate(self, asked: Asked) -> None:
        for plugin in self._plugins:
            if plugin.listens:
                await plugin.mutate(asked)

    # --- the request

    def _asked(
        self,
        operation: str,
        target: Target,
        new: Object | None,
        old: Object | None,
        how: Write,
        options: Object | None = None,
        *,
        kind: Resource | None = None,
    ) -> Asked:
        res = target.resource
        if kind is None and target.subresource == "scale":
            kind = subresources.SCALE
        name = target.name or ((new or {}).get("metadata") or {}).get("name", "")
        is_space = (res.group, res.resource) == ("", "namespaces")
        if operation == CONNECT:
            options = {}
        elif options is None:
            options = {"kind": f"{operation.title()}Options", "apiVersion": "meta.k8s.io/v1", **how.options}
        space = name if is_space else target.namespace if res.namespaced else ""
        forms = self._forms(res, target.version, kind)
        objects = [o if o is None else _whole(o, forms[0], res, kind) for o in (new, old)]
        return Asked(operation, forms, space, name, target.subresource, objects[0], objects[1], how, options, self)

    def _forms(self, res: Resource, ver: Version, kind: Resource | None) -> tuple[Form, ...]:
        """As it was asked, then the other versions and names under which the same objects are served."""
        same = [r for r in self._registry.catalog.all() if r.place == res.place] if not res.custom else [res]
        places = [(res, ver.name)] + [(r, v) for r in same for v in r.preferred if (r, v) != (res, ver.name)]
        if kind is not None:
            spoken = (kind.kind, kind.group, kind.storage_version)
            return tuple(Form(r.group, v, r.resource, *spoken) for r, v in places)
        return tuple(Form(r.group, v, r.resource, r.kind, r.group, v) for r, v in places)

    # --- how objects look (Eyes)

    def _resource(self, form: Form) -> tuple[Resource, Version]:
        return self._registry.resource(form.group, form.resource, form.version)

    async def show(self, obj: Object, asked: Asked, form: Form) -> Object:
        if form is asked.form or form.kind_group != form.group or form.kind_version != form.version:
            return obj  # a Scale or a Binding is the same in all forms
        res, ver = self._resource(form)
        if not res.custom:
            spoken, inner = self._resource(asked.form)
            hub = decoding.hub(obj, spoken, inner)[0]
            other = conversions.of(res.group, res.resource, ver.name)
            return other.show(hub) if other is not None else hub
        return await self._registry.converter.convert(obj, res, ver.name)

    async def read(self, obj: Any, asked: Asked, form: Form) -> Object:
        pseudo = next((k for k in subresources.PSEUDO if (k.group, k.kind) == (form.kind_group, form.kind)), None)
        res, ver = self._resource(form) if pseudo is None else (pseudo, pseudo.versions[pseudo.storage_version])
        try:
            new = decoding.read(obj, res, ver)
        except StatusError as e:
            why = e.message.partition("cannot be handled as a ")[2].partition(": ")[2] or e.message
            raise calls.failure(why) from e
        if form is not asked.form and pseudo is None:
            spoken, inner = self._resource(asked.form)
            if res.custom:
                new = await self._registry.converter.convert(new, res, inner.name)
            else:
                hub = decoding.hub(new, res, ver)[0]
                other = conversions.of(spoken.group, spoken.resource, inner.name)
                new = other.show(hub) if other is not None else hub
        elif pseudo is None and decoding.hub(new, res, ver)[1] is ver:
            strategy(res).defaults(new, self._registry.context(res, ver, asked.how))
        if (asked.operation, asked.subresource) == (UPDATE, "") and asked.old is not None:
            self._same_name(new, asked)
        return new

    @staticmethod
    def _same_name(new: Object, asked: Asked) -> None:
        """Raises StatusError 400."""
        given = new["metadata"].get("name") or ""
        if given != asked.name:
            why = f"the name of the object ({given[:80]}) does not match the name on the URL ({asked.name})"
            raise errors.bad_request(why)


def _become(draft: Object, new: Object) -> None:
    new = decoding.clone(new)
    draft.clear()
    draft.update(new)


def _whole(obj: Object, form: Form, res: Resource, kind: Resource | None) -> Object:
    """With its kind, and with the empty status that typed objects always have."""
    head = {"kind": form.kind, "apiVersion": f"{form.kind_group}/{form.kind_version}".lstrip("/")}
    blank: Object = {"status": {}} if kind is None and not res.custom and res.has("status") else {}
    return {**head, **blank, **obj}


def _delete_options(how: Write, opts: DeleteOptions) -> Object:
    out: Object = {"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"}
    if opts.grace_s is not None:
        out["gracePeriodSeconds"] = opts.grace_s
    wanted = {"uid": opts.uid, "resourceVersion": opts.revision}
    if any(v is not None for v in wanted.values()):
        out["preconditions"] = {k: v for k, v in wanted.items() if v is not None}
    if opts.propagation is not None:
        out["propagationPolicy"] = opts.propagation
    if how.dry_run or opts.dry_run:
        out["dryRun"] = ["All"]
    return out
