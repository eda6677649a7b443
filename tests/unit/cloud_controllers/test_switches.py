"""``--controllers``, as kube-controller-manager reads it."""

from __future__ import annotations

import pytest

from cloud.standalone import switches
from cloud.standalone.run_controllers import CONTROLLERS, ControllerRunner
from tests.unit.cloud_controllers.kubelets import Cluster, deployment, running

KNOWN = ("deployment", "garbage", "podgc", "scheduler")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("*", [*KNOWN]),
        ("*,-deployment", ["garbage", "podgc", "scheduler"]),
        ("-deployment,*", ["garbage", "podgc", "scheduler"]),
        ("deployment", ["deployment"]),
        ("-deployment", []),
        ("*,-deployment-controller,-garbage-collector-controller", ["podgc", "scheduler"]),
        ("pod-garbage-collector-controller,kube-scheduler", ["podgc", "scheduler"]),
    ],
)
def test_which_are_on(text: str, names: list[str]) -> None:
    assert switches.enabled(text.split(","), KNOWN) == names


def test_a_name_that_is_none() -> None:
    with pytest.raises(ValueError, match="'deploiment' is not in the list of known controllers"):
        switches.enabled(["*", "-deploiment"], KNOWN)


async def test_what_is_switched_off_does_nothing() -> None:
    cluster = Cluster()
    cluster.runner = ControllerRunner(cluster.registry, switches.enabled(["*", "-replicaset"], CONTROLLERS))
    async with running(cluster):
        await cluster.node("a")
        await cluster.create("apps", "deployments", deployment())
        await cluster.settle()
        assert len(await cluster.list("apps", "replicasets")) == 1 and await cluster.list("", "pods") == []
