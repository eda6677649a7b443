"""Reading pods, references, quantities and images' words: leaf functions, and what any nonsense at all does to the core."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core import env, pod_parse, pod_spec, quantities, stimuli, volumes_plan
from edge.core.expand import expand
from edge.core.pod_spec import InvalidPod
from edge.core.pods import PodsCore
from edge.core.pull_auth import credentials
from edge.core.references import Missing, References
from edge.core.settings import NodeFacts, PodSettings
from edge.core.times import rfc3339
from schemas.subjects import ObjectKey

NODE = NodeFacts("edge-1", "10.0.0.7", 4000, 1 << 30)


def read(**spec: Any) -> pod_spec.Pod:
    containers = spec.pop("containers", [{"name": "main", "image": "app:1"}])
    meta = {"name": "p", "namespace": "default", "uid": "u", "labels": {"app": "x"}, "annotations": {"note": 'say "hi"'}}
    return pod_parse.parse({"metadata": meta, "spec": {"containers": containers, **spec}})


@pytest.mark.parametrize(
    ("text", "bytes_", "milli"),
    [
        ("1", 1, 1000),
        ("100m", 1, 100),
        ("1.5", 2, 1500),
        ("64Mi", 64 << 20, 64_000 << 20),
        ("1k", 1000, 1_000_000),
        ("1e3", 1000, 1_000_000),
        ("0.1", 1, 100),
        (2, 2, 2000),
        ("1n", 1, 1),
    ],
)
def test_quantities(text: Any, bytes_: int, milli: int) -> None:
    assert (quantities.whole(text), quantities.milli(text)) == (bytes_, milli)


@pytest.mark.parametrize("text", ["", "x", "1 Mi", "1MiB", "--1", "1e999", None, True, "٣"])
def test_what_is_not_a_quantity(text: Any) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        quantities.parse(text)


@given(st.integers(0, 4_102_444_800))
def test_times_are_whole_seconds_of_utc(seconds: int) -> None:
    text = rfc3339(seconds * 1_000_000 + 999_999)
    assert datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp() == seconds


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$(A)", "1"),
        ("$(A)$(B)", "1$(B)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$A", "$A"),
        ("$(A", "$(A"),
        ("a$", "a$"),
        ("$()", "$()"),
    ],
)
def test_expansion(text: str, result: str) -> None:
    assert expand(text, {"A": "1"}) == result


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("app", "Always"),
        ("app:latest", "Always"),
        ("app:1", "IfNotPresent"),
        ("host:5000/app", "Always"),
        ("host:5000/app:2", "IfNotPresent"),
        ("app@sha256:00", "IfNotPresent"),
    ],
)
def test_default_pull_policies(image: str, policy: str) -> None:
    assert read(containers=[{"name": "main", "image": image}]).containers[0].pull_policy == policy


@pytest.mark.parametrize(
    ("spec", "where"),
    [
        ({"containers": []}, "pod.spec.containers: at least one"),
        ({"containers": [{"name": "a"}]}, r"containers\[0\].image"),
        ({"containers": [{"name": "a", "image": "i"}, {"name": "a", "image": "i"}]}, "names repeat"),
        ({"restartPolicy": "Sometimes"}, "restartPolicy: one of"),
        ({"containers": [{"name": "a", "image": "i", "args": [1]}]}, r"args\[0\]: text"),
        ({"containers": [{"name": "a", "image": "i", "livenessProbe": {}}]}, "livenessProbe: httpGet"),
        (
            {"containers": [{"name": "a", "image": "i", "livenessProbe": {"tcpSocket": {"port": "web"}}}]},
            "port: a port number",
        ),
        ({"containers": [{"name": "a", "image": "i", "resources": {"limits": {"cpu": "much"}}}]}, "cpu: 'much'"),
        ({"terminationGracePeriodSeconds": -1}, "terminationGracePeriodSeconds"),
    ],
)
def test_a_malformed_pod_is_refused_with_the_field(spec: dict[str, Any], where: str) -> None:
    with pytest.raises(InvalidPod, match=where):
        read(**spec)


_any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 70_000)
    | st.floats(allow_nan=False)
    | st.sampled_from(["x", "", "1Gi", "/a"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["name", "key", "port"]), inner, max_size=2),
    max_leaves=4,
)


def _maybe(**fields: Any) -> Any:
    """A map with some of these fields, each well-formed or anything."""
    return st.fixed_dictionaries({}, optional={k: v | _any for k, v in fields.items()})


_item = _maybe(
    key=st.just("a"), path=_any, mode=_any, fieldRef=_maybe(fieldPath=_any), resourceFieldRef=_maybe(divisor=_any)
)
_source = _maybe(
    name=st.just("x"), secretName=st.just("x"), items=st.lists(_item, max_size=2), optional=_any, defaultMode=_any
)
_projected = _maybe(sources=st.lists(_maybe(configMap=_source, secret=_source, downwardAPI=_source), max_size=2))
_volume = st.fixed_dictionaries(
    {"name": st.just("v") | _any},
    optional={
        "configMap": _source,
        "secret": _source,
        "downwardAPI": _source,
        "projected": _projected,
        "emptyDir": _maybe(medium=st.just("Memory"), sizeLimit=_any),
        "hostPath": _maybe(path=_any, type=_any),
    },
)
_ref = _maybe(
    name=st.just("x"), key=st.just("a"), optional=_any, fieldPath=_any, resource=_any, divisor=_any, containerName=_any
)
_from = _maybe(configMapKeyRef=_ref, secretKeyRef=_ref, fieldRef=_ref, resourceFieldRef=_ref)
_hook = _maybe(httpGet=_maybe(port=_any, httpHeaders=_any), tcpSocket=_any, exec=_maybe(command=_any), grpc=_any, sleep=_any)
_container = st.fixed_dictionaries(
    {"name": st.just("main"), "image": st.just("app:1")},
    optional={
        "command": _any,
        "args": _any,
        "env": st.lists(_maybe(name=st.just("X"), value=_any, valueFrom=_from), max_size=2) | _any,
        "envFrom": st.lists(_maybe(prefix=_any, configMapRef=_ref, secretRef=_ref), max_size=2) | _any,
        "ports": st.lists(_maybe(containerPort=_any, hostPort=_any, name=_any, protocol=_any), max_size=2) | _any,
        "volumeMounts": st.lists(_maybe(name=st.just("v"), mountPath=st.just("/v"), subPath=_any), max_size=2) | _any,
        "resources": _maybe(limits=_maybe(cpu=_any, memory=_any), requests=_any),
        "securityContext": _maybe(runAsUser=_any, capabilities=_maybe(add=_any, drop=_any), privileged=_any),
        "livenessProbe": _hook,
        "lifecycle": _maybe(postStart=_hook, preStop=_hook),
        "imagePullPolicy": _any,
    },
)
_spec = st.fixed_dictionaries(
    {"containers": st.lists(_container, min_size=1, max_size=1)},
    optional={
        "volumes": st.lists(_volume, max_size=2) | _any,
        "initContainers": _any,
        "restartPolicy": _any,
        "hostNetwork": _any,
        "dnsConfig": _maybe(nameservers=_any, searches=_any, options=_any),
        "hostAliases": st.lists(_maybe(ip=_any, hostnames=_any), max_size=2) | _any,
        "securityContext": _maybe(fsGroup=_any, supplementalGroups=_any, sysctls=_any, seccompProfile=_any),
        "imagePullSecrets": _any,
        "activeDeadlineSeconds": _any,
        "terminationGracePeriodSeconds": _any,
    },
)
_meta = st.fixed_dictionaries({"name": st.just("p"), "uid": st.just("u")}, optional={"labels": _any, "annotations": _any})
_pod = st.fixed_dictionaries({"metadata": _meta, "spec": _spec}, optional={"status": _any})
_data = _maybe(data=_any, binaryData=_any, stringData=_any, spec=_maybe(clusterIP=_any, ports=_any))


@given(_pod | _any, _data | st.just({"data": {"a": "YQ=="}}))
def test_no_object_at_all_breaks_the_core(obj: Any, referred: Any) -> None:
    """Whatever is under a pod's or a config map's address: it is run, waits or is refused, and the core goes on."""
    core = PodsCore(PodSettings(), NODE)
    at = 0

    def feed(kind: type[Any], *more: Any, **named: Any) -> list[Any]:
        nonlocal at
        at += 1_000_000
        return core.handle(kind(at, at, *more, **named))

    snapshot = next(i for i in feed(stimuli.RuntimeUp) if hasattr(i, "lane"))
    for resource in ("configmaps", "secrets", "services"):
        feed(
            stimuli.ObjectApplied,
            ObjectKey("", resource, "default", "x"),
            "e",
            "t",
            referred if isinstance(referred, dict) else {},
        )
    feed(stimuli.ObjectApplied, ObjectKey("", "pods", "default", "p"), "e", "t", obj if isinstance(obj, dict) else {})
    pending = [snapshot]
    for _ in range(20):  # let it go on as far as it can
        if not pending:
            break
        effect = pending.pop()
        pending += [i for i in feed(stimuli.EffectDone, effect.id, True) if hasattr(i, "lane")]
    feed(stimuli.Tick)


# --- references -----------------------------------------------------------------------------------------------------


def refs() -> References:
    found = References()
    found.apply("configmaps", "default", "m", {"data": {"a": "1", "b-c": "2", "bad key": "3"}})
    found.apply("secrets", "default", "s", {"data": {"k": base64.b64encode(b"v").decode(), "broken": "%%%"}})
    service = {"spec": {"clusterIP": "10.96.0.9", "ports": [{"name": "http", "port": 80}, {"name": "more", "port": 81}]}}
    found.apply("services", "default", "my-web", service)
    found.apply("services", "default", "headless", {"spec": {"clusterIP": "None", "ports": [{"port": 1}]}})
    return found


def test_the_environment_in_the_order_of_kubernetes() -> None:
    container = {
        "name": "main",
        "image": "app:1",
        "envFrom": [
            {"configMapRef": {"name": "m"}, "prefix": "P_"},
            {"secretRef": {"name": "absent", "optional": True}},
        ],
        "env": [
            {"name": "X", "value": "$(P_a)/$(MY_WEB_SERVICE_HOST):$(MY_WEB_SERVICE_PORT)"},
            {"name": "Y", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "OPT", "valueFrom": {"secretKeyRef": {"name": "s", "key": "none", "optional": True}}},
            {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
            {"name": "P_a", "value": "own"},
        ],
    }
    pod = read(containers=[container])
    got = env.environment(pod.containers[0], pod, refs(), NODE, "172.17.0.2", True)
    assert got["X"] == "1/10.96.0.9:80" and got["P_a"] == "own" and got["P_b-c"] == "2"
    assert (got["Y"], got["LABEL"], got["IP"], got["MEM"]) == ("v", "x", "172.17.0.2", "1024")
    assert got["MY_WEB_SERVICE_PORT_MORE"] == "81"
    assert "OPT" not in got and "P_bad key" not in got and not any(k.startswith("HEADLESS") for k in got)


def test_the_api_is_named_where_it_can_be_reached_and_not_elsewhere() -> None:
    found, port = refs(), {"name": "https", "port": 6443}

    def named(**spec: Any) -> dict[str, str]:
        found.apply("services", "default", "kubernetes", {"spec": {"clusterIP": "10.96.0.1", "ports": [port], **spec}})
        out = {}
        for pod in (read(), read(enableServiceLinks=False)):
            got = env.environment(pod.containers[0], pod, found, NODE, "172.17.0.2", True)
            out = {k: v for k, v in got.items() if k.startswith("KUBERNETES")}
        return out

    assert named() == {}, "nobody routes a cluster's address on an edge node"
    wanted = {"HOST": "192.0.2.7", "PORT": "6443", "PORT_HTTPS": "6443"}
    assert named(externalIPs=["192.0.2.7", "192.0.2.8"]) == {f"KUBERNETES_SERVICE_{k}": v for k, v in wanted.items()}
    assert named(externalIPs=[7]) == named(externalIPs="x") == {}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"configMapKeyRef": {"name": "none", "key": "a"}}, 'configmap "none" not found'),
        ({"configMapKeyRef": {"name": "m", "key": "z"}}, "couldn't find key z in ConfigMap default/m"),
        ({"secretKeyRef": {"name": "s", "key": "broken"}}, "couldn't find key broken in Secret default/s"),
        ({"fieldRef": {"fieldPath": "spec.everything"}}, "unsupported fieldPath"),
        ({"resourceFieldRef": {"resource": "limits.gold"}}, "unsupported container resource"),
        ({}, "valueFrom has no source"),
    ],
)
def test_what_is_missing_is_named(source: dict[str, Any], message: str) -> None:
    pod = read(containers=[{"name": "main", "image": "app:1", "env": [{"name": "X", "valueFrom": source}]}])
    with pytest.raises(Missing, match=message):
        env.environment(pod.containers[0], pod, refs(), NODE, "", False)


def test_volumes_of_every_kind() -> None:
    fields = [
        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        {"path": "notes", "fieldRef": {"fieldPath": "metadata.annotations"}},
        {"path": "cpu", "resourceFieldRef": {"containerName": "main", "resource": "limits.cpu", "divisor": "1m"}},
    ]
    pod = read(
        volumes=[
            {"name": "all", "configMap": {"name": "m"}},
            {"name": "some", "configMap": {"name": "m", "items": [{"key": "a", "path": "d/e", "mode": 256}]}},
            {"name": "secret", "secret": {"secretName": "s", "defaultMode": 0o400}},
            {"name": "down", "downwardAPI": {"items": fields}},
            {"name": "absent", "configMap": {"name": "no", "optional": True}},
            {"name": "later", "configMap": {"name": "no"}},
            {
                "name": "token",
                "projected": {
                    "sources": [
                        {"serviceAccountToken": {"path": "token"}},
                        {"configMap": {"name": "kube-root-ca.crt"}},
                        {"downwardAPI": {"items": [{"path": "ns", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
                    ]
                },
            },
            {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        ]
    )
    plan = volumes_plan.plan(pod, refs(), NODE)
    by_name: dict[str, Any] = {v.name: v for v in plan.volumes}
    assert [f.path for f in by_name["all"].files] == ["a", "b-c", "bad key"]
    assert [(f.path, f.content, f.mode) for f in by_name["some"].files] == [("d/e", b"1", 256)]
    assert by_name["secret"].secret and by_name["secret"].files[0].mode == 0o400
    down = {f.path: f.content for f in by_name["down"].files}
    assert down == {"labels": b'app="x"', "notes": b'note="say \\"hi\\""', "cpu": b"4000"}
    assert by_name["absent"].files == () and by_name["absent"].missing == ""
    assert [f.path for f in by_name["token"].files] == ["ns"]
    assert plan.missing == 'configmap "no" not found'
    assert by_name["tmp"].size == 1 << 20


@pytest.mark.parametrize(
    "volume",
    [
        {"name": "../up", "emptyDir": {}},
        {"name": "v", "configMap": {"name": "m", "items": [{"key": "a", "path": "../../etc/passwd"}]}},
        {"name": "v", "configMap": {"name": "m", "items": [{"key": "a", "path": "/etc/passwd"}]}},
        {"name": "v", "hostPath": {"path": "relative"}},
        {"name": "v", "hostPath": {"path": "/a/../b"}},
    ],
)
def test_volumes_that_lead_astray_are_refused(volume: dict[str, Any]) -> None:
    with pytest.raises(InvalidPod, match=r"pod\.spec\.volumes"):
        volumes_plan.plan(read(volumes=[volume]), refs(), NODE)


def bound(source: dict[str, Any], **claim: Any) -> References:
    found = refs()
    found.apply("persistentvolumeclaims", "default", "c", {"spec": {"volumeName": "pv", **claim}})
    ref = {"namespace": "default", "name": "c"}
    found.apply("persistentvolumes", "", "pv", {"spec": {"capacity": {"storage": "1Gi"}, "claimRef": ref, **source}})
    return found


def kept(node: str, handle: str = "pvc-1") -> dict[str, Any]:
    return {"csi": {"driver": "skerry.io/local", "volumeHandle": handle, "volumeAttributes": {"skerry.io/node": node}}}


CLAIMED = {"name": "v", "persistentVolumeClaim": {"claimName": "c"}}


@pytest.mark.parametrize(
    ("source", "volume"),
    [
        ({"hostPath": {"path": "/data"}}, volumes_plan.HostPath("v", "/data", "")),
        ({"hostPath": {"path": "/data", "type": "File"}}, volumes_plan.HostPath("v", "/data", "File")),
        ({"local": {"path": "/disk"}}, volumes_plan.HostPath("v", "/disk", "Directory")),
        (kept(NODE.name), volumes_plan.KeptDir("v", "pvc-1")),
    ],
)
def test_a_claim_is_the_volume_that_it_is_bound_to(source: dict[str, Any], volume: volumes_plan.Volume) -> None:
    plan = volumes_plan.plan(read(volumes=[CLAIMED]), bound(source), NODE)
    assert plan.volumes == (volume,) and plan.missing == ""


def test_a_claim_that_is_mounted_to_read_only() -> None:
    claimed = {"name": "v", "persistentVolumeClaim": {"claimName": "c", "readOnly": True}}
    plan = volumes_plan.plan(read(volumes=[claimed]), bound(kept(NODE.name)), NODE)
    assert plan.volumes == (volumes_plan.KeptDir("v", "pvc-1", True),)


@pytest.mark.parametrize(
    ("found", "missing"),
    [
        (refs(), 'persistentvolumeclaim "c" not found'),
        (bound({}, volumeName=""), "PVC is not bound: default/c"),
        (bound({}, volumeName="no"), 'failed to fetch PV no from API server: persistentvolumes "no" not found'),
        (bound({"claimRef": {"namespace": "x", "name": "c"}}), "PV pv is not bound to the claim default/c"),
    ],
)
def test_what_a_claim_waits_for(found: References, missing: str) -> None:
    assert volumes_plan.plan(read(volumes=[CLAIMED]), found, NODE).missing == missing


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ({"nfs": {"server": "s", "path": "/"}}, "persistent volumes of type nfs are not supported"),
        ({"hostPath": {"path": "/a/../b"}}, "without '..'"),
        (kept("edge-9"), "the volume is on node edge-9"),
        (kept(NODE.name, "../up"), "type csi are not supported"),
    ],
)
def test_volumes_that_a_node_can_not_have(source: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidPod, match=why):
        volumes_plan.plan(read(volumes=[CLAIMED]), bound(source), NODE)


def test_pull_secrets_of_both_types_and_broken_ones() -> None:
    found = References()

    def secret(name: str, key: str, content: bytes) -> None:
        found.apply("secrets", "default", name, {"data": {key: base64.b64encode(content).decode()}})

    auth = base64.b64encode(b"user:pass:word").decode()
    secret("new", ".dockerconfigjson", json.dumps({"auths": {"https://registry.one/v1/": {"auth": auth}}}).encode())
    secret("old", ".dockercfg", json.dumps({"registry.two": {"username": "u", "password": "p"}}).encode())
    secret("bad", ".dockerconfigjson", b"{not json")
    secret("odd", ".dockerconfigjson", json.dumps({"auths": [1]}).encode())
    pod = read(imagePullSecrets=[{"name": n} for n in ("new", "old", "bad", "odd", "none")])
    assert credentials(pod, found) == (("registry.one", "user", "pass:word"), ("registry.two", "u", "p"))


@pytest.mark.parametrize(
    ("resources", "qos"),
    [
        ({}, "BestEffort"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}, "Burstable"),
        ({"requests": {"memory": "1Gi"}}, "Burstable"),
    ],
)
def test_quality_of_service(resources: dict[str, Any], qos: str) -> None:
    assert read(containers=[{"name": "main", "image": "app:1", "resources": resources}]).qos == qos


def test_a_projected_token_is_the_pods_own_and_comes_when_it_comes() -> None:
    sources = [{"serviceAccountToken": {"path": "token"}}, {"serviceAccountToken": {"path": "v", "audience": "vault"}}]
    pod = read(volumes=[{"name": "api", "projected": {"sources": sources, "defaultMode": 0o600}}])
    found = References()

    def files() -> list[tuple[str, bytes, int]]:
        (volume,) = volumes_plan.plan(pod, found, NODE).volumes
        assert isinstance(volume, volumes_plan.FilesVolume) and volume.secret and not volume.missing
        return [(f.path, f.content, f.mode) for f in volume.files]

    assert files() == [], "it keeps no pod from running"
    for uid, expected in (("another", []), (pod.uid, [("token", b"t1", 0o600), ("v", b"t2", 0o600)])):
        tokens = [{"audience": "", "token": "t1"}, {"audience": "vault", "token": "t2"}, {"audience": 1}, None]
        given = {"metadata": {"name": pod.name, "uid": uid}, "tokens": tokens}
        found.apply("serviceaccounttokens", pod.namespace, pod.name, given)
        assert files() == expected
