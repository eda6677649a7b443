"""What the server gives a service, what stays, and what goes with its type; and other things that admission decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bus.kube.targets import Write
from tests.unit.kube_registry.conftest import ME, NS, Api, config_map, pod


def service(name: str = "s", **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": 80}], **spec}}


async def test_node_ports_are_given_kept_and_never_twice(api: Api, refused: Callable[..., Any]) -> None:
    made = await api.create("services", service(type="NodePort"))
    given = made["spec"]["ports"][0]["nodePort"]
    assert 30000 <= given <= 32767
    again = await api.update("services", service(type="NodePort"))
    assert again["spec"]["ports"][0]["nodePort"] == given and again["spec"]["clusterIP"] == made["spec"]["clusterIP"]
    e = await refused(
        api.create("services", service("t", type="NodePort", ports=[{"port": 1, "nodePort": given}])), 422, "Invalid"
    )
    assert e.details["causes"][0]["message"] == f"Invalid value: {given}: provided port is already allocated"
    e = await refused(
        api.create("services", service("t", type="NodePort", ports=[{"port": 1, "nodePort": 80}])), 422, "Invalid"
    )
    assert "The range of valid ports is 30000-32767" in e.message
    two = [{"port": 53, "protocol": p, "name": p.lower()} for p in ("TCP", "UDP")]
    both = await api.create("services", service("dns", type="LoadBalancer", ports=two))
    assert len({p["nodePort"] for p in both["spec"]["ports"]}) == 1 and both["spec"]["allocateLoadBalancerNodePorts"] is True


async def test_what_goes_with_the_type(api: Api) -> None:
    made = await api.create("services", service(type="NodePort"))
    made["spec"]["type"] = "ClusterIP"
    plain = await api.update("services", made)
    assert "nodePort" not in plain["spec"]["ports"][0] and "externalTrafficPolicy" not in plain["spec"]
    plain["spec"] |= {"type": "ExternalName", "externalName": "a.example.com"}
    named = await api.update("services", plain)
    assert not {"clusterIP", "clusterIPs", "ipFamilies", "internalTrafficPolicy"} & named["spec"].keys()
    named["spec"]["type"] = "ClusterIP"
    assert (await api.update("services", named))["spec"]["clusterIP"].startswith("10.96.")


async def test_a_cluster_address_stays(api: Api, refused: Callable[..., Any]) -> None:
    await api.create("services", service(sessionAffinity="ClientIP"))
    got = await api.get("services", "s")
    assert got["spec"]["sessionAffinityConfig"] == {"clientIP": {"timeoutSeconds": 10800}}
    e = await refused(api.patch("services", "s", {"spec": {"clusterIP": "10.96.0.77"}}), 422, "Invalid")
    assert e.details["causes"][0] == {
        "reason": "FieldValueInvalid",
        "message": 'Invalid value: ["10.96.0.77"]: may not change once set',
        "field": "spec.clusterIPs[0]",
    }


@pytest.mark.parametrize("name", ["default", "kube-system", "kube-public"])
async def test_namespaces_that_stay(api: Api, refused: Callable[..., Any], name: str) -> None:
    e = await refused(api.delete("namespaces", name, namespace=""), 403, "Forbidden")
    assert e.message == f'namespaces "{name}" is forbidden: this namespace may not be deleted'


async def test_a_dry_run_has_no_revision(api: Api) -> None:
    made = await api.create("configmaps", config_map(a="1"), dry_run=True)
    assert made["metadata"]["uid"] and "resourceVersion" not in made["metadata"]


async def test_a_job_has_the_labels_of_its_pods(api: Api) -> None:
    template = {"spec": {**pod()["spec"], "restartPolicy": "Never"}}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": {"template": template}}
    made = await api.rules.create("batch", "jobs", NS, job, how=Write(ME))
    assert made["metadata"]["labels"]["batch.kubernetes.io/job-name"] == "j"


@pytest.mark.parametrize(
    ("kind", "data", "messages"),
    [
        ("basic-auth", {}, ["Required value", "Required value"]),
        ("basic-auth", {"username": "YQ=="}, []),
        (
            "dockerconfigjson",
            {".dockerconfigjson": "bm90IGpzb24="},
            [
                "Invalid value: \"<secret contents redacted>\": invalid character 'o' in literal null (expecting 'u')",
            ],
        ),
    ],
)
async def test_secrets_have_what_their_type_needs(api: Api, kind: str, data: Any, messages: list[str]) -> None:
    from bus.kube.errors import StatusError

    body = {"metadata": {"name": "x"}, "type": f"kubernetes.io/{kind}", "data": data}
    try:
        await api.create("secrets", body)
        said = []
    except StatusError as e:
        said = [c["message"] for c in e.details["causes"]]
    assert said == messages
