"""Pods on a real container engine: what a user sees of a pod's life."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.edge import rim

pytestmark = pytest.mark.contract

MakeNode = Callable[..., rim.Node]

CONFIG: dict[str, Any] = {
    "kind": "ConfigMap",
    "metadata": {"name": "settings", "namespace": "default"},
    "data": {"colour": "blue", "page": "<p>hello</p>"},
}
SECRET: dict[str, Any] = {
    "kind": "Secret",
    "metadata": {"name": "keys", "namespace": "default"},
    "data": {"password": base64.b64encode(b"s3cret").decode()},
}


async def test_a_pod_with_everything_runs_and_reports_ready(node: MakeNode, engine: rim.Engine) -> None:
    n = node()
    n.apply(CONFIG)
    n.apply(SECRET)
    web = rim.shell(
        "web",
        "httpd -f -p 8080 -h /www",
        env=[
            {"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "colour"}}},
            {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "password"}}},
            {"name": "WHO", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "GREETING", "value": "$(COLOUR)-$(NOBODY)-$$(COLOUR)"},
            {"name": "CPUS", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        ],
        volumeMounts=[
            {"name": "config", "mountPath": "/www"},
            {"name": "secret", "mountPath": "/secret", "readOnly": True},
            {"name": "scratch", "mountPath": "/scratch"},
            {"name": "memory", "mountPath": "/memory"},
        ],
        ports=[{"name": "http", "containerPort": 8080}],
        readinessProbe={"httpGet": {"path": "/page", "port": "http"}, "periodSeconds": 1},
        livenessProbe={"tcpSocket": {"port": 8080}, "periodSeconds": 1},
        resources={"limits": {"cpu": "500m", "memory": "64Mi"}},
    )
    side = rim.shell(
        "side",
        f"echo from-side > /scratch/note; echo in-memory > /memory/note; {rim.SLEEPER}",
        volumeMounts=[{"name": "scratch", "mountPath": "/scratch"}, {"name": "memory", "mountPath": "/memory"}],
        readinessProbe={"exec": {"command": ["test", "-f", "/scratch/note"]}, "periodSeconds": 1},
        securityContext={"runAsUser": 1000, "readOnlyRootFilesystem": True},
    )
    volumes = [
        {"name": "config", "configMap": {"name": "settings"}},
        {"name": "secret", "secret": {"secretName": "keys", "defaultMode": 0o400}},
        {"name": "scratch", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
    ]
    cause = n.apply(rim.pod("everything", web, side, volumes=volumes))
    await n.until(lambda: n.ready("everything"), "Ready")

    status = n.status("everything")
    assert status is not None
    assert status["phase"] == "Running"
    assert status["hostIP"] == "10.0.0.7"
    assert [c["restartCount"] for c in status["containerStatuses"]] == [0, 0]
    assert all(c["started"] and c["containerID"].startswith("docker://") for c in status["containerStatuses"])
    [web_now], [side_now], [sandbox] = await engine.running("web"), await engine.running("side"), await engine.running("")
    assert sandbox["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] == status["podIP"]
    assert web_now["HostConfig"]["NetworkMode"] == f"container:{sandbox['Id']}"
    assert (web_now["HostConfig"]["Memory"], web_now["HostConfig"]["NanoCpus"]) == (64 << 20, 500_000_000)
    assert web_now["HostConfig"]["LogConfig"]["Config"]["max-size"]

    out = await engine.run(web_now["Id"], "sh", "-c", "echo $COLOUR $PASSWORD $WHO $GREETING $CPUS; hostname")
    assert out.split() == ["blue", "s3cret", "everything", "blue-$(NOBODY)-$(COLOUR)", "1", "everything"]
    out = await engine.run(web_now["Id"], "cat", "/www/page", "/secret/password", "/scratch/note", "/memory/note")
    assert out == "<p>hello</p>s3cretfrom-side\nin-memory\n"
    assert "tmpfs" in await engine.run(side_now["Id"], "grep", " /memory ", "/proc/mounts")
    assert (await engine.run(side_now["Id"], "id", "-u")).strip() == "1000"
    # The two share the network: the side reaches the web server on localhost
    assert "hello" in await engine.run(side_now["Id"], "wget", "-qO-", "http://127.0.0.1:8080/page")

    _, report, told_cause, trace = n.payloads[-1]
    assert (told_cause, trace) == (cause, cause)
    hops = [h.what for h in report.hops]
    assert hops[0] == "edge.applied" and hops.count("container.started") == 2
    assert [h.time for h in report.hops] == sorted(h.time for h in report.hops)


async def test_a_failing_liveness_probe_restarts_the_container(node: MakeNode, engine: rim.Engine) -> None:
    n = node()
    script = "mkdir /w; echo ok > /w/health; httpd -p 8080 -h /w; sleep 2; [ -f /once/done ] || rm /w/health; "
    web = rim.shell(
        "web",
        f"{script} touch /once/done; {rim.SLEEPER}",
        livenessProbe={"httpGet": {"path": "/health", "port": 8080}, "periodSeconds": 1, "failureThreshold": 2},
        volumeMounts=[{"name": "once", "mountPath": "/once"}],
    )
    n.apply(rim.pod("sick", web, volumes=[{"name": "once", "emptyDir": {}}]))
    await n.until(lambda: n.container("sick", "web").get("restartCount") == 1 and n.ready("sick"), "one restart")
    assert "Unhealthy" in n.reasons() and "Killing" in n.reasons()
    assert any("Liveness probe failed: HTTP probe failed with statuscode: 404" in e.message for e in n.events)
    assert len(await engine.running("web")) == 1
    assert n.container("sick", "web")["lastState"]["terminated"]["exitCode"] == 0  # it obeyed SIGTERM


async def test_a_killed_container_comes_back_and_a_crash_loop_backs_off(node: MakeNode, engine: rim.Engine) -> None:
    n = node()
    n.apply(rim.pod("crash", rim.shell("good", rim.SLEEPER), rim.shell("bad", "exit 7")))
    await n.until(lambda: n.container("crash", "bad").get("restartCount", 0) >= 2, "two restarts")
    await n.until(
        lambda: n.container("crash", "bad").get("state", {}).get("waiting", {}).get("reason") == "CrashLoopBackOff",
        "CrashLoopBackOff",
    )
    assert n.container("crash", "bad")["lastState"]["terminated"]["exitCode"] == 7
    assert not n.ready("crash")
    [good] = await engine.running("good")
    await engine.client.containers.container(good["Id"]).kill()
    await n.until(lambda: n.container("crash", "good").get("restartCount") == 1, "the killed one")
    assert n.container("crash", "good")["lastState"]["terminated"]["exitCode"] == 137
    assert len(await engine.running("good")) == 1
    assert len(await engine.of("bad")) <= 3  # dead attempts don't pile up: the current, the one before, one on its way out


async def test_a_removed_container_comes_back(node: MakeNode, engine: rim.Engine) -> None:
    n = node()
    n.apply(rim.pod("removed", rim.shell("main", rim.SLEEPER)))
    await n.until(lambda: n.ready("removed"))
    [first] = await engine.running("main")
    await engine.client.containers.container(first["Id"]).delete(force=True)
    await n.until(lambda: n.container("removed", "main").get("restartCount") == 1 and n.ready("removed"))
    [second] = await engine.running("main")
    assert second["Id"] != first["Id"]


async def test_a_lost_sandbox_is_made_anew_with_its_containers(node: MakeNode, engine: rim.Engine) -> None:
    n = node()
    n.apply(rim.pod("boxed", rim.shell("main", rim.SLEEPER)))
    await n.until(lambda: n.ready("boxed"))
    [first] = await engine.running("")
    await engine.client.containers.container(first["Id"]).delete(force=True)
    await n.until(lambda: n.container("boxed", "main").get("restartCount") == 1 and n.ready("boxed"))
    [second], [main] = await engine.running(""), await engine.running("main")
    assert second["Id"] != first["Id"]
    assert main["HostConfig"]["NetworkMode"] == f"container:{second['Id']}"


async def test_deletion_is_graceful_and_leaves_nothing(node: MakeNode, engine: rim.Engine, tmp_path: Any) -> None:
    n = node()
    mounts = [{"name": "out", "mountPath": "/out"}, {"name": "fast", "mountPath": "/fast"}]
    main = rim.shell(
        "main",
        "trap 'echo term >> /out/log; exit 0' TERM; echo up >> /out/log; while :; do sleep 0.1; done",
        volumeMounts=mounts,
        lifecycle={"preStop": {"exec": {"command": ["sh", "-c", "echo prestop >> /out/log"]}}},
    )
    deaf = rim.shell("deaf", "trap '' TERM; while :; do sleep 0.1; done")
    out = tmp_path / "out"
    volumes = [
        {"name": "out", "hostPath": {"path": str(out), "type": "DirectoryOrCreate"}},
        {"name": "fast", "emptyDir": {"medium": "Memory"}},
        {"name": "slow", "emptyDir": {}},
    ]
    pod = rim.pod("leaving", main, deaf, volumes=volumes)
    n.apply(pod)
    await n.until(lambda: n.ready("leaving"))
    await n.until(lambda: (out / "log").exists())
    assert (tmp_path / "node" / "pods" / pod["metadata"]["uid"]).is_dir()
    pod["metadata"] |= {"deletionTimestamp": "2026-11-23T10:00:00Z", "deletionGracePeriodSeconds": 1}
    cause = n.apply(pod)
    await n.until(lambda: n.gone("leaving"), "gone")
    assert (out / "log").read_text().split() == ["up", "prestop", "term"]
    assert await engine.all() == []
    assert not (tmp_path / "node" / "pods" / pod["metadata"]["uid"]).exists()
    assert n.payloads[-1][1].uid == pod["metadata"]["uid"] and n.payloads[-1][2] == cause
    volumes_left = await engine.client.volumes.list(filters={"label": [f"io.skerry.hub={engine.hub}"]})
    assert not volumes_left.get("Volumes")


async def test_a_changed_config_map_reaches_the_file_but_not_the_environment(node: MakeNode, engine: rim.Engine) -> None:
    n = node()
    n.apply(CONFIG)
    main = rim.shell(
        "main",
        rim.SLEEPER,
        env=[{"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "colour"}}}],
        volumeMounts=[{"name": "config", "mountPath": "/config"}],
    )
    n.apply(rim.pod("configured", main, volumes=[{"name": "config", "configMap": {"name": "settings"}}]))
    await n.until(lambda: n.ready("configured"))
    [before] = await engine.running("main")
    told = len(n.payloads)
    cause = n.apply({**CONFIG, "data": {"colour": "red"}})
    await n.until(lambda: len(n.payloads) > told, "a report of the change")
    out = await engine.run(before["Id"], "sh", "-c", "cat /config/colour; echo; ls /config; echo $COLOUR")
    assert out.split() == ["red", "colour", "blue"]
    [after] = await engine.running("main")
    assert after["Id"] == before["Id"]
    _, report, told_cause, _ = n.payloads[-1]
    assert told_cause == cause
    assert [h.what for h in report.hops] == ["edge.applied", "volume.written"]


async def test_a_missing_config_map_keeps_the_container_waiting_until_it_comes(node: MakeNode) -> None:
    n = node()
    ref = {"configMapKeyRef": {"name": "settings", "key": "colour"}}
    n.apply(rim.pod("early", rim.shell("main", rim.SLEEPER, env=[{"name": "COLOUR", "valueFrom": ref}])))
    await n.until(
        lambda: (
            n.container("early", "main").get("state", {}).get("waiting")
            == {"reason": "CreateContainerConfigError", "message": 'configmap "settings" not found'}
        )
    )
    n.apply(CONFIG)
    await n.until(lambda: n.ready("early"))


async def test_an_image_that_cannot_be_pulled_is_said(node: MakeNode) -> None:
    n = node()
    n.apply(rim.pod("nopull", {"name": "main", "image": "127.0.0.1:1/nothing/here:1"}))
    n.apply(rim.pod("never", {"name": "main", "image": "skerry.invalid/none:1", "imagePullPolicy": "Never"}))

    def waiting(pod: str) -> str:
        return str(n.container(pod, "main").get("state", {}).get("waiting", {}).get("reason"))

    await n.until(lambda: waiting("nopull") in ("ErrImagePull", "ImagePullBackOff"))
    await n.until(lambda: waiting("never") == "ErrImageNeverPull")
    assert "Failed" in n.reasons()


async def test_policy_always_without_a_registry_uses_the_image_at_hand(node: MakeNode, engine: rim.Engine) -> None:
    n = node()
    name = f"127.0.0.1:1/{engine.hub}/local"
    await engine.client.images.tag(rim.IMAGE, name, tag="latest")
    try:
        n.apply(rim.pod("offline", rim.shell("main", rim.SLEEPER, image=name)))
        await n.until(lambda: n.ready("offline"))
        assert "PulledFromLocal" in n.reasons()
    finally:
        await n.stop()
        await engine.clean()
        await engine.client.images.delete(f"{name}:latest")


async def test_init_containers_run_in_order_and_a_job_ends(node: MakeNode, engine: rim.Engine) -> None:
    n = node()
    mounts = [{"name": "out", "mountPath": "/out"}]
    inits = [
        {"image": rim.IMAGE, **rim.shell("one", "echo one >> /out/log", volumeMounts=mounts)},
        {"image": rim.IMAGE, **rim.shell("two", "echo two >> /out/log", volumeMounts=mounts)},
        {"image": rim.IMAGE, **rim.shell("helper", rim.SLEEPER), "restartPolicy": "Always"},
    ]
    main = rim.shell(
        "main", "cat /out/log | tr '\\n' ' ' > /dev/termination-log; test $(wc -l < /out/log) = 2", volumeMounts=mounts
    )
    job = rim.pod("job", main, initContainers=inits, volumes=[{"name": "out", "emptyDir": {}}], restartPolicy="OnFailure")
    n.apply(job)
    await n.until(lambda: (n.status("job") or {}).get("phase") == "Succeeded", "Succeeded")
    await n.until(lambda: "terminated" in n.container("job", "helper").get("state", {}), "the sidecar's end")
    status = n.status("job")
    assert status is not None
    assert [c["state"]["terminated"]["exitCode"] for c in status["initContainerStatuses"][:2]] == [0, 0]
    assert n.container("job", "main")["state"]["terminated"]["reason"] == "Completed"
    assert not await engine.running("main") and not await engine.running("helper")


async def test_a_start_that_fails_is_said_and_tried_again(node: MakeNode) -> None:
    n = node()
    n.apply(rim.pod("broken", {"name": "main", "command": ["/no/such/program"]}))
    await n.until(
        lambda: n.container("broken", "main").get("state", {}).get("waiting", {}).get("reason") == "RunContainerError"
    )
    await n.until(lambda: any(e.reason == "Failed" and e.count >= 2 for e in n.events), "another try")


async def test_hooks_run_and_a_failing_post_start_kills(node: MakeNode, engine: rim.Engine) -> None:
    n = node()
    hook = {"postStart": {"exec": {"command": ["sh", "-c", "echo hooked > /tmp/hook"]}}}
    bad = {"postStart": {"exec": {"command": ["false"]}}}
    n.apply(rim.pod("hooked", rim.shell("main", rim.SLEEPER, lifecycle=hook)))
    n.apply(rim.pod("unhooked", rim.shell("other", rim.SLEEPER, lifecycle=bad)))
    await n.until(lambda: n.ready("hooked"))
    [main] = await engine.running("main")
    assert await engine.run(main["Id"], "cat", "/tmp/hook") == "hooked\n"
    await n.until(lambda: any("postStart hook failed" in e.message for e in n.events))
    await n.until(lambda: n.container("unhooked", "other").get("restartCount", 0) >= 1)


async def test_a_changed_image_replaces_the_container_in_place(node: MakeNode, engine: rim.Engine) -> None:
    n = node()
    await engine.client.images.tag(rim.IMAGE, f"skerry-test/{engine.hub}", tag="2")
    try:
        pod = rim.pod("update", rim.shell("main", rim.SLEEPER))
        n.apply(pod)
        await n.until(lambda: n.ready("update"))
        pod["spec"]["containers"][0]["image"] = f"skerry-test/{engine.hub}:2"
        n.apply(pod)
        await n.until(lambda: n.container("update", "main").get("restartCount") == 1 and n.ready("update"))
        [main] = await engine.running("main")
        assert main["Config"]["Image"] == f"skerry-test/{engine.hub}:2"
        assert len(await engine.of("")) == 1
    finally:
        await n.stop()
        await engine.clean()
        await engine.client.images.delete(f"skerry-test/{engine.hub}:2")


async def test_a_pod_that_this_node_cannot_read_is_refused_alone(node: MakeNode) -> None:
    n = node()
    bad = rim.pod("bad", {"name": "main"})
    bad["spec"]["containers"] = "three of them"
    n.apply(bad)
    n.apply(rim.pod("good", rim.shell("main", rim.SLEEPER)))
    await n.until(lambda: n.ready("good"))
    status = n.status("bad")
    assert status is not None and status["phase"] == "Failed"
    assert "pod.spec.containers: a list is needed" in status["message"]
