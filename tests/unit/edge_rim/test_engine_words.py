"""Between our words and the engine's: labels, configurations, times, the sandbox image; what a machine says of itself."""

from __future__ import annotations

import io
import json
import struct
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge import node_status
from edge.containers import images, labels, pause, translate
from edge.containers.runtime import find_host
from edge.core import container_config, pod_parse, volumes_plan
from edge.core.container_config import Identity
from edge.core.references import References
from edge.core.settings import NodeFacts, PodSettings

NODE = NodeFacts("edge-1", "10.0.0.7", 4000, 1 << 30)
ID = Identity("u1", "default", "p", "main", 2, "hash", "s1", 10_000, 30, "cause", "trace")


@given(
    st.builds(
        Identity,
        pod_uid=st.text(min_size=1, max_size=9),
        namespace=st.text(max_size=9),
        pod=st.text(max_size=9),
        container=st.text(max_size=9),
        attempt=st.integers(0, 1 << 40),
        spec_hash=st.text(max_size=9),
        sandbox=st.text(max_size=9),
        backoff_ms=st.integers(-1, 1 << 40),
        grace_s=st.integers(0, 1 << 40),
        cause=st.text(max_size=9),
        trace=st.text(max_size=9),
    )
)
def test_labels_are_read_as_they_were_written(identity: Identity) -> None:
    assert labels.read(labels.write(identity, "n", "h")) == identity


def test_other_peoples_labels() -> None:
    assert labels.read({}) is None and labels.read({labels.POD_UID: "u"}) is None
    odd = labels.read({labels.POD_UID: "u", labels.CONTAINER: "c", labels.ATTEMPT: "many", labels.BACKOFF_MS: ""})
    assert odd is not None and (odd.attempt, odd.backoff_ms) == (0, -1)


def test_names_are_what_an_engine_allows_and_unique() -> None:
    long = replace(ID, pod="p" * 253, container="c" * 63)
    names = {
        labels.name(i) for i in (ID, long, replace(ID, attempt=3), replace(ID, container=""), replace(ID, pod_uid="u2"))
    }
    assert len(names) == 5 and all(len(n) < 250 and n.replace("_", "").replace("-", "").isalnum() for n in names)


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("2026-11-23T00:00:00Z", 1_795_392_000_000_000),
        ("2026-11-23T00:00:00.123456789Z", 1_795_392_000_123_456),
        ("2026-11-23T01:00:00.5+01:00", 1_795_392_000_500_000),
        ("2026-11-22T22:30:00-01:30", 1_795_392_000_000_000),
        ("0001-01-01T00:00:00Z", 0),
        ("soon", 0),
        (None, 0),
    ],
)
def test_engine_times(text: Any, us: int) -> None:
    assert translate.micros(text) == us


