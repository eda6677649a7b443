"""The labels that a container carries: all that is needed to know it again after every loss but its own.

``io.skerry.hub`` keeps nodes of the same name but of different hubs apart when they share an engine (tests, a migration).
"""

from __future__ import annotations

from collections.abc import Mapping

from edge.core.container_config import Identity

NODE = "io.skerry.node"
HUB = "io.skerry.hub"
POD_UID = "io.skerry.pod.uid"
POD_NAMESPACE = "io.skerry.pod.namespace"
POD_NAME = "io.skerry.pod.name"
CONTAINER = "io.skerry.container"
ATTEMPT = "io.skerry.attempt"
SPEC_HASH = "io.skerry.spec-hash"
SANDBOX = "io.skerry.sandbox"
BACKOFF_MS = "io.skerry.backoff-ms"
GRACE_S = "io.skerry.grace-s"
CAUSE = "io.skerry.cause"
TRACE = "io.skerry.trace"

NAME_PART_MAX = 60  # names stay readable in `docker ps`; the uid in them is what makes them unique


def write(identity: Identity, node: str, hub: str) -> dict[str, str]:
    return {
        NODE: node,
        HUB: hub,
        POD_UID: identity.pod_uid,
        POD_NAMESPACE: identity.namespace,
        POD_NAME: identity.pod,
        CONTAINER: identity.container,
        ATTEMPT: str(identity.attempt),
        SPEC_HASH: identity.spec_hash,
        SANDBOX: identity.sandbox,
        BACKOFF_MS: str(identity.backoff_ms),
        GRACE_S: str(identity.grace_s),
        CAUSE: identity.cause,
        TRACE: identity.trace,
    }


def read(labels: Mapping[str, str]) -> Identity | None:
    """None for labels that we didn't write."""
    if not labels.get(POD_UID) or CONTAINER not in labels:
        return None
    return Identity(
        pod_uid=labels[POD_UID],
        namespace=labels.get(POD_NAMESPACE, ""),
        pod=labels.get(POD_NAME, ""),
        container=labels[CONTAINER],
        attempt=_number(labels, ATTEMPT, 0),
        spec_hash=labels.get(SPEC_HASH, ""),
        sandbox=labels.get(SANDBOX, ""),
        backoff_ms=_number(labels, BACKOFF_MS, -1),
        grace_s=_number(labels, GRACE_S, 30),
        cause=labels.get(CAUSE, ""),
        trace=labels.get(TRACE, ""),
    )


def _number(labels: Mapping[str, str], key: str, default: int) -> int:
    try:
        return int(labels[key])
    except (KeyError, ValueError):
        return default


def name(identity: Identity) -> str:
    """The container's name: the engine's refusal of a second one is the last line against two of one container."""
    what = identity.container or "POD"
    return f"skerry_{what[:NAME_PART_MAX]}_{identity.pod[:NAME_PART_MAX]}_{identity.pod_uid}_{identity.attempt}"
