"""The kubelets' certificate, signed by the cluster's own signer for kubelets, so that its API server can check it."""

from __future__ import annotations

import json
import socket
import ssl

import pytest

from cloud.kubelet import serving_cert
from tests.contract.any_cluster.conftest import GRACE_S, Site

pytestmark = [pytest.mark.contract, pytest.mark.timeout(400)]
ELSEWHERE = "127.0.0.2"


def served(site: Site, address: str, port: int) -> bool:
    """Whether what is served there is signed by the cluster's CA for this address."""
    trusted = site.get("-n", "kube-system", "configmap", "kube-root-ca.crt")["data"]["ca.crt"]
    context = ssl.create_default_context(cadata=trusted)
    try:
        with socket.create_connection((address, port), timeout=10) as s, context.wrap_socket(s, server_hostname=address):
            return True
    except (ssl.SSLError, OSError):
        return False


def test_it_is_signed_by_the_cluster_and_kept(site: Site) -> None:
    address = site.installed.address
    site.until("it is served", lambda: served(site, address, site.installed.kubelet_port))
    asked = site.said().count('"kubelet.certificate"')
    site.world.processes.stop("cloud")
    try:
        site.installed.start("cloud", "--grace", str(GRACE_S))
        site.until("it is served again", lambda: served(site, address, site.installed.kubelet_port))
    finally:
        site.node_is("True")
    assert site.said().count('"kubelet.certificate"') == asked, "a restart asks for none"


def test_an_administrator_approves_or_denies_it(site: Site) -> None:
    """Of a second pod that may only ask, at an address of its own."""
    second = site.another(address=ELSEWHERE, SKERRY_CLOUD_RUN_KUBELET_CSR="request")
    second.start("cloud", "--grace", str(GRACE_S), called="cloud-2")
    try:
        name = site.until("it waits", lambda: _waiting(site))
        assert not served(site, ELSEWHERE, second.kubelet_port)
        asked = site.get("csr", name)
        assert asked["spec"]["username"] == "system:serviceaccount:skerry-system:skerry"
        assert asked["spec"]["signerName"] == serving_cert.SIGNER and not asked["status"]
        site.ok("certificate", "approve", name)
        site.until("it is served", lambda: served(site, ELSEWHERE, second.kubelet_port))
    finally:
        site.world.processes.stop("cloud-2")


def _waiting(site: Site) -> str:
    said = [json.loads(line) for line in site.said("cloud-2").splitlines() if line.startswith("{")]
    hints = [line["hint"] for line in said if line["event"] == "kubelet.certificate.waits"]
    return str(hints[-1]).rsplit(" ", 1)[-1] if hints else ""
