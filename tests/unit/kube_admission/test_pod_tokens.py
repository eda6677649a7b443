"""Tokens of pods on nodes: there before the pod, as long-lived as the node may be alone, and gone with the pod."""

from __future__ import annotations

from typing import Any

import pytest

from bus.identity import api_keys
from bus.kube.auth import jws
from cloud import pod_tokens as keeping
from cloud.standalone.pod_tokens import PodTokens, life_s
from schemas import pod_tokens
from schemas.identity import ApiKeys
from tests.unit.kube_admission.conftest import Rules

DAY_S = 86_400
AT = pod_tokens.key("default", "p")


async def bind(rig: Rules, name: str = "p", node: str = "n") -> None:
    target = {"target": {"kind": "Node", "name": node}}
    await rig.api.create("", "pods", "default", target, how=rig.how, name=name, subresource="binding")


def claims(rig: Rules) -> dict[str, Any]:
    held = rig.storage.get(AT)
    assert held is not None
    token = held.object["tokens"][0]["token"]
    return jws.verify(token, rig.keys.verifying(rig.issuer._now_us()))[1]


async def test_the_token_is_in_the_log_before_the_pod_has_its_node(rig: Rules) -> None:
    await rig.create("nodes", {"metadata": {"name": "n"}}, "")
    made = await rig.pod()
    assert rig.storage.get(AT) is None, "it is on no node"
    await bind(rig)
    held, pod = rig.storage.get(AT), await rig.get("pods", "p")
    assert held is not None and held.rev < int(pod["metadata"]["resourceVersion"])
    said = claims(rig)["kubernetes.io"]
    assert said["pod"] == {"name": "p", "uid": made["metadata"]["uid"]} and said["node"]["name"] == "n"
    user, _ = rig.issuer.user(held.object["tokens"][0]["token"])
    assert user.name == "system:serviceaccount:default:default"
    assert dict(pod_tokens.files(held.object)) == {f"{made['metadata']['uid']}/": held.object["tokens"][0]["token"].encode()}


async def test_a_pod_made_on_a_node_has_its_token_too_and_a_second_one_of_its_name_spoils_nothing(rig: Rules) -> None:
    made = await rig.pod(nodeName="n")
    held = rig.storage.get(AT)
    assert held is not None and held.rev < int(made["metadata"]["resourceVersion"])
    assert (await rig.refused(nodeName="n")).reason == "AlreadyExists"
    assert rig.storage.get(AT) == held
    await rig.pod("other", nodeName="n", automountServiceAccountToken=False)
    assert rig.storage.get(pod_tokens.key("default", "other")) is None, "who mounts none gets none"


@pytest.mark.parametrize(
    ("said", "days"),
    [(None, 5), ("12h", 5), ("10d", 50), ("forever", 365), ("400d", 365), ("nonsense", 5)],
)
def test_life_is_five_times_what_a_node_may_be_alone(said: str | None, days: int) -> None:
    notes = {} if said is None else {"skerry.io/autonomy": said}
    assert life_s({"metadata": {"name": "n", "annotations": notes}}, 3607) == days * DAY_S
    assert life_s(None, 20 * DAY_S) == 20 * DAY_S, "who asks for more gets more"


async def test_a_token_is_made_again_when_its_key_is_retired_and_not_otherwise(rig: Rules) -> None:
    seal = api_keys.Seal("x")
    ring = ApiKeys(keys=[seal.make(0, signs_from=0)])
    rig.keys = api_keys.Ring(seal)
    rig.keys.take(ring)
    rig.issuer._keys = rig.keys
    await rig.pod(nodeName="n")
    before = rig.storage.get(AT)
    worker = PodTokens(rig.storage, rig.issuer)
    await worker.keeper.look(worker._ensure)
    assert rig.storage.get(AT) == before and worker.keeper.issued == 0
    now_us = rig.issuer._now_us()
    rotated = api_keys.rotated(ring, seal.make(now_us, signs_from=now_us), now_us)
    rig.keys.take(api_keys.retired(rotated, ring.keys[0].kid, now_us))
    await worker.keeper.look(worker._ensure)
    assert worker.keeper.issued == 1 and claims(rig)["sub"] == "system:serviceaccount:default:default"


async def test_tokens_go_with_their_pod(rig: Rules) -> None:
    await rig.pod(nodeName="n")
    await rig.delete("pods", "p")
    worker = PodTokens(rig.storage, rig.issuer)
    await worker.keeper.look(worker._ensure)
    assert rig.storage.get(AT) is not None, "its pod may be on its way"
    patient = keeping.Keeper(rig.storage, worker._issue, "test")
    await patient.look(worker._ensure)
    assert rig.storage.get(AT) is None


def test_when_a_token_is_due() -> None:
    entry = keeping.entry("", "t", 0, "1970-01-01T10:00:00Z")
    hour_us = 3_600_000_000
    assert not keeping.due(entry, 7 * hour_us, "p") and keeping.due(entry, 8 * hour_us, "p")
    assert keeping.due({"audience": ""}, 0, "p")


async def test_an_account_that_is_gone_keeps_no_pod_from_its_node(rig: Rules) -> None:
    await rig.create("serviceaccounts", {"metadata": {"name": "a"}})
    await rig.pod(serviceAccountName="a")
    await rig.delete("serviceaccounts", "a")
    await bind(rig)
    assert (await rig.get("pods", "p"))["spec"]["nodeName"] == "n" and rig.storage.get(AT) is None
