"""What must be on the node's disk for a pod's volumes, and what a container mounts from there.

A plan is compared by its digest: a changed config map, secret, label or annotation makes a new plan, which the rim swaps in
atomically (edge/volumes.py).  A claim is the volume that it is bound to: a path of this node, or a folder that the daemon
keeps (schemas/local_volumes.py).  Volumes that need a storage driver (CSI, cloud disks) are not known here: the pod waits
and says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge.core import quantities, references
from edge.core.pod_spec import InvalidPod, Pod, reading
from edge.core.references import Missing, References
from edge.core.settings import NodeFacts
from schemas import local_volumes, pod_tokens

DEFAULT_MODE = 0o644  # Kubernetes: defaultMode of config map, secret and projected volumes


@dataclass(frozen=True, slots=True)
class File:
    path: str
    content: bytes
    mode: int


@dataclass(frozen=True, slots=True)
class FilesVolume:
    """configMap, secret, downwardAPI, projected: whole content, swapped atomically.  ``missing`` says what it waits for;
    what is on the disk from before stays there."""

    name: str
    files: tuple[File, ...]
    secret: bool
    missing: str = ""


@dataclass(frozen=True, slots=True)
class EmptyDir:
    name: str


@dataclass(frozen=True, slots=True)
class MemoryDir:
    """emptyDir with medium Memory: a tmpfs that lives as long as the sandbox."""

    name: str
    size: int | None


@dataclass(frozen=True, slots=True)
class HostPath:
    name: str
    path: str
    type: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class KeptDir:
    """A folder that outlives its pods: of a claim."""

    name: str
    handle: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Waiting:
    """A claim whose volume is not known here yet."""

    name: str
    missing: str


Volume = FilesVolume | EmptyDir | MemoryDir | HostPath | KeptDir | Waiting


@dataclass(frozen=True, slots=True)
class Plan:
    volumes: tuple[Volume, ...]
    digest: str

    @property
    def missing(self) -> str:
        """The first thing that a volume waits for, in the kubelet's words; empty when all is there."""
        return next((v.missing for v in self.volumes if isinstance(v, FilesVolume | Waiting) and v.missing), "")


def plan(pod: Pod, refs: References, node: NodeFacts) -> Plan:
    """Raises InvalidPod for a volume that can't be had here."""
    volumes = reading("pod.spec.volumes", lambda: tuple(_volume(v, pod, refs, node) for v in pod.volumes))
    return Plan(volumes, hashlib.sha256(repr(volumes).encode()).hexdigest())


def _volume(raw: Mapping[str, Any], pod: Pod, refs: References, node: NodeFacts) -> Volume:
    name = raw.get("name")
    if not isinstance(name, str) or not name or "/" in name or name.startswith("."):
        raise InvalidPod(f"pod.spec.volumes: {name!r} is not a name")
    empty = raw.get("emptyDir")
    if isinstance(empty, dict):
        if empty.get("medium") != "Memory":
            return EmptyDir(name)
        try:
            return MemoryDir(name, quantities.whole(empty["sizeLimit"]) if empty.get("sizeLimit") else None)
        except ValueError as e:
            raise InvalidPod(f"pod.spec.volumes.{name}.emptyDir.sizeLimit: {e}") from e
    host = raw.get("hostPath")
    if isinstance(host, dict):
        path = host.get("path")
        if not isinstance(path, str) or not path.startswith("/") or ".." in path.split("/"):
            raise InvalidPod(f"pod.spec.volumes.{name}.hostPath.path: an absolute path without '..' is needed")
        return HostPath(name, path, str(host.get("type") or ""))
    for field in ("configMap", "secret", "downwardAPI"):
        source = raw.get(field)
        if isinstance(source, dict):
            mode = _mode(source.get("defaultMode"), DEFAULT_MODE)
            try:
                return FilesVolume(name, _source(field, source, mode, pod, refs, node), field == "secret")
            except Missing as e:
                return FilesVolume(name, (), field == "secret", str(e))
    projected = raw.get("projected")
    if isinstance(projected, dict):
        try:
            return _projected(name, projected, pod, refs, node)
        except Missing as e:
            return FilesVolume(name, (), True, str(e))
    claim = raw.get("persistentVolumeClaim")
    if isinstance(claim, dict):
        try:
            volume = refs.volume(pod.namespace, str(claim.get("claimName") or ""))
        except Missing as e:
            return Waiting(name, str(e))
        return _claimed(name, volume, bool(claim.get("readOnly")), node)
    kind = next((k for k in raw if k != "name"), "nothing")
    raise InvalidPod(f"pod.spec.volumes.{name}: volumes of type {kind} are not supported on an edge node")


