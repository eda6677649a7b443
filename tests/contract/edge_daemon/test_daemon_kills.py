"""kill -9 of what a node stands on, and days without a link: everything converges, no container is touched."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable

import pytest

from ops.lab import setting
from ops.lab.nodes import GRACE_S, Lab
from ops.lab.show import StepFailed

pytestmark = pytest.mark.contract


def _cloud(lab: Lab, node: str) -> None:
    lab.processes.kill_9("cloud")
    lab.killed(node, "b")  # nobody is there to be told; it is reported later
    lab.kubeconfig.unlink()
    setting.cloud(lab, "--grace", GRACE_S)


def _hub_server(lab: Lab, node: str) -> None:
    lab.kill_server(lab.hub)


def _leaf_server(lab: Lab, node: str) -> None:
    lab.kill_server(lab.node_dir(node) / "leaf")


def _hub_supervisor(lab: Lab, node: str) -> None:
    """Its nats-server goes on without it, and is adopted by the next one."""
    pid = lab.server_pid(lab.hub)
    lab.processes.kill_9("hub")
    lab.start("hub", "hub", "run", "--data", str(lab.hub))
    lab.until("the hub is adopted", lambda: "adopted the running nats-server" in lab.log_of("hub"))
    assert lab.server_pid(lab.hub) == pid


def _patient(lab: Lab, what: str, act: Callable[[], None]) -> None:
    """A person repeats a kubectl that was refused because the hub was just away."""

    def once() -> bool:
        with contextlib.suppress(StepFailed):
            act()
            return True
        return False

    lab.until(what, once, seconds=30)


@pytest.mark.parametrize("kill", [_cloud, _hub_server, _leaf_server, _hub_supervisor])
def test_a_kill_loses_nothing_and_touches_no_container(lab: Lab, node: str, kill: Callable[[Lab, str], None]) -> None:
    lab.pod(node, "old")
    lab.runs(node, "old")
    before = {k: v for k, v in lab.containers(node).items() if k.startswith("a/")}
    _patient(lab, "delete", lambda: lab.delete("old"))
    kill(lab, node)
    _patient(lab, "create", lambda: lab.pod(node, "new"))
    lab.gone(node, "old")
    lab.runs(node, "new")
    lab.runs(node, "b")
    lab.in_sync(node)
    lab.untouched(node, before)
    _patient(lab, "delete", lambda: lab.delete("new"))
    lab.gone(node, "new")


def test_pods_come_back_after_a_reboot_without_a_link(lab: Lab, node: str) -> None:
    """The machine lost power, and its engine all containers: the replica alone brings the pods back."""
    lab.in_sync(node)
    lab.cut(node)
    lab.processes.kill_9(node)
    lab.kill_leaf_for_good(node)
    lab.remove_containers(node)
    assert lab.containers(node) == {}
    lab.start_daemon(node)
    lab.until("a and b run", lambda: {"a/sleep", "b/sleep"} <= set(lab.containers(node)))
    assert lab.answers(node)["link"] == "down"
    back = {k: v for k, v in lab.containers(node).items() if k in ("a/sleep", "b/sleep")}
    lab.heal(node)
    lab.in_sync(node)
    for pod in ("a", "b"):
        lab.runs(node, pod)
    lab.untouched(node, back)


def test_a_pod_made_anew_under_its_name_while_the_node_was_cut_off(lab: Lab, node: str) -> None:
    lab.pod(node, "twin", label="old")
    lab.runs(node, "twin")
    old = lab.containers(node)["twin/sleep"]
    others = {k: v for k, v in lab.containers(node).items() if not k.startswith("twin/")}
    lab.cut(node)
    lab.kubectl("delete", "pod", "twin", "--grace-period=0", "--force", "--wait=false")
    lab.until("the old one is gone from the API", lambda: not lab.get("pod", "twin"))
    lab.pod(node, "twin", label="new")
    assert lab.containers(node)["twin/sleep"] == old  # nothing is known of it there
    lab.heal(node)
    lab.until("the new one runs", lambda: lab.containers(node).get("twin/sleep", old) != old)
    lab.runs(node, "twin")
    lab.in_sync(node)
    listed = lab.docker("ps", "-aq", *lab.of(node), "--filter", "label=io.skerry.pod.name=twin").split()
    names = [json.loads(lab.docker("inspect", c))[0]["Config"]["Labels"]["io.skerry.container"] for c in listed]
    assert sorted(names) == ["", "sleep"]  # one sandbox, one container, both the new pod's
    assert lab.env_of(lab.containers(node)["twin/sleep"][0])["LABEL"] == "new"
    lab.untouched(node, others)
    lab.delete("twin")
    lab.gone(node, "twin")
