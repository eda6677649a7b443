"""``skerry cloud run --cluster`` as a process part: beside a real hub, led by lease, two at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from cloud import process
from cloud.bridge import credentials
from ops.cli import cloud
from schemas import subjects
from tests.contract.bridge.worlds import NODE, POD, pod, until
from tests.contract.hub_fixture import RunningHub, hub
from tests.contract.kube_served import served

__all__ = ["hub"]
pytestmark = pytest.mark.contract


@contextlib.asynccontextmanager
async def running(settings: process.Settings) -> AsyncIterator[asyncio.Task[None]]:
    made = process.CloudProcess(settings)
    task = asyncio.create_task(made.run())
    try:
        await until(lambda: made.ready.is_set() or task.done())
        if task.done():
            task.result()
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_two_of_them_and_the_leader_goes(hub: RunningHub, tmp_path: Path) -> None:
    async with served(tmp_path) as cluster:
        settings = process.Settings(hub.hub.dir, parts=("bridge", "dispatcher"), cluster=cluster.kubeconfig)

        async def last(subject: str) -> bool:
            found = await hub.log.last_of("CLUSTER", subject)
            return found is not None and not found.event().deleted

        async with contextlib.AsyncExitStack() as leader:
            await leader.enter_async_context(running(settings))
            meta = {"name": "edge-1", "labels": {"node-role.kubernetes.io/edge": ""}}
            node = {"apiVersion": "v1", "kind": "Node", "metadata": meta}
            await cluster.api.create("", "nodes", "", node, how=cluster.how())
            await cluster.api.create("", "pods", "default", pod(), how=cluster.how())
            await until(lambda: last(subjects.cluster(POD)))
            assert await last(subjects.cluster(NODE))
            async with running(settings):
                await leader.aclose()
                await cluster.api.create("", "pods", "default", pod("q"), how=cluster.how())
                await until(lambda: last("cluster.core.pods.default.q"))
        written = (await hub.log.info("CLUSTER")).last_seq
        assert written == 4, "a node, its pods and their account: the second one wrote the new pod, and nothing again"


def test_words_that_do_not_go_together(tmp_path: Path) -> None:
    config = tmp_path / "c"
    config.write_text("{}")
    for more, said in (
        (["--in-cluster"], "it is one cluster"),
        (["--kubeconfig", str(tmp_path / "k")], "nothing to write"),
        (["--part", "api"], "there are bridge"),
        (["--kubelet-ports", "20000-20010"], "--kubelet: is missing"),
        (["--kubelet", "0.0.0.0:10250"], "every address"),
        (["--kubelet", "10.0.0.7:10250", "--kubelet-ports", "9-3"], "is not A-B"),
        (["--kubelet", "10250"], "is not HOST:PORT"),
    ):
        ran = CliRunner().invoke(cloud.run, ["--cluster", str(config), *more])
        assert ran.exit_code == 2 and said in ran.output, ran.output


@pytest.mark.parametrize("text", ["", "{}", "clusters: 3", "\x00", "apiVersion: v1\nkind: Config\ncurrent-context: x\n"])
def test_a_kubeconfig_that_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(credentials.CredentialsError, match=str(path)):
        process.CloudProcess(process.Settings(tmp_path, cluster=path))


def test_no_pod_around_us() -> None:
    with pytest.raises(credentials.CredentialsError, match="service account"):
        credentials.load(None)
