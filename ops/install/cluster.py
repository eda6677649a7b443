"""Installing into a cluster, and taking it away again.

Every object is applied server-side under one field manager, so installing again is upgrading, and what somebody else set
stays theirs.  Before anything is made, everything is tried (``dryRun=All``): a cluster that would refuse one object gets
none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path as File
from typing import Any

from bus.kube.errors import StatusError
from cloud.bridge import credentials
from cloud.bridge.client import Client, Path, Selection
from ops.install import objects
from ops.install.objects import Object
from ops.install.values import Values

MANAGER = "skerry-install"
WAIT_S = 300.0  # for a volume, an image and a first start
LOOK_S = 0.5
Say = Callable[[str], None]

_DEFINITIONS = Path("apiextensions.k8s.io", "v1", "customresourcedefinitions")
# What there is to take away, in this order; a claim and a namespace hold the log.
_PLACES = {
    "CustomResourceDefinition": ("apiextensions.k8s.io", "v1", "customresourcedefinitions", False),
    "Namespace": ("", "v1", "namespaces", False),
    "ServiceAccount": ("", "v1", "serviceaccounts", True),
    "ClusterRole": ("rbac.authorization.k8s.io", "v1", "clusterroles", False),
    "ClusterRoleBinding": ("rbac.authorization.k8s.io", "v1", "clusterrolebindings", False),
    "Role": ("rbac.authorization.k8s.io", "v1", "roles", True),
    "RoleBinding": ("rbac.authorization.k8s.io", "v1", "rolebindings", True),
    "PersistentVolumeClaim": ("", "v1", "persistentvolumeclaims", True),
    "Service": ("", "v1", "services", True),
    "Deployment": ("apps", "v1", "deployments", True),
}


class InstallError(Exception):
    """The cluster refused, or did not become ready; the message says what."""


def path_of(obj: Object) -> Path:
    group, version, resource, namespaced = _PLACES[obj["kind"]]
    return Path(group, version, resource, obj["metadata"]["namespace"] if namespaced else "")


def words(obj: Object) -> str:
    return f"{obj['kind'].lower()}/{obj['metadata']['name']}"


class Installer:
    """``close`` it at the end.  Raises CredentialsError for a kubeconfig that can't be used; methods raise InstallError."""

    def __init__(self, kubeconfig: File | None, context: str | None = None, *, say: Say = print) -> None:
        who = credentials.load(kubeconfig, context)
        self.url = who.url
        self._client, self._say = Client(who), say

    async def close(self) -> None:
        await self._client.close()

    async def install(self, values: Values, *, force: bool = False, wait_s: float = WAIT_S) -> None:
        """Idempotent.  ``force`` takes over fields that others own; ``wait_s`` 0 does not wait for the pod."""
        made = objects.objects(values)
        definitions = [d for d in objects.definitions() if not await self._foreign(d)]
        await self._try([*definitions, *made], values, force)
        for definition in definitions:
            await self._apply(definition, force)
        for definition in definitions:
            await self._until_established(definition["metadata"]["name"])
        for obj in made:
            await self._apply(obj, force)
        names = [words(o) for o in made]
        for obj in objects.objects(replace(values, kubelet_csr="approve")):
            if words(obj) not in names and await self._has(path_of(obj), obj["metadata"]["name"]):
                await self._delete(obj)  # rights that an installation before had
        if wait_s > 0:
            await self._until_available(made[-1], wait_s)

    async def uninstall(self, namespace: str, *, data: bool, definitions: bool) -> None:
        """``data``: the claim with the log and the namespace too; ``definitions``: and with them all devices and rules."""
        found = objects.objects(Values(host="any", namespace=namespace, kubelet_csr="approve"))
        for obj in reversed(found):
            if obj["kind"] in ("Namespace", "PersistentVolumeClaim") and not data:
                self._say(f"{words(obj)} kept")
                continue
            await self._delete(obj)
        for obj in objects.definitions() if definitions else ():
            if not await self._foreign(obj):
                await self._delete(obj)

    # --- one object ------------------------------------------------------------------------------------------------

    async def _foreign(self, definition: Object) -> bool:
        """Whether KubeEdge (or somebody else) has installed it: then it is theirs, if it has what we need.  Raises
        InstallError when it has not."""
        name = definition["metadata"]["name"]
        try:
            there = await self._client.get(_DEFINITIONS, name)
        except StatusError as e:
            if e.code == 404:
                return False
            raise _refused(f"customresourcedefinition/{name}", e) from e
        if (there["metadata"].get("labels") or {}).get(objects.MANAGED_BY) == objects.LABELS[objects.MANAGED_BY]:
            return False
        need = {v["name"] for v in definition["spec"]["versions"] if v["served"]}
        served = {v["name"] for v in there["spec"]["versions"] if v["served"]}
        if not need & served:
            raise InstallError(
                f"customresourcedefinition/{name} is there and serves {', '.join(sorted(served))}; "
                f"Skerry needs one of {', '.join(sorted(need))}: upgrade what brought it"
            )
        self._say(f"customresourcedefinition/{name} is there already and not ours: left as it is")
        return True

    async def _try(self, every: list[Object], values: Values, force: bool) -> None:
        """As dry runs, which change nothing."""
        there = await self._has(Path("", "v1", "namespaces"), values.namespace)
        refused = []
        for obj in every:
            path = path_of(obj)
            if path.namespace and not there:  # what is in a namespace can't be tried before there is one
                refused += await self._may_not(path)
                continue
            try:
                await self._client.apply(path, obj, manager=MANAGER, force=force, dry_run=True)
            except StatusError as e:
                refused.append(f"{words(obj)}: {e.message}")
        if refused:
            raise InstallError("nothing was changed, because the cluster refuses:\n  " + "\n  ".join(dict.fromkeys(refused)))

    async def _may_not(self, path: Path) -> list[str]:
        """The rights to make something that we don't have, in words."""
        out = []
        for verb in ("create", "patch"):
            asked = {"namespace": path.namespace, "verb": verb, "group": path.group, "resource": path.resource}
            review = {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": asked},
            }
            try:
                answer = await self._client.create(Path("authorization.k8s.io", "v1", "selfsubjectaccessreviews"), review)
            except StatusError as e:
                if e.code == 404:  # a cluster that has no authorization lets everybody
                    return []
                raise _refused("the question what we may do", e) from e
            if not (answer.get("status") or {}).get("allowed"):
                out.append(f"you may not {verb} {path.resource} in namespace {path.namespace}")
        return out

    async def _has(self, path: Path, name: str) -> bool:
        try:
            await self._client.get(path, name)
        except StatusError as e:
            if e.code == 404:
                return False
            raise _refused(f"{path.resource}/{name}", e) from e
        return True

    async def _apply(self, obj: Object, force: bool) -> None:
        try:
            await self._client.apply(path_of(obj), obj, manager=MANAGER, force=force)
        except StatusError as e:
            raise _refused(words(obj), e) from e
        self._say(f"{words(obj)} applied")

    async def _delete(self, obj: Object) -> None:
        try:
            await self._client.delete(path_of(obj), obj["metadata"]["name"], {"propagationPolicy": "Background"})
        except StatusError as e:
            if e.code != 404:
                raise _refused(words(obj), e) from e
            self._say(f"{words(obj)} is not there")
            return
        self._say(f"{words(obj)} deleted")

    # --- waiting ---------------------------------------------------------------------------------------------------

    async def _until_established(self, name: str) -> None:
        async def look() -> str:
            found = await self._client.get(_DEFINITIONS, name)
            return "" if _condition(found, "Established").get("status") == "True" else "it is not established"

        await _until(f"customresourcedefinition/{name}", look, 60.0)

    async def _until_available(self, deployment: Object, wait_s: float) -> None:
        path, name = path_of(deployment), deployment["metadata"]["name"]

        async def look() -> str:
            found = await self._client.get(path, name)
            seen = (found.get("status") or {}).get("observedGeneration", 0) >= found["metadata"].get("generation", 0)
            available = _condition(found, "Available")
            if seen and available.get("status") == "True" and (found["status"].get("updatedReplicas") or 0) >= 1:
                return ""
            return await self._why(path.namespace) or str(available.get("message") or "its pod is not ready")

        self._say(f"waiting up to {wait_s:g} s for {words(deployment)}")
        await _until(words(deployment), look, wait_s)

    async def _why(self, namespace: str) -> str:
        """What the pod's containers wait for, as the cluster says it."""
        labels = ",".join(f"{k}={v}" for k, v in objects.SELECTOR.items())
        async for page in self._client.pages(Path("", "v1", "pods", namespace), Selection(labels=labels)):
            for pod in page.items:
                status: dict[str, Any] = pod.get("status") or {}
                for c in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
                    waiting = (c.get("state") or {}).get("waiting")
                    if waiting and waiting.get("reason") not in (None, "PodInitializing", "ContainerCreating"):
                        return f"container {c['name']}: {waiting['reason']}: {waiting.get('message', '')}"
                placed: dict[str, Any] = next((c for c in status.get("conditions") or () if c["type"] == "PodScheduled"), {})
                if placed.get("status") == "False":
                    return f"pod {pod['metadata']['name']}: {placed.get('message', '')}"
        return ""


async def _until(what: str, look: Callable[[], Any], wait_s: float) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + wait_s
    while True:
        try:
            why = str(await look())
        except StatusError as e:
            if e.code < 500 and e.code not in (404, 429):
                raise _refused(what, e) from e
            why = e.message
        if not why:
            return
        if loop.time() > end:
            raise InstallError(f"{what} is applied, but not ready after {wait_s:g} s: {why}")
        await asyncio.sleep(LOOK_S)


def _condition(obj: Object, kind: str) -> dict[str, Any]:
    found = (obj.get("status") or {}).get("conditions") or []
    return next((c for c in found if c.get("type") == kind), {})


def _refused(what: str, e: StatusError) -> InstallError:
    return InstallError(f"{what}: the cluster refuses ({e.code}): {e.message}")
