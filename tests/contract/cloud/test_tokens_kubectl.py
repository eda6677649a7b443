"""Tokens of service accounts with the real kubectl and the official Python client."""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.kube_served import Served, served

pytestmark = pytest.mark.contract
k8s: Any = importlib.import_module("kubernetes")


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path, rights=True) as found:
        await found.ok("create", "serviceaccount", "robot")
        yield found


async def test_create_token_and_be_the_account(api: Served) -> None:
    token = (await api.ok("create", "token", "robot", "--duration=20m")).strip()
    shown = await api.ok("--token", token, "auth", "whoami", "-o", "json")
    info = json.loads(shown)["status"]["userInfo"]
    assert info["username"] == "system:serviceaccount:default:robot"
    ran = await api.run("--token", token, "get", "configmaps")
    assert ran.code == 1 and 'User "system:serviceaccount:default:robot" cannot list' in ran.err
    await api.ok("create", "rolebinding", "robots", "--clusterrole=view", "--serviceaccount=default:robot")
    await api.ok("--token", token, "get", "configmaps")
    ran = await api.run("--token", token, "create", "configmap", "x")
    assert ran.code == 1 and "cannot create" in ran.err
    asked = await api.run("--token", token, "auth", "can-i", "create", "serviceaccounts/token")
    assert (asked.code, asked.out.strip()) == (1, "no")
    ran = await api.run("create", "token", "robot", "--duration=5m")
    assert ran.code == 1 and "may not specify a duration less than 10 minutes" in ran.err
    ran = await api.run("create", "token", "nobody")
    assert ran.code == 1 and 'serviceaccounts "nobody" not found' in ran.err


async def test_a_token_bound_to_a_secret_ends_with_it(api: Served) -> None:
    await api.ok("create", "secret", "generic", "lock")
    token = (await api.ok("create", "token", "robot", "--bound-object-kind=Secret", "--bound-object-name=lock")).strip()
    await api.ok("--token", token, "auth", "whoami")
    await api.ok("delete", "secret", "lock")
    ran = await api.run("--token", token, "auth", "whoami")
    assert ran.code == 1 and "Unauthorized" in ran.err


async def test_the_python_client_asks_and_reviews(api: Served) -> None:
    admin = k8s.client.ApiClient(k8s.config.kube_config.new_client_from_config(str(api.kubeconfig)).configuration)

    def work() -> None:
        core, authentication = k8s.client.CoreV1Api(admin), k8s.client.AuthenticationV1Api(admin)
        spec = k8s.client.V1TokenRequestSpec(audiences=["vault"], expiration_seconds=900)
        request = k8s.client.AuthenticationV1TokenRequest(spec=spec)
        status = core.create_namespaced_service_account_token("robot", "default", request).status
        for audiences, known in ((["vault"], True), (None, None), (["other"], None)):
            asked = k8s.client.V1TokenReview(spec=k8s.client.V1TokenReviewSpec(token=status.token, audiences=audiences))
            found = authentication.create_token_review(asked).status
            assert found.authenticated is known, audiences
            if known:
                assert found.user.username == "system:serviceaccount:default:robot" and found.audiences == ["vault"]

    try:
        await asyncio.to_thread(work)
    finally:
        admin.close()
