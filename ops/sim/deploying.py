"""What users do where controllers run: deployments come, are scaled, rolled and deleted, pods of theirs are deleted or taken
out by another label, and nodes get and lose an autonomy."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random

from bus.kube.deletion import DeleteOptions
from bus.kube.storage import Object
from ops.sim.api import USER, ApiServer
from schemas.subjects import ObjectKey

NAMES, REPLICAS_MAX = 2, 3
NAMESPACE = "apps"
AUTONOMY = "skerry.io/autonomy"
Act = Callable[[ApiServer, Random], Awaitable[None]]


class Deployers:
    def __init__(self, nodes: list[str]) -> None:
        self._nodes = nodes

    async def act(self, server: ApiServer, lots: Random) -> None:
        acts: tuple[Act, ...] = (self._deployment, self._end_deployment, self._pod, self._node)
        do = lots.choices(acts, (6, 1, 2, 2))[0]
        await do(server, lots)

    async def _deployment(self, server: ApiServer, lots: Random) -> None:
        key = ObjectKey("apps", "deployments", NAMESPACE, f"w{lots.randrange(NAMES)}")
        stored = server.storage.get(key)
        if stored is None:
            await server.answered(server.registry.create(*key[:3], self._made(key.name, lots), how=USER))
        elif "deletionTimestamp" not in stored.object["metadata"]:
            patch: Object = {"spec": {"replicas": lots.randrange(REPLICAS_MAX + 1)}}
            if lots.random() < 0.4:
                image = f"busybox:{lots.randrange(3)}"
                patch = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": image}]}}}}
            await server.answered(server.registry.patch(*key, patch, kind="merge", how=USER))

    @staticmethod
    def _made(name: str, lots: Random) -> Object:
        stays = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": lots.choice((2, 20, 300))}
        keys = ("node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready")
        pod: Object = {
            "containers": [{"name": "main", "image": "busybox:0"}],
            "terminationGracePeriodSeconds": lots.choice((0, 2, 30)),
            "tolerations": [{"key": k, **stays} for k in keys],
        }
        return {
            "metadata": {"name": name},
            "spec": {
                "replicas": lots.randrange(1, REPLICAS_MAX + 1),
                "selector": {"matchLabels": {"app": name}},
                "template": {"metadata": {"labels": {"app": name}}, "spec": pod},
                "strategy": {"type": lots.choice(("RollingUpdate", "RollingUpdate", "Recreate"))},
                "revisionHistoryLimit": 2,
            },
        }

    async def _end_deployment(self, server: ApiServer, lots: Random) -> None:
        key = ObjectKey("apps", "deployments", NAMESPACE, f"w{lots.randrange(NAMES)}")
        how = lots.choice(("Background", "Background", "Foreground", "Orphan"))
        if server.storage.get(key) is not None:
            options = DeleteOptions(propagation=how)
            await server.answered(server.registry.delete(*key, how=USER, options=options))

    async def _pod(self, server: ApiServer, lots: Random) -> None:
        """One of theirs is deleted, or given a label that nobody selects: it stays, and belongs to nobody."""
        owned = [s for s in server.storage.list("", "pods", NAMESPACE) if s.object["metadata"].get("ownerReferences")]
        if not owned:
            return
        key = lots.choice(owned).key
        if lots.random() < 0.7:
            await server.answered(server.registry.delete(*key, how=USER))
        else:
            patch = {"metadata": {"labels": {"app": "none"}}}
            await server.answered(server.registry.patch(*key, patch, kind="merge", how=USER))

    async def _node(self, server: ApiServer, lots: Random) -> None:
        key = ObjectKey("", "nodes", "", lots.choice(self._nodes))
        if server.storage.get(key) is not None:
            patch = {"metadata": {"annotations": {AUTONOMY: lots.choice(("10s", "60s", None, None))}}}
            await server.answered(server.registry.patch(*key, patch, kind="merge", how=USER))
