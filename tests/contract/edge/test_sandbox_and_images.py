"""The sandbox's own process, what pods share through it, and images from a registry, on a real engine."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from edge.containers import streams
from edge.containers.errors import RuntimeFailure
from edge.containers.images import Images
from edge.containers.runtime import Runtime
from edge.containers.settings import RuntimeSettings
from edge.core.pod_spec import TcpSocket
from edge.core.stimuli import Observed
from edge.probes import Checker
from tests.contract.edge import rim

pytestmark = pytest.mark.contract

MakeNode = Callable[..., rim.Node]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


async def test_a_sandbox_ends_on_sigterm_and_reaps(node: MakeNode, engine: rim.Engine) -> None:
    n = node()
    n.apply(rim.pod("shared", rim.shell("main", rim.SLEEPER), shareProcessNamespace=True))
    await n.until(lambda: n.ready("shared"))
    [main_now], [sandbox] = await engine.running("main"), await engine.running("")
    await engine.run(main_now["Id"], "sh", "-c", "(sh -c 'sleep 0.2 & exit 0'); sleep 0.8")
    processes = await engine.run(main_now["Id"], "ps", "-o", "pid,stat,comm")
    assert "pause" in processes.splitlines()[1]  # process 1 is the sandbox's
    assert not any(" Z" in line for line in processes.splitlines()), processes
    await n.stop()
    await engine.client.containers.container(sandbox["Id"]).kill(signal="SIGTERM")
    async with asyncio.timeout(rim.WAIT_S):
        ended = await engine.client.containers.container(sandbox["Id"]).wait()
    assert ended["StatusCode"] == 0


async def test_a_start_that_is_under_way_when_it_is_found_out_what_the_engine_may(
    node: MakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the engine may shield a process from the OOM killer is found out by the first start that fails; a container
    that was made for the shield before is not tried for ever."""
    n = node()
    start_once = Runtime._start_once

    async def late(runtime: Runtime, found: Observed, reason: str) -> None:
        while found.pod == "late" and runtime._may_protect and not n.ready("first"):
            await asyncio.sleep(0.01)
        await start_once(runtime, found, reason)

    monkeypatch.setattr(Runtime, "_start_once", late)
    for name in ("first", "late"):
        n.apply(rim.pod(name, rim.shell("main", rim.SLEEPER)))
    await n.until(lambda: n.ready("first") and n.ready("late"))


async def test_host_ports_names_and_limits_of_the_kernel(node: MakeNode, engine: rim.Engine) -> None:
    n = node()
    port = free_port()
    main = rim.shell(
        "main", "httpd -f -p 8080 -h /etc", ports=[{"containerPort": 8080, "hostPort": port, "hostIP": "127.0.0.1"}]
    )
    n.apply(
        rim.pod(
            "reachable",
            main,
            hostname="named",
            hostAliases=[{"ip": "10.1.2.3", "hostnames": ["friend"]}],
            dnsPolicy="None",
            dnsConfig={"nameservers": ["192.0.2.53"], "searches": ["corp.example"]},
            securityContext={"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "80"}]},
        )
    )
    await n.until(lambda: n.ready("reachable"))
    [main_now] = await engine.running("main")
    out = await engine.run(
        main_now["Id"],
        *("sh", "-c", "hostname; cat /etc/hosts /etc/resolv.conf /proc/sys/net/ipv4/ip_unprivileged_port_start"),
    )
    assert out.splitlines()[0] == "named" and out.splitlines()[-1] == "80"
    assert "10.1.2.3\tfriend" in out and "nameserver 192.0.2.53" in out and "search corp.example" in out
    checker = Checker(Runtime("n", RuntimeSettings()))
    async with asyncio.timeout(rim.WAIT_S):
        while not (await checker.check(TcpSocket(port), "", "127.0.0.1", 5))[0]:
            await asyncio.sleep(0.1)


async def test_the_hosts_network(node: MakeNode, engine: rim.Engine) -> None:
    n = node()
    n.apply(rim.pod("onhost", rim.shell("main", rim.SLEEPER), hostNetwork=True))
    await n.until(lambda: n.ready("onhost"))
    [sandbox] = await engine.running("")
    assert sandbox["HostConfig"]["NetworkMode"] == "host"
    assert (n.status("onhost") or {})["podIP"] == "10.0.0.7"


async def test_sub_paths_and_updates_of_a_mounted_file(node: MakeNode, engine: rim.Engine) -> None:
    n = node()
    n.apply({"kind": "ConfigMap", "metadata": {"name": "m", "namespace": "default"}, "data": {"conf": "one"}})
    mounts = [
        {"name": "m", "mountPath": "/etc/app.conf", "subPath": "conf"},
        {"name": "data", "mountPath": "/data", "subPathExpr": "$(WHO)/deep"},
    ]
    env = [{"name": "WHO", "value": "me"}]
    n.apply(
        rim.pod(
            "sub",
            rim.shell("main", f"echo x > /data/file; {rim.SLEEPER}", volumeMounts=mounts, env=env),
            rim.shell("other", rim.SLEEPER, volumeMounts=[{"name": "data", "mountPath": "/data"}]),
            volumes=[{"name": "m", "configMap": {"name": "m"}}, {"name": "data", "emptyDir": {}}],
        )
    )
    await n.until(lambda: n.ready("sub"))
    [main], [other] = await engine.running("main"), await engine.running("other")
    assert await engine.run(main["Id"], "cat", "/etc/app.conf") == "one"
    out = ""
    async with asyncio.timeout(rim.WAIT_S):
        while out != "x\n":
            out = await engine.run(other["Id"], "sh", "-c", "cat /data/me/deep/file 2>/dev/null")


@asynccontextmanager
async def registry(status: int, user: str = "") -> AsyncIterator[tuple[str, list[str]]]:
    """A registry that has nothing; with a user, it wants that one.  Yields its host and the users that came."""
    users: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        given = request.headers.get("Authorization", "")
        if given.startswith("Basic "):
            users.append(base64.b64decode(given[6:]).decode())
        if user and not given:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="test"'})
        if request.path == "/v2/":
            return web.json_response({})
        body = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
        return web.json_response(body, status=status)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}", users
    finally:
        await runner.cleanup()


