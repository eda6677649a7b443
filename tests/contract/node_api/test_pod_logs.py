"""``kubectl logs`` against a pod on a node that has no open port."""

from __future__ import annotations

import subprocess

import pytest

from tests.contract.node_api.conftest import WAIT_S, Place, shell

pytestmark = [pytest.mark.contract, pytest.mark.timeout(180)]


def test_a_log_is_read_whole_and_in_part(place: Place) -> None:
    out = place.ok("logs", "two", "-c", "main").decode().splitlines()
    assert [s for s in out if s.startswith("line")] == [f"line {i}" for i in range(20)]
    assert [s for s in out if s.startswith("err")] == [f"err {i}" for i in range(20)]
    assert len(place.ok("logs", "two", "-c", "main", "--tail=3").splitlines()) == 3
    assert place.ok("logs", "two", "-c", "main", "--tail=0") == b""
    assert place.ok("logs", "two", "-c", "main", "--limit-bytes=10") == "\n".join(out).encode()[:10]
    stamped = place.ok("logs", "two", "-c", "side", "--timestamps").decode().split()
    assert stamped[1] == "beside" and stamped[0].endswith("Z") and stamped[0][:2] == "20"
    assert place.ok("logs", "two", "-c", "side", f"--since-time={stamped[0]}") == b"beside\n"
    assert place.ok("logs", "two", "-c", "side", "--since-time=2099-01-01T00:00:00Z") == b""
    assert place.ok("logs", "two", "-c", "side", "--since=1h") == b"beside\n"
    assert b"beside\n" in place.ok("logs", "two", "--all-containers", "--prefix")


def test_refusals_are_those_of_the_real_server(place: Place) -> None:
    raw = "/api/v1/namespaces/default/pods/two/log"
    for args, said in (
        (("get", "--raw", f"{raw}?container=nope"), "(BadRequest): container nope is not valid for pod two"),
        (("logs", "nope"), '(NotFound): pods "nope" not found'),
        (("logs", "two", "-c", "main", "-p"), '(BadRequest): previous terminated container "main" in pod "two" not found'),
        (("get", "--raw", raw), "a container name must be specified for pod two, choose one of: [main side]"),
        (("get", "--raw", f"{raw}?container=main&tailLines=-2"), "must be greater than or equal to 0"),
        (("get", "--raw", f"{raw}?container=main&tailLines=many"), "is not a whole number"),
        (("get", "--raw", f"{raw}?container=main&sinceTime=yesterday"), "is not a time"),
        (("get", "--raw", f"{raw}?container=main&sinceTime=2020-01-01T00:00:00Z&sinceSeconds=1"), "at most one of"),
    ):
        done = place.run(*args)
        assert done.returncode == 1
        assert said in done.stderr.decode(), (args, done.stderr)


def test_the_container_before_is_still_there_to_read(place: Place) -> None:
    script = (
        "echo life $(cat /d/n 2>/dev/null | wc -l); echo x >> /d/n; [ $(wc -l < /d/n) -gt 1 ] && exec sleep 100000; exit 3"
    )
    place.pod(
        "again",
        shell("c", script, volumeMounts=[{"name": "d", "mountPath": "/d"}]),
        volumes=[{"name": "d", "emptyDir": {}}],
        ready=False,  # its first life may look ready for a moment
    )

    def second_life() -> bool:
        statuses = place.world.get("pod", "again").get("status", {}).get("containerStatuses", [{}])
        return statuses[0].get("restartCount", 0) > 0 and "running" in statuses[0].get("state", {})

    place.world.until("the second life runs", second_life, seconds=WAIT_S)
    assert place.ok("logs", "again") == b"life 1\n"
    assert place.ok("logs", "again", "-p") == b"life 0\n"


def test_a_follower_hears_each_line_until_the_container_ends(place: Place) -> None:
    place.pod(
        "ticks", shell("c", "while [ ! -e /go ]; do sleep 0.1; done; echo one; sleep 1; echo two"), restartPolicy="Never"
    )
    with subprocess.Popen(place.argv("logs", "-f", "ticks"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        place.world.docker("exec", place.world.containers(place.node)["ticks/c"][0], "touch", "/go")
        assert reader.stdout.readline() == b"one\n"
        assert reader.poll() is None
        rest, err = reader.communicate(timeout=WAIT_S)
    assert (reader.returncode, rest, err) == (0, b"two\n", b"")


def test_a_reader_that_does_not_read_costs_others_nothing(place: Place) -> None:
    line = "0123456789" * 40
    flood = {"image": "busybox:1.36", **shell("flood", f"yes {line} | head -n 20000")}
    place.pod("flood", shell("c", "exec sleep 100000"), initContainers=[flood])
    with subprocess.Popen(place.argv("logs", "-f", "flood", "-c", "flood"), stdout=subprocess.PIPE) as stuck:
        assert stuck.stdout is not None
        stuck.stdout.read(1)
        for _ in range(3):
            assert place.ok("logs", "two", "-c", "side") == b"beside\n"
        assert place.ok("logs", "flood", "-c", "flood") == f"{line}\n".encode() * 20_000
        assert stuck.poll() is None
        stuck.kill()
