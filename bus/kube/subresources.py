"""Subresources that are not the object itself: scale, binding, eviction, a namespace's finalize."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bus.kube import decoding, errors, eviction, objectmeta, times, typed
from bus.kube.catalog import Resource, Version
from bus.kube.kinds import base, core, pods
from bus.kube.kinds.base import at
from bus.kube.patches import apply, checks, managers
from bus.kube.printing import text
from bus.kube.storage import Object

if TYPE_CHECKING:
    from bus.kube.registry import Registry
    from bus.kube.targets import Target, Write

INTERNAL = ("binding", "finalize", "ephemeralcontainers", "resize")
COUNTED = ("ephemeralcontainers", "resize")  # their changes of the specification are generations
REPLICAS_MAX = 1 << 31


def _pseudo(group: str, kind: str, definition: str) -> Resource:
    """A kind that is spoken but never stored."""
    node = typed.types().definitions[definition]
    versions = {"v1": Version("v1", node)}
    return Resource(
        group, kind.lower() + "s", kind, kind + "List", kind.lower(), True, (), (), versions, "v1", False, ["v1"]
    )


SCALE = _pseudo("autoscaling", "Scale", "io.k8s.api.autoscaling.v1.Scale")
BINDING = _pseudo("", "Binding", "io.k8s.api.core.v1.Binding")
EVICTION = _pseudo("policy", "Eviction", "io.k8s.api.policy.v1.Eviction")
TOKEN = _pseudo("authentication.k8s.io", "TokenRequest", "io.k8s.api.authentication.v1.TokenRequest")
PSEUDO = (SCALE, BINDING, EVICTION, TOKEN)


def success(**details: Any) -> Object:
    status: Object = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
    return {**status, "details": details} if details else status


def get(res: Resource, ver: Version, obj: Object, subresource: str) -> Object:
    """``obj`` as its subresource shows it; raises StatusError 404 for one that there is not."""
    if subresource in ("", "status"):
        if subresource and subresource not in ver.subresources:
            raise errors.no_such_path()
        return obj
    if subresource in ("ephemeralcontainers", "resize") and subresource in ver.subresources:
        return obj
    if subresource == "scale" and "scale" in ver.subresources:
        return scale_of(ver, obj)
    raise errors.no_such_path()


def _paths(ver: Version) -> tuple[list[str], list[str], list[str] | None]:
    """Where replicas, observed replicas and the selector text are."""
    if ver.scale is None:
        return ["spec", "replicas"], ["status", "replicas"], None
    split = [ver.scale.get(f, "").lstrip(".").split(".") for f in ("specReplicasPath", "statusReplicasPath")]
    label = ver.scale.get("labelSelectorPath")
    return split[0], split[1], label.lstrip(".").split(".") if label else None


def scale_of(ver: Version, obj: Object) -> Object:
    wanted, seen, selector = _paths(ver)
    meta = obj["metadata"]
    replicas = at(obj, *wanted) or 0
    status: Object = {"replicas": at(obj, *seen) or 0}
    text = at(obj, *selector) if selector else _selector_text(at(obj, "spec", "selector"))
    if text:
        status["selector"] = text
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {f: meta[f] for f in kept if f in meta},
        "spec": {"replicas": replicas} if replicas else {},
        "status": status,
    }


def _selector_text(selector: Any) -> str:
    """A LabelSelector, or the plain map of a replication controller, in the words of ``-l``."""
    if not selector:
        return ""
    plain = selector if not {"matchLabels", "matchExpressions"} & selector.keys() else None
    return text.selector({"matchLabels": plain} if plain else selector)


async def update(registry: Registry, target: Target, make: Callable[[Object], Any], how: Write) -> Object:
    """Raises StatusError 404 for a subresource that can't be written."""
    res, ver, name, subresource = target.resource, target.version, target.name, target.subresource
    if subresource == "finalize" and res.resource == "namespaces" and not res.group:

        def finalized(current: Object) -> Object:
            new = decoding.read(make(current), res, ver)
            listed = at(new, "spec", "finalizers") or []
            if causes := core.finalizers(listed, "spec.finalizers", indexed=True):
                raise errors.invalid("", "Namespace", target.name, causes)
            new["spec"] = {"finalizers": listed} if listed else {}
            core.Namespaces().defaults(new, base.Context(res, ver, registry.reader, "", how.warnings))
            kept = {f: current[f] for f in ("status",) if f in current}
            return {**new, **kept}

        return await registry.change(target, finalized, how)
    if subresource == "ephemeralcontainers" and subresource in ver.subresources:

        def extended(current: Object) -> Object:
            new = decoding.read(make(current), res, ver, validation=how.validation)
            current["spec"]["ephemeralContainers"] = pods.ephemeral(new, current)
            return _at_revision(current, new)

        return await registry.change(target, extended, how)
    if subresource == "resize" and subresource in ver.subresources:

        def resized(current: Object) -> Object:
            new = decoding.read(make(current), res, ver, validation=how.validation)
            return _at_revision(pods.resized(new, current), new)

        return await registry.change(target, resized, how)
    if subresource == "scale" and "scale" in ver.subresources:

        def scaled(current: Object) -> Object:
            new = decoding.read(make(scale_of(ver, current)), SCALE, SCALE.versions["v1"], validation=how.validation)
            set_replicas(ver, current, _replicas(new, name))
            return _at_revision(current, new)

        asked = dataclasses.replace(target, subresource="")
        return scale_of(ver, await registry.change(asked, scaled, how, asked_as="scale"))
    raise errors.no_such_path()


def set_replicas(ver: Version, obj: Object, replicas: int) -> None:
    """In place."""
    *path, last = _paths(ver)[0]
    for step in path:
        obj = obj.setdefault(step, {})
    obj[last] = replicas


