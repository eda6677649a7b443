"""The kubelets' endpoint asked directly: who is let in, which node is meant, and what a node tells of itself."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.contract.kubelet.certificates import Identity
from tests.contract.kubelet.conftest import Bridged
from tests.contract.node_api.conftest import WAIT_S

pytestmark = [pytest.mark.contract, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def apiserver(place: Bridged) -> Identity:
    return place.cluster.ca.issue("kube-apiserver-kubelet-client", "system:masters")


@pytest.fixture(scope="module")
def own(place: Bridged) -> int:
    """The node's own port."""
    status = place.world.get("node", place.node)["status"]
    assert status["addresses"] == [{"type": "InternalIP", "address": "127.0.0.1"}]
    port = status["daemonEndpoints"]["kubeletEndpoint"]["Port"]
    assert port in place.ports
    return int(port)


def ask(port: int, path: str, who: Identity | None, *, method: str = "GET", **headers: str) -> tuple[int, str]:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if who is not None:
        context.load_cert_chain(who.cert, who.key)
    request = urllib.request.Request(f"https://127.0.0.1:{port}{path}", method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, context=context, timeout=WAIT_S) as answer:
            return int(answer.status), answer.read().decode()
    except urllib.error.HTTPError as e:
        with e:
            return e.code, e.read().decode()


def test_who_is_let_in(place: Bridged, apiserver: Identity, own: int) -> None:
    log = "/containerLogs/default/two/side"
    for port in (place.kubelet_port, own):
        assert ask(port, log, apiserver) == (200, "beside\n")
        assert ask(port, log, None)[0] == 401
        code, said = ask(port, log, place.cluster.ca.issue("stranger", "system:nodes"))
        assert code == 403 and f"user=stranger, verb=get, resource=nodes, subresource=proxy, node={place.node}" in said
    granted = {"metadata": {"name": "stats"}, "rules": [{"apiGroups": [""], "resources": ["nodes/stats"], "verbs": ["get"]}]}
    rbac = "rbac.authorization.k8s.io"
    subject = {"kind": "User", "name": "watcher", "apiGroup": rbac}
    bound = {"metadata": {"name": "stats"}, "roleRef": {"kind": "ClusterRole", "name": "stats", "apiGroup": rbac}}
    place.cluster.do(place.cluster.create(rbac, "clusterroles", "", granted))
    place.cluster.do(place.cluster.create(rbac, "clusterrolebindings", "", {**bound, "subjects": [subject]}))
    watcher = place.cluster.ca.issue("watcher")
    assert ask(own, "/stats/summary", watcher)[0] == 200
    assert ask(own, log, watcher)[0] == 403
    assert ask(own, "/metrics/resource", watcher)[0] == 403


def test_a_token_of_an_account_as_metrics_server_has_one(place: Bridged, own: int) -> None:
    place.ok("create", "serviceaccount", "meter")
    place.ok("create", "clusterrole", "meter", "--verb=get", "--resource=nodes/metrics")
    place.ok("create", "clusterrolebinding", "meter", "--clusterrole=meter", "--serviceaccount=default:meter")
    token = place.ok("create", "token", "meter").decode().strip()
    assert ask(own, "/metrics/resource", None, Authorization=f"Bearer {token}")[0] == 200
    code, said = ask(own, "/stats/summary", None, Authorization=f"Bearer {token}")
    assert code == 403 and "user=system:serviceaccount:default:meter" in said
    assert ask(own, "/metrics/resource", None, Authorization=f"Bearer {token[:-3]}xyz")[0] == 401


def test_a_certificate_of_another_authority_is_refused(place: Bridged, tmp_path_factory: pytest.TempPathFactory) -> None:
    from tests.contract.kubelet.certificates import ClientCa

    forged = ClientCa(tmp_path_factory.mktemp("forged")).issue("kube-apiserver-kubelet-client", "system:masters")
    with pytest.raises((urllib.error.URLError, ssl.SSLError, ConnectionError)):
        ask(place.kubelet_port, "/healthz", forged)


def test_paths(place: Bridged, apiserver: Identity, own: int) -> None:
    uid = place.world.get("pod", "two")["metadata"]["uid"]
    port = place.kubelet_port
    assert ask(port, "/healthz", apiserver) == (200, "ok")
    assert ask(port, "/run/default/two/main?cmd=echo+hello", apiserver, method="POST") == (200, "hello\n")
    assert ask(port, f"/run/default/two/{uid}/main?cmd=echo+hello", apiserver, method="POST") == (200, "hello\n")
    assert ask(port, "/run/default/two/main?cmd=false", apiserver, method="POST")[0] == 500
    for path, code, said in (
        ("/containerLogs/default/nope/main", 404, "pod default/nope does not exist"),
        ("/exec/default/two/another-uid/main?command=true&output=1", 404, "does not exist"),
        ("/exec/default/two/main?command=true&output=1", 400, "Upgrade request required"),
        ("/exec/default/two/main?output=1", 400, "at least one command"),
        ("/exec/default/two/main?command=true", 400, "at least 1 of stdin"),
        ("/portForward/default/two", 400, "Upgrade request required"),
        ("/containerLogs/default/two/main?tailLines=x", 400, "tailLines"),
        ("/stats/summary", 421, "does not say which"),
        ("/metrics/cadvisor", 404, "has no /metrics/cadvisor"),
        ("/" + "x" * 3000, 404, "has no"),
    ):
        answer = ask(port, path, apiserver)
        assert answer[0] == code and said in answer[1], (path, answer)
    assert ask(own, "/pods", apiserver, method="DELETE")[0] == 405
    spdy = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1", "X-Stream-Protocol-Version": "v1.nonsense"}
    code, said = ask(port, "/exec/default/two/main?command=true&output=1", apiserver, method="POST", **spdy)
    assert code == 403 and "unable to negotiate protocol" in said


def test_what_a_node_tells_of_itself(place: Bridged, apiserver: Identity, own: int) -> None:
    pods = json.loads(ask(own, "/pods", apiserver)[1])
    assert "two" in [p["metadata"]["name"] for p in pods["items"]]
    summary: dict[str, Any] = json.loads(ask(own, "/stats/summary", apiserver)[1])
    assert summary["node"]["nodeName"] == place.node and summary["node"]["memory"]["workingSetBytes"] > 0
    two = next(p for p in summary["pods"] if p["podRef"]["name"] == "two")
    assert {c["name"] for c in two["containers"]} == {"main", "side"}
    assert all(c["cpu"]["usageCoreNanoSeconds"] > 0 for c in two["containers"])
    text = ask(own, "/metrics/resource", apiserver)[1]
    assert 'container_memory_working_set_bytes{container="main",namespace="default",pod="two"} ' in text
    assert "\nnode_cpu_usage_seconds_total " in text and "\ncontainer_cpu_usage_seconds_total{" in text
