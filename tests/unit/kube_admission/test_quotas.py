"""Resource quotas: what counts, what is refused and with which words, and what is never lost between two counts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bus.kube.admission import reserved, usage
from bus.kube.errors import StatusError
from bus.kube.storage import Origin, Unavailable
from bus.kube.targets import Write
from cloud.standalone.controllers import quota as counting
from cloud.standalone.run_controllers import ControllerRunner
from cloud.standalone.view import IndexedView
from schemas.subjects import ObjectKey
from tests.unit.cloud_controllers.kubelets import Cluster, deployment, running
from tests.unit.kube_admission.conftest import Rules

Object = dict[str, Any]


async def quota(rig: Rules, name: str = "q", namespace: str = "default", **hard: str) -> Object:
    body = {
        "metadata": {"name": name},
        "spec": {"hard": {k.replace("__", "/").replace("_", "."): v for k, v in hard.items()}},
    }
    return await rig.create("resourcequotas", body, namespace)


async def used(rig: Rules, name: str = "q") -> Object:
    return (await rig.get("resourcequotas", name))["status"].get("used") or {}


def resources(**amounts: str) -> Object:
    """``requests_cpu="1"``"""
    out: Object = {}
    for key, text in amounts.items():
        side, _, name = key.partition("_")
        out.setdefault(side, {})[name] = text
    return {"resources": out}


async def test_pods_are_counted_and_the_next_one_is_refused(rig: Rules) -> None:
    await quota(rig, pods="2", requests_cpu="1")
    await rig.pod("a", container=resources(requests_cpu="600m"))
    refused = await rig.refused("b", container=resources(requests_cpu="500m"))
    said = "exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=600m, limited: requests.cpu=1"
    assert (refused.code, refused.message) == (403, f'pods "b" is forbidden: {said}')
    await rig.pod("b", container=resources(requests_cpu="400m"))
    assert await used(rig) == {"pods": "2", "requests.cpu": "1"}
    refused = await rig.refused("c", container=resources(requests_cpu="1m"))
    both = "requested: pods=1,requests.cpu=1m, used: pods=2,requests.cpu=1, limited: pods=2,requests.cpu=1"
    assert refused.message.endswith(f"exceeded quota: q, {both}")


async def test_what_is_limited_must_be_said(rig: Rules) -> None:
    await quota(rig, requests_cpu="1", limits_memory="1Gi")
    refused = await rig.refused(container=resources(requests_cpu="1"))
    assert refused.message == 'pods "p" is forbidden: failed quota: q: must specify limits.memory for: c'
    refused = await rig.refused()
    assert refused.message.endswith("must specify limits.memory for: c; requests.cpu for: c")


async def test_a_new_quota_counts_what_is_there_already(rig: Rules) -> None:
    for name in "abc":
        await rig.pod(name)
    await quota(rig, pods="3", count__configmaps="1")
    assert "used: pods=3, limited: pods=3" in (await rig.refused("d")).message
    await rig.create("configmaps", {"metadata": {"name": "one"}})
    with pytest.raises(StatusError, match='configmaps "two" is forbidden: exceeded quota: q, requested: count/configmaps=1'):
        await rig.create("configmaps", {"metadata": {"name": "two"}})


async def test_a_dry_run_takes_nothing(rig: Rules) -> None:
    await quota(rig, pods="1")
    how, rig.how = rig.how, Write(rig.how.origin, dry_run=True)
    await rig.pod("a")
    rig.how = how
    await rig.pod("a")
    rig.how = Write(how.origin, dry_run=True)
    assert "exceeded quota" in (await rig.refused("b")).message


async def test_of_two_quotas_the_first_takes_nothing_when_the_second_refuses(rig: Rules) -> None:
    await quota(rig, "a", pods="5")
    await quota(rig, "b", pods="0")
    assert "exceeded quota: b" in (await rig.refused()).message
    assert (await used(rig, "a")).get("pods", "0") == "0"


async def test_services_and_claims_count_when_they_change_too(rig: Rules) -> None:
    await quota(rig, services="2", services_nodeports="1", requests_storage="3Gi", persistentvolumeclaims="2")
    service = {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}}
    await rig.create("services", service)
    await rig.patch("services", "s", {"spec": {"type": "NodePort"}})
    assert (await used(rig))["services.nodeports"] == "1"
    with pytest.raises(StatusError, match="requested: services.nodeports=1, used: services.nodeports=1"):
        await rig.patch("services", "s", {"spec": {"ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "b"}]}})
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}}
    await rig.create("persistentvolumeclaims", {"metadata": {"name": "c"}, "spec": spec})
    await rig.patch("persistentvolumeclaims", "c", {"status": {"phase": "Bound"}}, "status")  # only a bound claim can grow
    await rig.patch("persistentvolumeclaims", "c", {"spec": {"resources": {"requests": {"storage": "3Gi"}}}})
    assert (await used(rig))["requests.storage"] == "3Gi"
    with pytest.raises(StatusError, match="exceeded quota"):
        await rig.patch("persistentvolumeclaims", "c", {"spec": {"resources": {"requests": {"storage": "4Gi"}}}})


async def test_scopes(rig: Rules) -> None:
    body = {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "0"}, "scopes": ["BestEffort"]}}
    await rig.create("resourcequotas", body)
    assert "exceeded quota" in (await rig.refused()).message
    await rig.pod("burst", container=resources(requests_cpu="1"))
    await rig.create("priorityclasses", {"metadata": {"name": "gold"}, "value": 10}, "", "scheduling.k8s.io")
    match = {"scopeName": "PriorityClass", "operator": "In", "values": ["gold"]}
    spec = {"hard": {"pods": "1"}, "scopeSelector": {"matchExpressions": [match]}}
    await rig.create("resourcequotas", {"metadata": {"name": "golden"}, "spec": spec})
    asks = resources(requests_cpu="1")
    await rig.pod("g1", container=asks, priorityClassName="gold")
    assert "exceeded quota: golden" in (await rig.refused("g2", container=asks, priorityClassName="gold")).message
    await rig.pod("plain", container=asks)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"hard": {"wonders": "1"}}, "must be a standard resource for quota"),
        ({"hard": {"pods": "-1"}}, "must be greater than or equal to 0"),
        ({"hard": {"pods": "1500m"}}, "must be an integer"),
        ({"hard": {"pods": "1"}, "scopes": ["Sometimes"]}, "unsupported scope"),
        ({"hard": {"pods": "1"}, "scopes": ["BestEffort", "NotBestEffort"]}, "conflicting scopes"),
        ({"hard": {"services": "1"}, "scopes": ["Terminating"]}, "unsupported scope applied to resource"),
    ],
)
async def test_quotas_that_make_no_sense(rig: Rules, spec: Object, says: str) -> None:
    with pytest.raises(StatusError, match=says) as e:
        await rig.create("resourcequotas", {"metadata": {"name": "q"}, "spec": spec})
    assert e.value.code == 422


async def test_many_at_once_take_exactly_what_there_is(rig: Rules) -> None:
    await quota(rig, pods="7")
    done = await asyncio.gather(*(rig.pod(f"p{i}") for i in range(20)), return_exceptions=True)
    made = [d for d in done if isinstance(d, dict)]
    assert len(made) == 7 and await used(rig) == {"pods": "7"}
    assert all("exceeded quota" in str(d) for d in done if not isinstance(d, dict))


# --- the note of what is on its way ------------------------------------------------------------------------------------


async def test_what_was_let_through_and_is_not_seen_yet_stays_counted(rig: Rules) -> None:
    await quota(rig, pods="3")
    made = await rig.pod("a")
    q = await rig.get("resourcequotas", "q")
    note = json.loads(q["metadata"]["annotations"][reserved.ANNOTATION])
    assert list(note) == [made["metadata"]["uid"]] and note[made["metadata"]["uid"]][0] == "/pods/a"
    now_us = rig.api.now_us()
    assert reserved.unseen(q, rig.storage.get, now_us) == {}, "it is there"
    assert set(reserved.unseen(q, lambda _: None, now_us)) == set(note), "for who doesn't see it, it is on its way"
    assert reserved.unseen(q, lambda _: None, now_us + 100_000_000) == {}, "and not for ever"


async def test_users_can_t_lose_the_note(rig: Rules) -> None:
    await quota(rig, pods="3")
    await rig.pod("a")
    for patch in ({"metadata": {"annotations": None}}, {"metadata": {"annotations": {reserved.ANNOTATION: "{}"}}}):
        await rig.patch("resourcequotas", "q", patch)
        q = await rig.get("resourcequotas", "q")
        assert reserved.unseen(q, lambda _: None, rig.api.now_us())
    broken = {"metadata": {"annotations": {reserved.ANNOTATION: "]["}}}
    assert (
        reserved.read(broken) == {} and reserved.read({"metadata": {"annotations": {reserved.ANNOTATION: '{"a":1}'}}}) == {}
    )


async def test_a_write_that_failed_is_given_back_when_its_time_is_over(rig: Rules) -> None:
    """As after a kill between the quota and the pod."""
    await quota(rig, pods="3")
    await rig.pod("a")
    real, view, key = (
        rig.storage.create,
        IndexedView(rig.storage, rig.api.catalog),
        ObjectKey(*counting.QUOTAS, "default", "q"),
    )

    async def killed(at: ObjectKey, obj: Object, origin: Origin) -> Any:
        if at.resource == "pods":
            raise Unavailable("the server died here")
        return await real(at, obj, origin)

    rig.storage.create = killed  # type: ignore[method-assign]
    assert (await rig.refused("b")).code == 503
    assert (await used(rig))["pods"] == "2"
    now_us = rig.api.now_us()

    plan = counting.reconcile(view, key, now_us)
    assert plan.writes == [] and plan.again_us is not None, "it may still be on its way"
    assert plan.again_us <= reserved.WAIT_S * 1_000_000
    (write,) = counting.reconcile(view, key, now_us + plan.again_us + 1_000_000).writes
    assert write.object is not None and write.object["status"]["used"]["pods"] == "1"


# --- counting ----------------------------------------------------------------------------------------------------------


def amounts(found: usage.Usage) -> dict[str, str]:
    return {k: str(v) for k, v in found.items()}


def test_what_a_pod_takes_at_its_most() -> None:
    def c(cpu: str, **more: Any) -> Object:
        return {"name": "c", **resources(requests_cpu=cpu, limits_memory="1Gi"), **more}

    spec = {"containers": [c("1"), c("500m")], "initContainers": [c("3"), c("1", restartPolicy="Always"), c("1")]}
    spec["overhead"] = {"cpu": "100m"}  # type: ignore[assignment]
    found = amounts(usage.of(usage.PODS, {"metadata": {}, "spec": spec}, 0))
    assert found["requests.cpu"] == found["cpu"] == "3100m", "the first init container alone takes the most"
    assert found["limits.memory"] == "3Gi", "the containers and the sidecar together"
    ended = {"metadata": {}, "spec": spec, "status": {"phase": "Succeeded"}}
    assert amounts(usage.of(usage.PODS, ended, 0)) == {"count/pods": "1"}
    device = {"containers": [{"name": "c", **resources(requests_x="1")}]}
    device["containers"][0]["resources"] = {"requests": {"example.com/gpu": "2"}}
    assert amounts(usage.of(usage.PODS, {"metadata": {}, "spec": device}, 0))["requests.example.com/gpu"] == "2"


def test_a_deletion_that_nobody_confirms_is_over_some_day() -> None:
    meta = {"deletionTimestamp": "1970-01-01T00:01:40Z", "deletionGracePeriodSeconds": 30}
    pod = {"metadata": meta, "spec": {"containers": []}}
    assert "pods" in usage.of(usage.PODS, pod, 120_000_000) and "pods" not in usage.of(usage.PODS, pod, 131_000_000)


class Limited(Cluster):
    def __init__(self) -> None:
        rig = Rules()
        super().__init__(rig.storage, rig.api)
        self.runner = ControllerRunner(rig.api)


@pytest.fixture
async def cluster() -> AsyncIterator[Limited]:
    made = Limited()
    async with running(made):
        yield made


async def test_what_goes_is_given_back_and_a_replica_set_fills_up(cluster: Limited) -> None:
    await cluster.node("n")
    hard = {"pods": "2", "count/deployments.apps": "1"}
    await cluster.create("", "resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": hard}})
    await cluster.create("apps", "deployments", deployment(replicas=3))

    async def quota_of() -> Object:
        status: Object = (await cluster.get("", "resourcequotas", "q"))["status"]
        return status

    async def until(check: Any) -> None:
        async with asyncio.timeout(60):
            while not await check():
                await cluster.kubelets()
                await asyncio.sleep(0.02)

    async def full() -> bool:
        status = await quota_of()
        return status == {"hard": hard, "used": {"pods": "2", "count/deployments.apps": "1"}}

    await until(full)
    assert len(await cluster.list("", "pods")) == 2

    async def told() -> bool:
        """As ``kubectl describe`` shows it to whoever wonders."""
        said = [e for e in await cluster.list("", "events") if e["reason"] == "FailedCreate"]
        return any(
            e["involvedObject"]["kind"] == "ReplicaSet"
            and "is forbidden: exceeded quota: q, requested: pods=1" in e["message"]
            for e in said
        )

    await until(told)
    first = (await cluster.list("", "pods"))[0]["metadata"]
    await cluster.delete("", "pods", first["name"])

    async def replaced() -> bool:
        uids = {p["metadata"]["uid"] for p in await cluster.list("", "pods")}
        return len(uids) == 2 and first["uid"] not in uids and await full()

    await until(replaced)
    await cluster.patch("", "resourcequotas", "q", {"spec": {"hard": {"pods": "3"}}})

    async def three() -> bool:
        return len(await cluster.list("", "pods")) == 3 and (await quota_of())["used"]["pods"] == "3"

    await until(three)
    await cluster.delete("apps", "deployments", "web")

    async def empty() -> bool:
        return (await quota_of())["used"] == {"pods": "0", "count/deployments.apps": "0"}

    await until(empty)
