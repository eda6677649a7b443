"""Conversations recorded from a real Kubernetes API server, replayed against ours: every answer is equal, whole.

The recorded server ran with the few controllers named here, so ours does, and with KubeEdge's definitions applied."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from cloud.standalone import run_controllers
from ops import conversations
from tests.contract.kube_served import TOKEN, served

pytestmark = [pytest.mark.contract, pytest.mark.asyncio(loop_scope="module")]
FILES = sorted((Path(__file__).parent.parent / "recorded" / "kube").glob("*.json"))
CASES = [
    pytest.param(case, id=f"{file.stem}: {case['case']}") for file in FILES for case in json.loads(file.read_text())["cases"]
]
RAN = ("serviceaccount", "namespace", "garbage", "clusterrole-aggregation", "root-ca-certificate-publisher")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[conversations.Server]:
    async with served(tmp_path_factory.mktemp("api"), rights=True) as ours, conversations.session() as client:
        controllers = run_controllers.ControllerRunner(ours.api, RAN, root_ca="the root's certificate")
        running = asyncio.create_task(controllers.run())
        try:
            yield conversations.Server(client, ours.url, TOKEN)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("case", CASES)
async def test_every_answer_is_the_recorded_one(server: conversations.Server, case: dict[str, object]) -> None:
    answers = await server.converse(case)
    assert not conversations.disagreements(case, answers)
