"""Who leads the bridge, as the cluster sees it: its Lease, beside the lease in the log.

The log's lease says which process of a hub bridges it, the cluster's says which hub.  A leader holds both: it takes the
cluster's only while it holds the log's, so two can't wait for each other.  A Lease whose holder is of the same hub is taken
at once: that process leads no more, the log says so.  Any other is left until it has not changed for its time, by our own
clock, as client-go's leader election does.

A leader that was stopped and goes on finds both over by the clock, right before each request is sent (``client``); what it
sent before is fenced by the resourceVersions and sequences that its writes expect.
Source: Kubernetes documentation, "Leases", "Leader election".
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import structlog

from bus import stamp
from bus.kube import times
from bus.kube.errors import StatusError
from cloud import leases
from cloud.bridge.client import Client, revision
from cloud.bridge.client import Path as Collection
from cloud.core import leases as core
from schemas import times as schema_times

logger = structlog.get_logger(__name__)

NAME = "skerry-bridge"
NAMESPACE = "kube-system"  # where a cluster's own components have theirs; in a pod, the pod's
POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
LEASE_S = 15  # as kube-controller-manager: --leader-elect-lease-duration
RENEW_US, LOOK_US = 3_000_000, 2_000_000
ANSWER_S = 5.0

Work = Callable[[], Coroutine[Any, Any, None]]


def namespace(in_cluster: bool) -> str:
    try:
        return (POD_NAMESPACE.read_text().strip() if in_cluster else "") or NAMESPACE
    except OSError:
        return NAMESPACE


class Election:
    """``run`` until cancelled, once for each term in the log.  ``leads`` right before each write."""

    def __init__(self, client: Client, hub: str, me: str, *, where: str = NAMESPACE, lease_s: int = LEASE_S) -> None:
        self._client, self._hub, self._me = client, hub, me
        self._where, self._lease_s = where, lease_s
        self._contest: leases.Contest | None = None

    @property
    def leads(self) -> bool:
        return self._contest is not None and self._contest.leads

    async def run(self, work: Work) -> None:
        book = LeaseBook(self._client, self._where, self._hub, self._lease_s)
        share = self._lease_s / LEASE_S
        lease = core.Lease(
            f"{self._hub}_{self._me}",
            ttl_us=self._lease_s * 1_000_000,
            renew_us=int(RENEW_US * share),
            look_us=int(LOOK_US * share),
        )
        self._contest = leases.Contest(book, "bridge of the cluster", lease, patience_s=lambda: 0.0, answer_s=ANSWER_S)
        try:
            await self._contest.run(work)
        finally:
            self._contest = None


class LeaseBook:
    """The Lease as a ``Book``; its resourceVersion is the sequence."""

    def __init__(self, client: Client, where: str, hub: str, lease_s: int) -> None:
        self._client, self._where, self._hub, self._lease_s = client, where, hub, lease_s
        self._path = Collection("coordination.k8s.io", "v1", "leases", where)
        self._spec: dict[str, Any] = {}
        self._said = ""

    async def look(self) -> tuple[int, str]:
        try:
            found = await self._client.get(self._path, NAME)
        except StatusError as e:
            if e.code == 404:
                self._spec = {}
                return 0, ""
            raise self._no_answer(e) from e
        spec = found.get("spec")
        self._spec = spec if isinstance(spec, dict) else {}
        holder = str(self._spec.get("holderIdentity") or "")
        mine = holder.startswith(f"{self._hub}_")
        return revision(found), "" if mine else holder

    async def write(self, expect: int, holder: str) -> int:
        now = times.micro(schema_times.rfc3339(stamp.now_us()))
        before = self._spec
        new = holder != before.get("holderIdentity")
        spec = {
            "holderIdentity": holder,
            "leaseDurationSeconds": self._lease_s if holder else 1,
            "acquireTime": now if new or not before.get("acquireTime") else before["acquireTime"],
            "renewTime": now,
            "leaseTransitions": int(before.get("leaseTransitions") or 0) + bool(new and before and holder),
        }
        meta: dict[str, Any] = {"name": NAME, "namespace": self._where}
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}
        try:
            if expect:
                meta["resourceVersion"] = str(expect)
                answer = await self._client.update(self._path, NAME, lease)
            else:
                answer = await self._client.create(self._path, lease)
        except StatusError as e:
            if e.code in (404, 409):
                raise leases.Taken(e.message) from e
            raise self._no_answer(e) from e
        self._spec, self._said = spec, ""
        return revision(answer)

    def _no_answer(self, e: StatusError) -> leases.NoAnswer:
        if self._said != str(e.code):
            self._said = str(e.code)
            where = f"{self._where}/{NAME}"
            logger.warning(
                "bridge.election.lost", lease=where, reason=f"{e.code} {e.message}", hint="without it nobody leads"
            )
        return leases.NoAnswer(e.message)