def _replicas(scale: Object, name: str) -> int:
    """Raises StatusError 422."""
    replicas: int = at(scale, "spec", "replicas") or 0
    if not 0 <= replicas < REPLICAS_MAX:
        cause = errors.bad_value("spec.replicas", replicas, "must be greater than or equal to 0")
        raise errors.invalid("autoscaling", "Scale", name, [cause])
    return replicas


async def apply_scale(registry: Registry, target: Target, sent: Any, how: Write) -> Object:
    """Server-side apply of a scale: of the one field of its object.  Raises StatusError 400, 404, 409, 422, 500."""
    res, ver, name, scale = target.resource, target.version, target.name, SCALE.versions["v1"]
    said = checks.applied(sent, "autoscaling/v1", "Scale", name, scale.schema)
    config = decoding.read(said, SCALE, scale)
    objectmeta.check_address(config["metadata"], res, target.namespace, name)
    part: Object = {"apiVersion": res.api_version(ver.name), "kind": res.kind, "metadata": {"name": name}}
    if at(config, "spec", "replicas") is not None:
        set_replicas(ver, part, _replicas(config, name))
    me = managers.Entry(how.manager, "Apply", "scale", part["apiVersion"], "", frozenset())  # no time: as of any scaling

    def make(current: Object) -> Object:
        kind = managers.kind_of(res, ver)
        merged = apply.apply(current, part, part, kind, me, force=how.force, told_in="autoscaling/v1")
        new = decoding.read(merged, res, ver)
        new["metadata"]["managedFields"] = merged["metadata"]["managedFields"]
        return new

    whole = dataclasses.replace(target, subresource="")
    return scale_of(ver, await registry.change(whole, make, how, tracked=False, asked_as="scale"))


def _at_revision(current: Object, asked: Object) -> Object:
    """``current``, to be stored only at the revision that the client named."""
    current["metadata"]["resourceVersion"] = asked["metadata"].get("resourceVersion", "")
    return current


async def create(registry: Registry, target: Target, obj: Any, how: Write) -> Object:
    """A Status of success, or the TokenRequest with its token; raises StatusError."""
    of_pod = (target.resource.group, target.resource.resource) == ("", "pods")
    if of_pod and target.subresource == "binding":
        return await _bind(registry, target, obj, how)
    if of_pod and target.subresource == "eviction":
        registry.removing(target, how)
        kind = (EVICTION, EVICTION.versions["v1"])
        if registry.reviewing.listening:
            read = decoding.read(obj, *kind, validation=how.validation)
            read["metadata"] = {"name": target.name, "namespace": target.namespace, **read["metadata"]}
            obj = await registry.reviewing.made(target, EVICTION, read, how)
        await eviction.evict(registry, target, obj, kind, how)
        return {**success(), "code": 201}
    if (target.resource.group, target.resource.resource, target.subresource) == ("", "serviceaccounts", "token"):
        if registry.issuer is None:
            raise errors.no_such_path()
        registry.admit_token(target, at(obj, "spec") or {}, how)
        return registry.issuer.grant(target, obj, (TOKEN, TOKEN.versions["v1"]), how)
    raise errors.no_such_path()


async def _bind(registry: Registry, at_pod: Target, obj: Any, how: Write) -> Object:
    name = at_pod.name
    binding = decoding.read(obj, BINDING, BINDING.versions["v1"], validation=how.validation)
    given, target = binding["metadata"].get("name") or name, binding.get("target", {})
    if given != name:
        raise errors.bad_request(f"name in URL ({name}) does not match name in Binding object ({given[:80]})")
    if target.get("kind", "Node") not in ("", "Node", "Minion"):
        cause = errors.not_supported("target.kind", target["kind"], ("Node", "<empty>"))
        raise errors.invalid("", "Binding", name, [cause])
    if not target.get("name"):
        raise errors.invalid("", "Binding", name, [errors.required("target.name")])

    pod = registry.stored(at_pod).object
    if registry.reviewing.listening:
        meta = {"name": name, "namespace": at_pod.namespace, **binding["metadata"]}
        binding = await registry.reviewing.made(at_pod, BINDING, {**binding, "metadata": meta}, how)
        target = binding.get("target", {})
    await registry.placed(at_pod, {**pod, "spec": {**pod["spec"], "nodeName": target["name"]}}, how)

    def bound(pod: Object) -> Object:
        meta = pod["metadata"]
        uid = binding["metadata"].get("uid")
        if uid and uid != meta.get("uid"):
            raise errors.conflict("", "pods", name, f"Precondition failed: UID in precondition: {uid}")
        if meta.get("deletionTimestamp"):
            raise errors.conflict("", "pods/binding", name, f"pod {name} is being deleted, cannot be assigned to a host")
        if pod["spec"].get("schedulingGates"):
            why = f"pod {name} has non-empty .spec.schedulingGates"
            raise errors.conflict("", "pods/binding", name, why)
        if pod["spec"].get("nodeName"):
            why = f'pod {name} is already assigned to node "{pod["spec"]["nodeName"]}"'
            raise errors.conflict("", "pods/binding", name, why)
        pod["spec"]["nodeName"] = target["name"]
        if binding["metadata"].get("annotations"):
            meta["annotations"] = {**meta.get("annotations", {}), **binding["metadata"]["annotations"]}
        conditions = [c for c in at(pod, "status", "conditions") or [] if c.get("type") != "PodScheduled"]
        now = times.of_micros(registry.now_us())
        conditions.append({"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now})
        pod.setdefault("status", {})["conditions"] = conditions
        return pod

    await registry.change(at_pod, bound, how)
    return {**success(), "code": 201}
