"""The authority of the API in every namespace, and secrets that hold an account's token."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bus.identity import api_keys
from bus.kube.memory import MemoryStorage
from cloud.standalone import rules
from cloud.standalone.run_controllers import ControllerRunner
from schemas.identity import ApiKeys
from tests.unit.cloud_controllers.kubelets import Cluster, running

CA = "-----BEGIN CERTIFICATE-----\nhere\n-----END CERTIFICATE-----\n"
SECRET = {
    "metadata": {"name": "s", "annotations": {"kubernetes.io/service-account.name": "robot"}},
    "type": "kubernetes.io/service-account-token",
}


class Signed(Cluster):
    def __init__(self) -> None:
        storage = MemoryStorage()
        self.seal = api_keys.Seal("x")
        self.keys = api_keys.Ring(self.seal)
        self.ring = ApiKeys(keys=[self.seal.make(0, signs_from=0)])
        self.keys.take(self.ring)
        self.issuer = rules.make_issuer(storage, self.keys)
        super().__init__(storage, rules.make_registry(storage, issuer=self.issuer))
        self.runner = ControllerRunner(self.registry, root_ca=CA)


@pytest.fixture
async def cluster() -> AsyncIterator[Signed]:
    made = Signed()
    async with running(made):
        yield made


def data(secret: dict[str, Any]) -> dict[str, str]:
    return {k: base64.b64decode(v).decode() for k, v in (secret.get("data") or {}).items()}


async def test_the_authority_is_in_every_namespace_and_comes_back(cluster: Signed) -> None:
    await cluster.create("", "namespaces", {"metadata": {"name": "new"}}, "")
    await cluster.quiet()
    for space in ("default", "kube-system", "new"):
        assert (await cluster.get("", "configmaps", "kube-root-ca.crt", space))["data"] == {"ca.crt": CA}
    await cluster.delete("", "configmaps", "kube-root-ca.crt", "new")
    await cluster.patch("", "configmaps", "kube-root-ca.crt", {"data": {"ca.crt": "mine", "more": "x"}})
    await cluster.quiet()
    for space in ("default", "new"):
        assert (await cluster.get("", "configmaps", "kube-root-ca.crt", space))["data"] == {"ca.crt": CA}


async def test_a_token_secret_is_filled_signed_anew_and_goes_with_its_account(cluster: Signed) -> None:
    account = await cluster.create("", "serviceaccounts", {"metadata": {"name": "robot"}})
    await cluster.create("", "secrets", SECRET)
    await cluster.quiet()
    secret = await cluster.get("", "secrets", "s")
    assert secret["metadata"]["annotations"]["kubernetes.io/service-account.uid"] == account["metadata"]["uid"]
    held = data(secret)
    assert held["namespace"] == "default" and held["ca.crt"] == CA
    assert cluster.issuer.user(held["token"])[0].name == "system:serviceaccount:default:robot"
    now_us = cluster.issuer._now_us()
    ring = api_keys.rotated(cluster.ring, cluster.seal.make(now_us, signs_from=now_us), now_us)
    cluster.keys.take(ring)
    await cluster.patch("", "secrets", "s", {"metadata": {"labels": {"look": "again"}}})
    await cluster.quiet()
    renewed = data(await cluster.get("", "secrets", "s"))["token"]
    cluster.keys.take(api_keys.retired(ring, ring.keys[0].kid, now_us))
    assert cluster.issuer.user(renewed)[0].name == "system:serviceaccount:default:robot"
    await cluster.delete("", "serviceaccounts", "robot")
    await cluster.quiet()
    assert [s for s in await cluster.list("", "secrets") if s["metadata"]["name"] == "s"] == []


async def test_a_token_secret_of_nobody_goes(cluster: Signed) -> None:
    await cluster.create("", "secrets", SECRET)
    await cluster.quiet()
    assert await cluster.list("", "secrets") == []
