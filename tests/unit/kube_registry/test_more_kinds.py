"""Autoscalers, networking, the machinery of a cluster, old templates, and events in both their forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.kube_registry.conftest import NS, Api, pod

NETWORKING, STORAGE = "networking.k8s.io", "storage.k8s.io"
HPAS = "horizontalpodautoscalers"


def hpa(version: str = "v2", **spec: Any) -> dict[str, Any]:
    ref = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    base = {"scaleTargetRef": ref, "maxReplicas": 5}
    head = {"apiVersion": f"autoscaling/{version}", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"}}
    return {**head, "spec": {**base, **spec}}


def of(api_version: str, kind: str, name: str = "x", **fields: Any) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, **fields}


async def test_an_autoscaler_is_spoken_in_two_versions(api: Api) -> None:
    async def get(version: str) -> Any:
        return await api.rules.get("autoscaling", HPAS, NS, "web", version=version)

    made = await api.rules.create(
        "autoscaling", HPAS, NS, hpa("v1", targetCPUUtilizationPercentage=60), how=_how(), version="v1"
    )
    assert made["apiVersion"] == "autoscaling/v1" and made["spec"]["minReplicas"] == 1
    assert made["spec"]["targetCPUUtilizationPercentage"] == 60
    newer = await get("v2")
    target = {"type": "Utilization", "averageUtilization": 60}
    assert newer["spec"]["metrics"] == [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    pods = {"metric": {"name": "hits"}, "target": {"type": "AverageValue", "averageValue": "5"}}
    newer["spec"]["metrics"].append({"type": "Pods", "pods": pods})
    newer["spec"]["behavior"] = {"scaleDown": {"stabilizationWindowSeconds": 60}}
    changed = await api.update(HPAS, newer, "autoscaling")
    assert changed["spec"]["behavior"]["scaleUp"]["policies"][0] == {"type": "Pods", "value": 4, "periodSeconds": 15}
    assert changed["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"] == 60
    older = await get("v1")
    assert set(older["metadata"]["annotations"]) == {f"autoscaling.alpha.kubernetes.io/{n}" for n in ("behavior", "metrics")}
    older["spec"]["maxReplicas"] = 9
    await api.rules.update("autoscaling", HPAS, NS, "web", older, how=_how(), version="v1")
    back = await get("v2")
    assert back["spec"]["maxReplicas"] == 9 and len(back["spec"]["metrics"]) == 2 and "annotations" not in back["metadata"]
    assert back["spec"]["behavior"] == changed["spec"]["behavior"]


async def test_an_autoscaler_without_metrics_looks_at_the_processor(api: Api) -> None:
    got = await api.create(HPAS, hpa(), "autoscaling")
    assert got["spec"]["metrics"][0]["resource"]["target"] == {"type": "Utilization", "averageUtilization": 80}


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        ({"maxReplicas": 0}, "spec.maxReplicas", "Required value: must be set and greater than 0"),
        ({"minReplicas": 7}, "spec.maxReplicas", "Invalid value: 5: must be greater than or equal to `minReplicas`"),
        ({"minReplicas": 0}, "spec.minReplicas", "Invalid value: 0: must be greater than or equal to 1"),
        ({"scaleTargetRef": {"kind": "Deployment", "name": ""}}, "spec.scaleTargetRef.name", "Required value"),
        (
            {"metrics": [{"type": "Pods"}]},
            "spec.metrics[0].pods",
            "Required value: must populate information for the given metric source",
        ),
        (
            {"behavior": {"scaleUp": {"policies": []}, "scaleDown": {"selectPolicy": "No"}}},
            "spec.behavior.scaleDown.selectPolicy",
            None,
        ),
    ],
)
async def test_invalid_autoscalers(
    api: Api, refused: Callable[..., Any], spec: Any, field: str, message: str | None
) -> None:
    e = await refused(api.create(HPAS, hpa(**spec), "autoscaling"), 422, "Invalid")
    said = [(c["field"], c["message"]) for c in e.details["causes"]]
    assert any(f == field and message in (None, m) for f, m in said), said


def ingress(**spec: Any) -> dict[str, Any]:
    return of(f"{NETWORKING}/v1", "Ingress", spec=spec)


def rule(path: dict[str, Any]) -> dict[str, Any]:
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    return {"rules": [{"http": {"paths": [{"backend": backend, "path": "/", "pathType": "Prefix", **path}]}}]}


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        ({}, "spec", "either `defaultBackend` or `rules` must be specified"),
        (rule({"pathType": None}), "spec.rules[0].http.paths[0].pathType", "Required value: pathType must be specified"),
        (rule({"path": "x"}), "spec.rules[0].http.paths[0].path", 'Invalid value: "x": must be an absolute path'),
        (rule({"path": "/a/../b"}), "spec.rules[0].http.paths[0].path", "must not contain '/../'"),
        (
            rule({"backend": {"service": {"name": "w", "port": {}}}}),
            "spec.rules[0].http.paths[0].backend",
            "Required value: port name or number is required",
        ),
        ({"rules": [{"host": "10.0.0.1"}]}, "spec.rules[0].host", "must be a DNS name, not an IP address"),
        ({"rules": [{"host": "*.a.*"}]}, "spec.rules[0].host", "a wildcard DNS-1123 subdomain must start with '*.'"),
    ],
)
async def test_invalid_ingresses(api: Api, refused: Callable[..., Any], spec: Any, field: str, message: str) -> None:
    e = await refused(api.create("ingresses", ingress(**spec), NETWORKING), 422, "Invalid")
    causes = [c for c in e.details["causes"] if c["field"] == field]
    assert causes and message in causes[0]["message"], e.details


async def test_an_ingress_gets_the_default_class(api: Api, refused: Callable[..., Any]) -> None:
    default = of(f"{NETWORKING}/v1", "IngressClass", "nginx", spec={"controller": "k8s.io/nginx"})
    default["metadata"]["annotations"] = {"ingressclass.kubernetes.io/is-default-class": "true"}
    await api.create("ingressclasses", default, NETWORKING, "")
    made = await api.create("ingresses", ingress(**rule({})), NETWORKING)
    assert made["spec"]["ingressClassName"] == "nginx" and made["metadata"]["generation"] == 1
    assert made["status"] == {"loadBalancer": {}}
    changed = await api.get("ingressclasses", "nginx", NETWORKING, "")
    changed["spec"]["controller"] = "k8s.io/other"
    how = _how()
    attempt = api.rules.update(NETWORKING, "ingressclasses", "", "nginx", changed, how=how)
    e = await refused(attempt, 422, "Invalid")
    assert e.details["causes"][0]["message"] == 'Invalid value: "k8s.io/other": field is immutable'


async def test_network_policies(api: Api, refused: Callable[..., Any]) -> None:
    def policy(**spec: Any) -> dict[str, Any]:
        return of(f"{NETWORKING}/v1", "NetworkPolicy", spec=spec)

    got = await api.create("networkpolicies", policy(podSelector={}, egress=[{"ports": [{"port": 53}]}]), NETWORKING)
    assert got["spec"]["policyTypes"] == ["Ingress", "Egress"] and got["spec"]["egress"][0]["ports"][0]["protocol"] == "TCP"
    for peer, said in (
        ({}, "Required value: must specify a peer"),
        ({"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}, "Forbidden: may not specify both ipBlock and another peer"),
        ({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/9"]}}, "must be a strict subset of `cidr`"),
    ):
        bad = policy(podSelector={}, ingress=[{"from": [peer]}])
        e = await refused(api.create("networkpolicies", bad, NETWORKING), 422, "Invalid")
        assert said in e.details["causes"][0]["message"]


async def test_replication_controllers_take_their_labels_from_the_template(api: Api, refused: Callable[..., Any]) -> None:
    template = {"metadata": {"labels": {"app": "a"}}, "spec": pod()["spec"]}
    got = await api.create("replicationcontrollers", of("v1", "ReplicationController", spec={"template": template}))
    assert got["spec"]["selector"] == got["metadata"]["labels"] == {"app": "a"} and got["spec"]["replicas"] == 1
    scale = await api.rules.get("", "replicationcontrollers", NS, "x", subresource="scale")
    assert scale["status"]["selector"] == "app=a" and scale["spec"] == {"replicas": 1}
    bad = of("v1", "ReplicationController", "y", spec={"template": template, "selector": {"app": "b"}})
    e = await refused(api.create("replicationcontrollers", bad), 422, "Invalid")
    assert "`selector` does not match template `labels`" in e.message


async def test_the_machinery_has_defaults_and_fixed_fields(api: Api, refused: Callable[..., Any]) -> None:
    driver = await api.create("csidrivers", of(f"{STORAGE}/v1", "CSIDriver", "d.example.com", spec={}), STORAGE, "")
    assert driver["spec"]["attachRequired"] is True and driver["spec"]["volumeLifecycleModes"] == ["Persistent"]
    runtime = await api.create(
        "runtimeclasses", of("node.k8s.io/v1", "RuntimeClass", "runc", handler="runc"), "node.k8s.io", ""
    )
    runtime["handler"] = "kata"
    attempt = api.rules.update("node.k8s.io", "runtimeclasses", "", "runc", runtime, how=_how())
    assert "field is immutable" in (await refused(attempt, 422, "Invalid")).message
    attachment = of(f"{STORAGE}/v1", "VolumeAttachment", spec={"attacher": "d", "nodeName": "n", "source": {}})
    assert "exactly one" in (await refused(api.create("volumeattachments", attachment, STORAGE, ""), 422, "Invalid")).message


async def test_events_are_one_store_with_two_names(api: Api, refused: Callable[..., Any]) -> None:
    about = {"kind": "Pod", "name": "p", "namespace": NS}
    modern = of("events.k8s.io/v1", "Event", "e1", regarding=about, note="came up", type="Normal", reason="Up")
    attempt = api.create("events", dict(modern), "events.k8s.io")
    e = await refused(attempt, 422, "Invalid")
    assert {c["field"] for c in e.details["causes"]} == {"eventTime", "reportingController", "reportingInstance", "action"}
    modern |= {"eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "x.io/y", "reportingInstance": "y-0"}
    made = await api.create("events", {**modern, "action": "Starting"}, "events.k8s.io")
    assert made["regarding"]["name"] == "p" and made["note"] == "came up" and made["apiVersion"] == "events.k8s.io/v1"
    core = await api.get("events", "e1")
    assert core["involvedObject"]["name"] == "p" and core["message"] == "came up" and core["apiVersion"] == "v1"
    old = of("v1", "Event", "e2", involvedObject=about, message="old", count=3, firstTimestamp="2026-01-01T00:00:00Z")
    await api.create("events", old)
    listed, _ = await api.rules.list("events.k8s.io", "events", NS, fields="regarding.name=p")
    assert [(e["metadata"]["name"], e.get("deprecatedCount")) for e in listed] == [("e1", None), ("e2", 3)]
    await api.delete("events", "e1", "events.k8s.io")
    await refused(api.get("events", "e1"), 404, "NotFound")


async def test_a_pod_is_resized_in_its_cpu_and_memory_only(api: Api, refused: Callable[..., Any]) -> None:
    def sized(cpu: str, **more: Any) -> dict[str, Any]:
        resources = {"requests": {"cpu": cpu}, "limits": {"cpu": "2"}}
        return pod(containers=[{"name": "main", "image": "busybox:1", "resources": resources, **more}])

    await api.create("pods", sized("100m"))
    got = await api.patch("pods", "p", {"spec": sized("200m")["spec"]}, kind="strategic", sub="resize")
    assert got["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "200m"}
    same = {"containers": [{"name": "main", "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "2"}}}]}
    assert (await api.patch("pods", "p", {"spec": same}, kind="strategic", sub="resize"))["spec"]["containers"][0][
        "resources"
    ]
    kept = await api.patch("pods", "p", {"spec": {"hostNetwork": True}}, kind="merge", sub="resize")
    assert "hostNetwork" not in kept["spec"], "what is no resize is dropped, as the real server drops it"
    more = {"containers": [{"name": "main", "resources": {"limits": {"example.com/gpu": "1"}}}]}
    e = await refused(api.patch("pods", "p", {"spec": more}, kind="strategic", sub="resize"), 422, "Invalid")
    assert "only cpu and memory resources are mutable" in e.message


def _how() -> Any:
    from bus.kube.targets import Write
    from tests.unit.kube_registry.conftest import ME

    return Write(ME)
