"""What admission of service accounts does to a pod (kube-apiserver's ServiceAccount plugin)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bus.kube.admission import accounts
from tests.unit.kube_admission.conftest import Rules


async def test_a_pod_gets_its_token_volume(rig: Rules) -> None:
    init = [{"name": "i", "image": "i"}]
    spec = (await rig.pod(initContainers=init))["spec"]
    assert spec["serviceAccountName"] == spec["serviceAccount"] == "default"
    (volume,) = spec["volumes"]
    name = volume["name"]
    assert name.startswith("kube-api-access-") and len(name) == len("kube-api-access-") + 5
    field = {"apiVersion": "v1", "fieldPath": "metadata.namespace"}
    assert volume["projected"] == {
        "defaultMode": 420,
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": field}]}},
        ],
    }
    mount = {"name": name, "readOnly": True, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
    assert [c["volumeMounts"] for c in (*spec["containers"], *spec["initContainers"])] == [[mount], [mount]]


@pytest.mark.parametrize(
    ("pod", "account", "mounted"), [(None, None, True), (None, False, False), (True, False, True), (False, True, False)]
)
async def test_who_wants_no_token_gets_none(rig: Rules, pod: Any, account: Any, mounted: bool) -> None:
    body = {"metadata": {"name": "a"}} | ({} if account is None else {"automountServiceAccountToken": account})
    await rig.create("serviceaccounts", body)
    said = {} if pod is None else {"automountServiceAccountToken": pod}
    spec = (await rig.pod(serviceAccountName="a", **said))["spec"]
    assert bool(spec.get("volumes")) is mounted and bool(spec["containers"][0].get("volumeMounts")) is mounted


async def test_what_is_mounted_there_already_stays(rig: Rules) -> None:
    mine = {"name": "mine", "mountPath": accounts.MOUNT_PATH}
    spec = (await rig.pod(container={"volumeMounts": [mine]}, volumes=[{"name": "mine", "emptyDir": {}}]))["spec"]
    assert [v["name"] for v in spec["volumes"]] == ["mine"] and spec["containers"][0]["volumeMounts"] == [mine]
    made = {"name": "kube-api-access-own", "emptyDir": {}}
    spec = (await rig.pod("q", volumes=[made]))["spec"]
    assert [v["name"] for v in spec["volumes"]] == ["kube-api-access-own"]
    assert spec["containers"][0]["volumeMounts"][0]["name"] == "kube-api-access-own"


async def test_pull_secrets_of_the_account_unless_the_pod_has_its_own(rig: Rules) -> None:
    await rig.create("serviceaccounts", {"metadata": {"name": "a"}, "imagePullSecrets": [{"name": "hub"}]})
    assert (await rig.pod(serviceAccountName="a"))["spec"]["imagePullSecrets"] == [{"name": "hub"}]
    own = [{"name": "mine"}]
    assert (await rig.pod("q", serviceAccountName="a", imagePullSecrets=own))["spec"]["imagePullSecrets"] == own


async def test_a_missing_account_is_refused_in_the_real_servers_words(rig: Rules, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "WAIT_S", 0.0)
    refused = await rig.refused(serviceAccountName="nobody")
    said = 'pods "p" is forbidden: error looking up service account default/nobody: serviceaccount "nobody" not found'
    assert (refused.code, refused.message) == (403, said)


async def test_an_account_that_is_on_its_way_is_waited_for(rig: Rules, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "WAIT_S", 30.0)
    await rig.create("namespaces", {"metadata": {"name": "new"}}, "")
    making = asyncio.create_task(rig.pod(namespace="new"))
    await asyncio.sleep(0)
    await rig.create("serviceaccounts", {"metadata": {"name": "default"}}, "new")
    assert (await making)["spec"]["serviceAccountName"] == "default"
