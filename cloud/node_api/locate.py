"""From a pod's name to its node and container, with the refusals of the real API server.

Source: kubernetes, pkg/registry/core/pod/strategy.go (LogLocation, streamLocation, validateContainer).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bus.kube import errors
from bus.kube.registry import Registry
from bus.kube.targets import Target
from bus.tunnel import Dialer, NodeUnreachable, Session, TunnelRefused
from schemas import tunnel


@dataclass(frozen=True, slots=True)
class Place:
    """``node`` is "" while the pod has none."""

    namespace: str
    pod: str
    uid: str
    node: str
    containers: tuple[str, ...]
    inits: tuple[str, ...]
    ephemerals: tuple[str, ...] = ()

    def container(self, asked: str) -> str:
        """Raises StatusError 400."""
        if asked:
            if asked not in (*self.containers, *self.inits, *self.ephemerals):
                raise errors.bad_request(f"container {asked} is not valid for pod {self.pod}")
            return asked
        if len(self.containers) == 1:
            return self.containers[0]
        message = f"a container name must be specified for pod {self.pod}, choose one of: [{' '.join(self.containers)}]"
        if self.inits:
            message += f" or one of the init containers: [{' '.join(self.inits)}]"
        raise errors.bad_request(message)

    def must_have_node(self) -> None:
        if not self.node:
            raise errors.bad_request(f"pod {self.pod} does not have a host assigned")


async def place(rules: Registry, target: Target) -> Place:
    """Raises StatusError 404."""
    return of(await rules.get("", "pods", target.namespace, target.name))


def of(pod: dict[str, Any]) -> Place:
    spec = pod.get("spec") or {}
    return Place(
        pod["metadata"].get("namespace") or "",
        pod["metadata"]["name"],
        pod["metadata"]["uid"],
        spec.get("nodeName") or "",
        _names(spec, "containers"),
        _names(spec, "initContainers"),
        _names(spec, "ephemeralContainers"),
    )


def _names(spec: dict[str, Any], which: str) -> tuple[str, ...]:
    return tuple(c["name"] for c in spec.get(which) or [])


def refusal(error: TunnelRefused) -> errors.StatusError:
    return errors.StatusError(error.code or 500, error.reason or "InternalError", error.message)


async def begin(dialer: Dialer, where: Place, what: tunnel.What) -> Session:
    """A session whose work has begun.  Raises StatusError: the node's own refusal, or 503 when it can't be reached.

    No Retry-After: clients would try ten times before they tell that a link is cut."""
    try:
        session = await dialer.open(where.node, where.uid, where.namespace, where.pod, what)
    except NodeUnreachable as e:
        raise errors.StatusError(503, "ServiceUnavailable", str(e)) from e
    except TunnelRefused as e:
        raise refusal(e) from e
    try:
        await session.started()
    except TunnelRefused as e:
        await session.close()
        raise refusal(e) from e
    except BaseException as e:
        await session.close()
        if isinstance(e, Exception):
            raise errors.StatusError(503, "ServiceUnavailable", str(e)) from e
        raise
    return session
