"""What a node may do, with the real kubectl in its name: as somebody who stole its credentials would try."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.kube_served import Served, served

pytestmark = pytest.mark.contract
NODE = ("--as", "system:node:edge-1", "--as-group", "system:nodes")


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path, rights=True) as found:
        yield found


async def test_a_node_reads_what_its_pods_name_and_changes_what_is_its_own(api: Served) -> None:
    for name in ("mine", "other"):
        await api.ok("create", "secret", "generic", name, "--from-literal=k=v")
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "edge-1"}}
    await api.ok("create", "-f", "-", *NODE, stdin=json.dumps(node))
    await api.ok("create", "-f", "-", stdin=json.dumps({**node, "metadata": {"name": "edge-2"}}))
    env = [{"name": "K", "valueFrom": {"secretKeyRef": {"name": "mine", "key": "k"}}}]
    spec = {"nodeName": "edge-1", "containers": [{"name": "c", "image": "i", "env": env}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}
    await api.ok("create", "-f", "-", stdin=json.dumps(pod))

    await api.ok("get", "secret", "mine", *NODE)
    await api.ok("get", "pods", "-A", "--field-selector", "spec.nodeName=edge-1", *NODE)
    await api.ok("label", "node", "edge-1", "site=harbour", *NODE)
    await api.ok("delete", "pod", "p", "--grace-period=0", "--force", *NODE)
    for refused, why in (
        (("get", "secret", "mine"), "no relationship found between node 'edge-1' and this object"),  # its pod is gone
        (("get", "secret", "other"), "no relationship found between node 'edge-1' and this object"),
        (("get", "secrets"), "No Object name found"),
        (("get", "pods"), "can only list/watch pods with spec.nodeName field selector"),
        (("get", "node", "edge-2"), "node 'edge-1' cannot read 'edge-2', only its own Node object"),
        (("label", "node", "edge-1", "node-restriction.kubernetes.io/vault=1"), "is not allowed to modify labels"),
        (("taint", "node", "edge-1", "a=b:NoSchedule"), "is not allowed to modify taints"),
        (("delete", "node", "edge-1"), "cannot delete resource"),
        (("run", "x", "--image=i"), "can only create mirror pods"),
        (("create", "token", "default"), "no relationship found"),
    ):
        ran = await api.run(*refused, *NODE)
        assert ran.code == 1 and why in ran.err, (refused, ran.err)
