"""``skerry install`` into a cluster on the other side of HTTP, and out of it again."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops.install import cluster, objects
from ops.install.values import NAMESPACE, Values
from tests.contract.bridge.worlds import until
from tests.contract.kube_served import Ran, Served, served

pytestmark = pytest.mark.contract
VALUES = Values(host="hub.example.com")
DEFINITIONS = ("apiextensions.k8s.io", "customresourcedefinitions")
ROLES = (objects.CSR_ROLE, objects.APPROVER_ROLE)
EVERY = [*objects.definitions(), *objects.objects(VALUES)]


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Served]:
    """A cluster that has none of our definitions yet."""
    async with served(tmp_path, rights=True) as made:
        for stored in made.storage.list(*DEFINITIONS):
            await made.api.delete(*DEFINITIONS, "", stored.key.name, how=made.how())
        yield made


def there(api: Served, obj: dict[str, Any]) -> dict[str, Any] | None:
    path = cluster.path_of(obj)
    stored = next((s for s in api.storage.list(path.group, path.resource) if s.key.name == obj["metadata"]["name"]), None)
    return stored.object if stored else None


def present(api: Served) -> list[str]:
    """What is there and is not going away: ends that need controllers are asked for, and that is enough here."""
    found = [(o, there(api, o)) for o in EVERY]
    return [cluster.words(o) for o, now in found if now and "deletionTimestamp" not in now["metadata"]]


async def run(api: Served, values: Values = VALUES, *, wait_s: float = 0, force: bool = False) -> list[str]:
    said: list[str] = []
    installer = cluster.Installer(api.kubeconfig, say=said.append)
    try:
        await installer.install(values, force=force, wait_s=wait_s)
    finally:
        await installer.close()
    return said


async def removed(api: Served, **how: bool) -> list[str]:
    said: list[str] = []
    installer = cluster.Installer(api.kubeconfig, say=said.append)
    try:
        await installer.uninstall(NAMESPACE, data=how.get("data", False), definitions=how.get("definitions", False))
    finally:
        await installer.close()
    return said


async def test_install_again_and_upgrade(api: Served) -> None:
    await run(api)
    assert present(api) == [cluster.words(o) for o in EVERY]
    before = {cluster.words(o): there(api, o) for o in EVERY}
    claim = before["persistentvolumeclaim/skerry"]
    await run(api)
    assert {cluster.words(o): there(api, o) for o in EVERY} == before, "a second time changes nothing"
    await api.ok("-n", NAMESPACE, "annotate", "service", "skerry", "example.com/pool=edge")
    await run(api, Values(host="hub.example.com", image="registry.example.com/skerry:next"))
    deployment = there(api, EVERY[-1])
    assert deployment is not None
    containers = deployment["spec"]["template"]["spec"]["containers"]
    assert {c["image"] for c in containers} == {"registry.example.com/skerry:next"}
    after = {o["kind"]: there(api, o) for o in EVERY[-3:]}
    assert after["PersistentVolumeClaim"] == claim, "the log stays"
    assert after["Service"]["metadata"]["annotations"] == {"example.com/pool": "edge"}, "what others set is theirs"  # type: ignore[index]


async def test_rights_for_the_kubelets_certificate_come_and_go(api: Served) -> None:
    def named() -> set[str]:
        kinds = [("rbac.authorization.k8s.io", kind) for kind in ("clusterroles", "clusterrolebindings")]
        return {s.key.name for k in kinds for s in api.storage.list(*k) if s.key.name in ROLES}

    for csr, wanted in (("approve", set(ROLES)), ("request", {objects.CSR_ROLE}), ("none", set())):
        await run(api, Values(host="hub.example.com", kubelet_csr=csr))
        assert named() == wanted
    await run(api, Values(host="hub.example.com", kubelet_csr="approve"))
    await removed(api)
    assert named() == set()


async def test_it_waits_until_the_pod_is_available_and_says_why_it_is_not(api: Served) -> None:
    waiting = asyncio.create_task(run(api, wait_s=60))
    await until(lambda: there(api, EVERY[-1]) is not None)
    labels = {"metadata": {"name": "skerry-1", "labels": objects.SELECTOR}, "apiVersion": "v1", "kind": "Pod"}
    pod = {**labels, "spec": {"containers": [{"name": "hub", "image": "skerry"}], "serviceAccountName": objects.NAME}}
    await api.api.create("", "pods", NAMESPACE, pod, how=api.how())
    waits = {"containerStatuses": [{"name": "hub", "state": {"waiting": {"reason": "ErrImagePull", "message": "no"}},
                                    "image": "i", "imageID": "", "ready": False, "restartCount": 0}]}  # fmt: skip
    await api.api.patch(
        "", "pods", NAMESPACE, "skerry-1", {"status": waits}, kind="merge", how=api.how(), subresource="status"
    )
    with pytest.raises(cluster.InstallError, match="container hub: ErrImagePull: no"):
        await run(api, wait_s=1)
    assert not waiting.done()
    now = there(api, EVERY[-1])
    assert now is not None
    good = {"conditions": [{"type": "Available", "status": "True"}], "observedGeneration": now["metadata"]["generation"],
            "replicas": 1, "updatedReplicas": 1}  # fmt: skip
    await api.api.patch(
        "apps", "deployments", NAMESPACE, "skerry", {"status": good}, kind="merge", how=api.how(), subresource="status"
    )
    await waiting


async def test_a_cluster_that_refuses_one_object_gets_none(api: Served) -> None:
    made = objects.objects(VALUES)
    made[3]["roleRef"]["kind"] = "Nothing"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster.objects, "objects", lambda _: made)  # as an older or stricter cluster would see it
        with pytest.raises(cluster.InstallError, match="nothing was changed.*\n.*clusterrolebinding/skerry-bridge"):
            await run(api)
    assert present(api) == []


async def test_who_has_no_rights_is_told_which(api: Served) -> None:
    await api.ok("create", "clusterrole", "reader", "--verb=get", "--resource=namespaces,customresourcedefinitions")
    await api.ok("create", "clusterrolebinding", "reader", "--clusterrole=reader", "--user=somebody")
    with pytest.MonkeyPatch.context() as patch:
        headers = {"Impersonate-User": "somebody"}
        send = cluster.Client._send

        async def as_somebody(self: Any, *args: Any, **kwargs: Any) -> Any:
            self._http.headers.update(headers)
            return await send(self, *args, **kwargs)

        patch.setattr(cluster.Client, "_send", as_somebody)
        with pytest.raises(cluster.InstallError) as refused:
            await run(api)
    text = str(refused.value)
    assert 'User "somebody" cannot patch resource "clusterroles"' in text
    assert f"you may not create deployments in namespace {NAMESPACE}" in text
    assert present(api) == []


async def test_definitions_that_kubeedge_brought_are_left_alone(api: Served) -> None:
    mine = objects.definitions()[2]
    theirs = {**mine, "metadata": {"name": mine["metadata"]["name"], "annotations": {"from": "kubeedge"}}}
    await api.api.create(*DEFINITIONS, "", theirs, how=api.how())
    said = await run(api)
    assert f"customresourcedefinition/{mine['metadata']['name']} is there already and not ours: left as it is" in said
    await removed(api, definitions=True, data=True)
    assert present(api) == [cluster.words(mine)]


async def test_definitions_too_old_for_us_are_refused(api: Served) -> None:
    mine = objects.definitions()[2]
    old = {**mine, "metadata": {"name": mine["metadata"]["name"]}}
    old["spec"] = {**mine["spec"], "versions": [{**mine["spec"]["versions"][0], "name": "v0", "storage": True}]}
    await api.api.create(*DEFINITIONS, "", old, how=api.how())
    with pytest.raises(cluster.InstallError, match="serves v0; Skerry needs one of"):
        await run(api)


async def test_uninstall_keeps_the_log_and_the_devices(api: Served) -> None:
    await run(api)
    said = await removed(api)
    kept = [w for w in present(api) if not w.startswith("customresourcedefinition/")]
    assert kept == [f"namespace/{NAMESPACE}", "persistentvolumeclaim/skerry"]
    assert "persistentvolumeclaim/skerry kept" in said
    assert len(present(api)) == len(objects.definitions()) + 2
    await run(api)
    assert present(api) == [cluster.words(o) for o in EVERY]
    await removed(api, data=True, definitions=True)
    assert present(api) == []
    assert "deployment/skerry is not there" in await removed(api, data=True, definitions=True)


async def test_the_command(api: Served) -> None:
    async def skerry(*args: str) -> Ran:
        process = await api.start("-m", "ops.cli", "install", *args, program=sys.executable)
        out, err = await process.communicate()
        return Ran(process.returncode or 0, out.decode(), err.decode())

    bad = await skerry("--host", "not a host", "--wait", "0")
    assert bad.code == 1 and "host 'not a host'" in bad.err
    shown = await skerry("--host", "hub.example.com", "--print")
    assert [o["kind"] for o in yaml.safe_load_all(shown.out)] == [o["kind"] for o in EVERY]
    assert present(api) == []
    applied = await api.ok("apply", "--server-side", "-f", "-", stdin=shown.out)
    assert applied.count("serverside-applied") == len(EVERY)
    conflict = await skerry("--host", "other.example.com", "--wait", "0")
    assert conflict.code == 1 and 'conflict with "kubectl"' in conflict.err
    forced = await skerry("--host", "other.example.com", "--wait", "0", "--force-conflicts")
    assert forced.code == 0 and "skerry token create" in forced.out
