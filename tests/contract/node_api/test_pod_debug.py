"""``kubectl debug``: a container that is added to a pod while it runs, with the processes of another in view."""

from __future__ import annotations

import pytest

from tests.contract.node_api.conftest import WAIT_S, Place, shell

pytestmark = [pytest.mark.contract, pytest.mark.timeout(180)]


def test_debug_looks_into_a_running_pod_and_leaves_it_as_it_was(place: Place) -> None:
    place.pod("patient", shell("main", "exec sleep 987654"))
    before = place.world.containers(place.node)["patient/main"]
    looked = place.ok(
        "debug", "patient", "-i", "--quiet", "--image=busybox:1.36",
        "--container=doctor", "--target=main", "--profile=general",
        "--", "sh", "-c", "read word; echo heard $word; ps -o args", stdin=b"go\n",
    )  # fmt: skip
    assert b"heard go" in looked and b"sleep 987654" in looked, looked

    def ended() -> bool:
        status = place.world.get("pod", "patient")["status"]
        doctors = [s for s in status.get("ephemeralContainerStatuses") or [] if s["name"] == "doctor"]
        return bool(doctors) and doctors[0]["state"].get("terminated", {}).get("exitCode") == 0

    place.world.until("the doctor has left", ended, seconds=WAIT_S)
    pod = place.world.get("pod", "patient")
    assert b"heard go" in place.ok("logs", "patient", "-c", "doctor")
    assert pod["status"]["phase"] == "Running"
    assert [(s["name"], s["restartCount"]) for s in pod["status"]["containerStatuses"]] == [("main", 0)]
    assert place.world.containers(place.node)["patient/main"] == before, "the pod's own container was not touched"
    again = place.run("debug", "patient", "--image=busybox:1.36", "--container=doctor", "--", "true")
    assert again.returncode == 1, "an ephemeral container is not changed"