def configured(container: dict[str, Any], **spec: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """(sandbox, container) in the engine's words."""
    meta = {"name": "p", "namespace": "default", "uid": "u1"}
    pod = pod_parse.parse(
        {"metadata": meta, "spec": {"containers": [{"name": "main", "image": "app:1", **container}], **spec}}
    )
    plan = volumes_plan.plan(pod, References(), NODE)
    settings = PodSettings(cluster_dns=("10.96.0.10",))
    label_map = labels.write(ID, "edge-1", "hub")
    box = container_config.sandbox_config(pod, replace(ID, container=""), plan, settings)
    one = container_config.container_config(pod.containers[0], pod, ID, plan, References(), NODE, "172.17.0.2", settings)
    return translate.sandbox(box, "pause", label_map), translate.container(one, label_map, lambda m: f"/disk/{m.source}")


def test_a_container_in_the_engines_words() -> None:
    _, body = configured(
        {
            "command": ["run", "$(X)"],
            "args": ["--x"],
            "env": [{"name": "X", "value": "1"}],
            "resources": {"limits": {"cpu": "250m", "memory": "64Mi"}, "requests": {"cpu": "100m"}},
            "securityContext": {
                "privileged": True,
                "runAsUser": 7,
                "runAsGroup": 8,
                "capabilities": {"add": ["CAP_NET_ADMIN"], "drop": ["ALL"]},
                "allowPrivilegeEscalation": False,
            },
            "volumeMounts": [
                {"name": "disk", "mountPath": "/d", "readOnly": True, "mountPropagation": "HostToContainer"},
                {"name": "mem", "mountPath": "/m"},
            ],
            "workingDir": "/w",
            "tty": True,
        },
        volumes=[{"name": "disk", "emptyDir": {}}, {"name": "mem", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}],
        securityContext={"fsGroup": 9, "supplementalGroups": [10]},
        shareProcessNamespace=True,
    )
    host = body["HostConfig"]
    assert (body["Entrypoint"], body["Cmd"], body["Env"]) == (["run", "1"], ["--x"], ["X=1"])
    assert (body["User"], body["WorkingDir"], body["Tty"]) == ("7:8", "/w", True)
    assert (host["NanoCpus"], host["CpuShares"], host["Memory"], host["MemorySwap"]) == (
        250_000_000,
        102,
        64 << 20,
        64 << 20,
    )
    assert (host["Privileged"], host["CapAdd"], host["CapDrop"]) == (True, ["NET_ADMIN"], ["ALL"])
    assert host["GroupAdd"] == ["10", "9"] and host["SecurityOpt"] == ["no-new-privileges"]
    assert {host["NetworkMode"], host["IpcMode"], host["PidMode"]} == {"container:s1"}
    assert host["RestartPolicy"] == {"Name": "no"}
    disk, memory = host["Mounts"]
    assert (disk["Type"], disk["Source"], disk["ReadOnly"]) == ("bind", "/disk/disk", True)
    assert disk["BindOptions"] == {"Propagation": "rslave"}
    assert memory["Source"] == "skerry_u1_mem" and "size=1048576" in memory["VolumeOptions"]["DriverConfig"]["Options"]["o"]


def test_a_command_drops_the_images_arguments_and_arguments_alone_keep_its_command() -> None:
    _, command = configured({"command": ["run"]})
    _, args = configured({"args": ["--x"]})
    _, neither = configured({})
    assert command["Entrypoint"] == ["run"] and command["Cmd"] == []
    assert "Entrypoint" not in args and args["Cmd"] == ["--x"]
    assert "Entrypoint" not in neither and "Cmd" not in neither


def test_a_sandbox_in_the_engines_words() -> None:
    box, _ = configured(
        {"ports": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 53, "hostPort": 53, "protocol": "UDP"}]},
        hostAliases=[{"ip": "10.1.1.1", "hostnames": ["a", "b"]}],
        dnsConfig={"nameservers": ["1.1.1.1"], "searches": ["corp"], "options": [{"name": "ndots", "value": "2"}]},
        securityContext={"sysctls": [{"name": "net.ipv4.ip_forward", "value": "1"}]},
        subdomain="web",
    )
    host = box["HostConfig"]
    assert host["PortBindings"]["80/tcp"] == [{"HostIp": "", "HostPort": "8080"}] and "53/udp" in host["PortBindings"]
    assert host["ExtraHosts"] == ["a:10.1.1.1", "b:10.1.1.1"]
    assert host["Dns"] == ["10.96.0.10", "1.1.1.1"] and host["DnsOptions"] == ["ndots:5", "ndots:2"]
    assert host["DnsSearch"][0] == "default.svc.cluster.local" and host["DnsSearch"][-1] == "corp"
    assert host["Sysctls"] == {"net.ipv4.ip_forward": "1"}
    assert box["Hostname"] == "p" and box["Domainname"] == "web.default.svc.cluster.local"
    alone, _ = configured({"ports": [{"containerPort": 80, "hostPort": 8080}]}, hostNetwork=True)
    assert alone["HostConfig"]["NetworkMode"] == "host" and "Hostname" not in alone
    assert "PortBindings" not in alone["HostConfig"] and "Dns" not in alone["HostConfig"]