def _claimed(name: str, spec: Mapping[str, Any], read_only: bool, node: NodeFacts) -> Volume:
    local = local_volumes.of({"spec": spec})
    if local is not None:
        handle, where = local
        if where != node.name:
            raise InvalidPod(f"pod.spec.volumes.{name}: the volume is on node {where}")
        return KeptDir(name, handle, read_only)
    for field, kind in (("local", "Directory"), ("hostPath", "")):
        source = spec.get(field)
        if isinstance(source, dict):
            path = source.get("path")
            if not isinstance(path, str) or not path.startswith("/") or ".." in path.split("/"):
                raise InvalidPod(f"pod.spec.volumes.{name}: {field}.path: an absolute path without '..' is needed")
            return HostPath(name, path, str(source.get("type") or kind), read_only)
    known = ("accessModes", "capacity", "claimRef", "mountOptions", "nodeAffinity", "storageClassName", "volumeMode")
    other = next((k for k, v in spec.items() if k not in known and isinstance(v, dict)), "nothing")
    raise InvalidPod(f"pod.spec.volumes.{name}: persistent volumes of type {other} are not supported on an edge node")


def _projected(name: str, projected: Mapping[str, Any], pod: Pod, refs: References, node: NodeFacts) -> FilesVolume:
    sources = [s for s in projected.get("sources") or [] if isinstance(s, dict)]
    mode = _mode(projected.get("defaultMode"), DEFAULT_MODE)
    # A cluster adds a token volume to every pod, though few ever use it.  A token that can't be had (no right to ask for
    # it, a cluster that is away) must not keep the pod from running, nor must what belongs to it; it appears when it comes.
    token = any("serviceAccountToken" in s for s in sources)
    files: dict[str, File] = {}
    for source in sources:
        for field in ("configMap", "secret", "downwardAPI"):
            one = source.get(field)
            if isinstance(one, dict):
                given = {**one, "optional": True} if token else one
                files.update({f.path: f for f in _source(field, given, mode, pod, refs, node)})
        wish = pod_tokens.asked(source)
        held = (refs.files(pod_tokens.RESOURCE, pod.namespace, pod.name) or {}) if wish else {}
        if wish is not None and (value := held.get(f"{pod.uid}/{wish.audience}")) is not None:
            files[wish.path] = File(_path(wish.path), value, mode)
    return FilesVolume(name, tuple(files[p] for p in sorted(files)), any("secret" in s for s in sources) or token)


def _source(
    field: str, source: Mapping[str, Any], mode: int, pod: Pod, refs: References, node: NodeFacts
) -> tuple[File, ...]:
    if field == "downwardAPI":
        return tuple(_downward(i, mode, pod, node) for i in source.get("items") or [] if isinstance(i, dict))
    resource = "secrets" if field == "secret" else "configmaps"
    name = str(source.get("secretName") or source.get("name") or "")
    optional = bool(source.get("optional"))
    data = refs.files(resource, pod.namespace, name)
    if data is None:
        if optional:
            return ()
        raise Missing(f'{"secret" if resource == "secrets" else "configmap"} "{name}" not found')
    items = source.get("items")
    if not items:
        return tuple(File(_path(k), data[k], mode) for k in sorted(data))
    files = []
    for item in items:
        key = str(item.get("key", "")) if isinstance(item, dict) else ""
        if key in data:
            files.append(File(_path(str(item.get("path") or key)), data[key], _mode(item.get("mode"), mode)))
        elif not optional:
            raise Missing(f'{resource[:-1]} "{name}" references non-existent config key: {key}')
    return tuple(files)


def _downward(item: Mapping[str, Any], mode: int, pod: Pod, node: NodeFacts) -> File:
    path, file_mode = _path(str(item.get("path", ""))), _mode(item.get("mode"), mode)
    field = item.get("fieldRef")
    if isinstance(field, dict):
        text = references.pod_field(str(field.get("fieldPath", "")), pod, node, "")
        return File(path, text.encode(), file_mode)
    ref = item.get("resourceFieldRef")
    container = next((c for c in pod.containers if isinstance(ref, dict) and c.name == ref.get("containerName")), None)
    if not isinstance(ref, dict) or container is None:
        raise InvalidPod(
            f"pod.spec.volumes: downwardAPI item {path}: fieldRef, or resourceFieldRef with a container, is needed"
        )
    return File(path, references.resource_field(ref, container, node).encode(), file_mode)


def _path(path: str) -> str:
    if not path or path.startswith(("/", "..")) or ".." in path.split("/"):
        raise InvalidPod(f"pod.spec.volumes: {path[:80]!r} is not a relative path without '..'")
    return path


def _mode(value: Any, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 0o777 else default