async def test_a_registry_that_says_no_is_believed_and_one_that_is_silent_is_not_waited_for(engine: rim.Engine) -> None:
    settings = RuntimeSettings(hub=engine.hub)
    runtime = Runtime("edge-test", settings)
    images = Images(runtime, settings)
    local = []
    try:
        async with registry(404) as (host, _):
            name = f"{host}/{engine.hub}/app"
            await engine.client.images.tag(rim.IMAGE, name, tag="1")
            local.append(f"{name}:1")
            with pytest.raises(RuntimeFailure, match=r"(?i)manifest unknown|not found") as refused:
                await images.ensure(f"{name}:1", "Always", True, ())
            assert refused.value.reason == "ErrImagePull"
            assert (await images.ensure(f"{name}:1", "IfNotPresent", True, ()))[1] == ""
            assert (await images.ensure(f"{name}:1", "Never", True, ()))[1] == ""
        message, warning = await images.ensure(f"{name}:1", "Always", True, ())
        assert warning == "PulledFromLocal" and "could not be reached" in message
        with pytest.raises(RuntimeFailure) as strict:
            await images.ensure(f"{name}:1", "Always", False, ())
        assert strict.value.reason == "ErrImagePull"
        with pytest.raises(RuntimeFailure) as invalid:
            await images.ensure("UPPER/Case:1", "IfNotPresent", True, ())
        assert invalid.value.reason == "InvalidImageName"
    finally:
        for image in local:
            await engine.client.images.delete(image)
        await runtime.close()


async def test_pull_secrets_reach_the_registry(node: MakeNode, engine: rim.Engine) -> None:
    n = node()
    async with registry(404, user="robot") as (host, users):
        config = {"auths": {host: {"username": "robot", "password": "pw"}}}
        n.apply(
            {
                "kind": "Secret",
                "metadata": {"name": "pull", "namespace": "default"},
                "type": "kubernetes.io/dockerconfigjson",
                "data": {".dockerconfigjson": base64.b64encode(json.dumps(config).encode()).decode()},
            }
        )
        n.apply(rim.pod("private", {"name": "main", "image": f"{host}/private/app:1"}, imagePullSecrets=[{"name": "pull"}]))
        await n.until(lambda: users, "the credentials")
        await n.until(lambda: "Failed" in n.reasons())
        assert set(users) == {"robot:pw"}
        await n.stop()


async def test_nobody_attaches_to_what_has_ended(node: MakeNode, engine: rim.Engine) -> None:
    n = node()
    n.apply(rim.pod("brief", rim.shell("main", "exit 0"), restartPolicy="Never"))
    await n.until(lambda: (n.status("brief") or {}).get("phase") == "Succeeded")
    [main] = await engine.of("main")
    with pytest.raises(RuntimeFailure, match="not running"):
        async with streams.attach(n.rim.runtime, main["Id"], stdin=True, stdout=True, stderr=True):
            pass