# --- the sandbox image ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("architecture", "machine", "go"), [("x86_64", 62, "amd64"), ("arm64", 183, "arm64")])
def test_the_sandbox_image(architecture: str, machine: int, go: str) -> None:
    archive = pause.image_archive(architecture)
    assert archive == pause.image_archive(architecture)  # the same image id on every node
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        [manifest] = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
        config = json.load(tar.extractfile(manifest["Config"]))  # type: ignore[arg-type]
        layer = tar.extractfile(manifest["Layers"][0])
        assert layer is not None
        with tarfile.open(fileobj=io.BytesIO(layer.read())) as root:
            member = root.getmember(pause.PATH)
            content = root.extractfile(member)
            assert content is not None
            elf = content.read()
    assert manifest["RepoTags"] == [pause.IMAGE] and config["architecture"] == go
    assert config["config"]["Entrypoint"] == ["/pause"] and member.mode & 0o111
    assert elf[:4] == b"\x7fELF" and struct.unpack_from("<H", elf, 18)[0] == machine and len(elf) < 400
    entry, load = struct.unpack_from("<Q", elf, 24)[0], struct.unpack_from("<Q", elf, 64 + 16)[0]
    assert load < entry < load + len(elf)


def test_an_architecture_without_a_sandbox_says_what_to_do() -> None:
    with pytest.raises(pause.UnknownArchitecture, match="set a sandbox image"):
        pause.elf("riscv64")


@pytest.mark.parametrize(
    ("image", "registry"),
    [
        ("busybox", "docker.io"),
        ("team/app:1", "docker.io"),
        ("quay.io/team/app", "quay.io"),
        ("localhost/app", "localhost"),
        ("host:5000/app", "host:5000"),
    ],
)
def test_registries(image: str, registry: str) -> None:
    assert images.registry_of(image) == registry


def test_the_engine_is_found_by_setting_then_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///from/environment")
    assert find_host("tcp://configured:1") == "tcp://configured:1"
    assert find_host() == "unix:///from/environment"


# --- the machine ----------------------------------------------------------------------------------------------------


def test_a_node_says_what_it_is_and_says_it_again_the_same(tmp_path: Path) -> None:
    node = node_status.NodeStatus("edge-1", tmp_path / "not" / "there" / "yet", {"site": "harbour"})
    report = node.report(True, "", {"ServerVersion": "20.10.24"})
    assert report == node.report(True, "", {"ServerVersion": "20.10.24"})
    status = report.status
    assert int(status["capacity"]["cpu"]) >= 1 and int(status["capacity"]["memory"].removesuffix("Ki")) > 10_000
    assert {c["type"] for c in status["conditions"]} == {"MemoryPressure", "DiskPressure", "PIDPressure"}
    assert status["nodeInfo"]["containerRuntimeVersion"] == "docker://20.10.24"
    assert {"type": "Hostname", "address": "edge-1"} in status["addresses"]
    assert report.labels["site"] == "harbour" and report.labels["kubernetes.io/arch"] == node_status.architecture()
    assert node.facts().memory_bytes > 10 << 20


def test_a_node_without_an_engine_and_short_of_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = node_status.NodeStatus("edge-1", tmp_path)
    monkeypatch.setattr(node_status, "_disk", lambda path: (1000, 50, 0.5))
    report = node.report(False, "no socket", {})
    assert (report.ready, report.reason, report.message) == (False, "ContainerRuntimeDown", "no socket")
    [disk] = [c for c in report.status["conditions"] if c["type"] == "DiskPressure"]
    assert (disk["status"], disk["reason"]) == ("True", "NodeHasDiskPressure")
    assert report.status["nodeInfo"]["containerRuntimeVersion"] == "docker://unknown"
