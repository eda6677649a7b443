"""Two replicas of the bridge on one cluster: one leads by the cluster's Lease, and the other takes over."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.any_cluster.conftest import GRACE_S, NAMESPACE, Site, sleeper, template, workload
from tests.contract.install.as_pod import AsPod

pytestmark = [pytest.mark.contract, pytest.mark.timeout(400)]


def lease(site: Site) -> dict[str, Any]:
    found: dict[str, Any] = site.get("-n", NAMESPACE, "lease", "skerry-bridge")["spec"]
    return found


def test_a_replica_takes_over_and_the_kubelets_go_on(site: Site) -> None:
    second: AsPod = site.another()
    with site.namespace() as n:
        site.make(workload("Deployment", n, "web", template("web", sleeper()), replicas=1))
        pod = site.ready(n, "web", 1)[0]["metadata"]["name"]
        second.start("cloud", "--grace", str(GRACE_S), called="cloud-2")
        try:
            site.until("the second serves", lambda: "kubelet.serving" in site.said("cloud-2"))
            before = lease(site)
            site.world.processes.kill_9("cloud")
            site.ok("-n", n, "scale", "deployment/web", "--replicas=2")
            site.ready(n, "web", 2)
            after = lease(site)
            assert after["holderIdentity"] != before["holderIdentity"]
            assert after["leaseTransitions"] == before["leaseTransitions"] + 1
            site.until("the Node names the second's port", lambda: _port(site) == second.kubelet_port)
            assert site.ok("-n", n, "exec", pod, "--", "echo", "still") == b"still\n"
        finally:
            site.installed.start("cloud", "--grace", str(GRACE_S))
            site.until("the first is back", lambda: site.said().count("kubelet.serving") >= 2)
            site.world.processes.stop("cloud-2")
            site.until("it leads again", lambda: _port(site) == site.installed.kubelet_port)


def _port(site: Site) -> int:
    return int(site.get("node", site.node)["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"])
