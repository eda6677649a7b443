"""Who a pod is: its service account must exist, and gives it a token to read and secrets to pull images with.

Source: Kubernetes documentation, "Configure Service Accounts for Pods"; kube-apiserver's plugin/pkg/admission/serviceaccount
(the names, the words, and the 3607 seconds).
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import Any

from bus.kube import errors, objectmeta
from bus.kube.admission.base import Plugin
from bus.kube.kinds.base import at
from bus.kube.storage import Object, Reader
from bus.kube.targets import Target, Write
from schemas.pod_tokens import ROOT_CA
from schemas.subjects import ObjectKey

DEFAULT = "default"
MOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
VOLUME_PREFIX = "kube-api-access-"
TOKEN_LIFE_S = 3607
WAIT_S = 3.0  # for the account of a namespace that was made a moment ago: its controller is on the way
POLL_S = 0.05
_MIRROR = "kubernetes.io/config.mirror"


class ServiceAccounts(Plugin):
    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def fill(self, target: Target, obj: Object, how: Write) -> None:
        if (target.resource.group, target.resource.resource) != ("", "pods"):
            return
        if _MIRROR in (obj["metadata"].get("annotations") or {}):
            return
        spec = obj["spec"]
        name = spec.get("serviceAccountName") or spec.get("serviceAccount") or DEFAULT
        spec["serviceAccountName"] = spec["serviceAccount"] = name
        account = await self._account(target, obj["metadata"].get("name", ""), name)
        if _mounts(spec, account):
            _mount(spec, obj["metadata"]["uid"])
        if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
            spec["imagePullSecrets"] = [{"name": s["name"]} for s in account["imagePullSecrets"] if s.get("name")]

    async def _account(self, target: Target, pod: str, name: str) -> Object:
        """Raises StatusError 403."""
        key, until = ObjectKey("", "serviceaccounts", target.namespace, name), time.monotonic() + WAIT_S
        while (stored := self._reader.get(key)) is None:
            if time.monotonic() > until:
                why = f'error looking up service account {target.namespace}/{name}: serviceaccount "{name}" not found'
                raise errors.forbidden("", "pods", pod, why)
            await asyncio.sleep(POLL_S)
        return stored.object


def _mounts(spec: Object, account: Object) -> bool:
    """The pod's own word counts before its account's."""
    for said in (spec.get("automountServiceAccountToken"), account.get("automountServiceAccountToken")):
        if said is not None:
            return bool(said)
    return True


def _mount(spec: Object, uid: str) -> None:
    volumes: list[Object] = spec.setdefault("volumes", [])
    there = next((v["name"] for v in volumes if str(v.get("name", "")).startswith(VOLUME_PREFIX)), None)
    # The same for the same pod, whoever computes it.
    name = there or objectmeta.generated(VOLUME_PREFIX, lambda n: hashlib.sha256(uid.encode()).digest()[:n])
    needed = False
    for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
        mounts: list[Object] = container.get("volumeMounts") or []
        if not any(m.get("mountPath") == MOUNT_PATH for m in mounts):
            container["volumeMounts"] = [*mounts, {"name": name, "readOnly": True, "mountPath": MOUNT_PATH}]
            needed = True
    if needed and there is None:
        volumes.append(_volume(name))
    if not volumes:
        del spec["volumes"]


def _volume(name: str) -> Object:
    namespace = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    sources: list[Any] = [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_LIFE_S, "path": "token"}},
        {"configMap": {"name": ROOT_CA, "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [namespace]}},
    ]
    return {"name": name, "projected": {"defaultMode": 0o644, "sources": sources}}


def of_pod(pod: Object) -> str:
    """The name of a pod's account."""
    return str(at(pod, "spec", "serviceAccountName") or DEFAULT)
