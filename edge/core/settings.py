"""Every limit of the pods core, with its unit, default and reason.  Tests and demonstrations shorten them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PodSettings:
    crash_base_ms: int = 10_000  # Kubernetes: first real wait of a crash loop
    crash_max_ms: int = 300_000  # Kubernetes: longest wait of a crash loop
    crash_reset_ms: int = 600_000  # Kubernetes: running this long forgets earlier crashes
    pull_base_ms: int = 10_000  # Kubernetes: first wait after a failed pull
    pull_max_ms: int = 300_000  # Kubernetes: longest wait after failed pulls
    retry_base_ms: int = 1_000  # a failed runtime or file operation is tried again after this ...
    retry_max_ms: int = 30_000  # ... and never less often than this: it may be what keeps a pod down
    orphan_grace_ms: int = 60_000  # containers that no pod claims live this long after the replica is complete
    settle_ms: int = 5_000  # what a daemon that died had asked of the engine may still happen for this long
    resync_ms: int = 300_000  # events are hints; the truth is read again this often
    adopt_wait_ms: int = 5_000  # first report of an adopted pod waits this long for its probes, instead of flapping
    default_grace_s: int = 30  # Kubernetes: terminationGracePeriodSeconds
    pull_fallback: bool = True  # an unreachable registry doesn't stop a node from starting an image that it has
    cluster_dns: tuple[str, ...] = ()  # name servers for dnsPolicy ClusterFirst; none: the host's own
    cluster_domain: str = "cluster.local"
    network: str = "bridge"  # container network that sandboxes join
    service_links: bool = True  # *_SERVICE_HOST variables for services of the pod's namespace


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a pod can ask about its node (fieldRef, resourceFieldRef)."""

    name: str
    host_ip: str = ""
    cpu_milli: int = 0
    memory_bytes: int = 0
