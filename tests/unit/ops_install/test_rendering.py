"""What is written beside the source is what the source says, and the image is made of what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from bus.kube import quantity
from ops.install import objects, render, values
from ops.install.values import BadValue, Values

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(("folder", "files"), [(render.MANIFESTS, render.manifests()), (render.CHART, render.chart())])
def test_written_files_are_up_to_date(folder: Path, files: dict[str, str]) -> None:
    there = {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}
    assert there == files, "run `python -m ops.install`"


def test_plain_manifests_are_the_objects() -> None:
    made = render.manifests()
    assert list(yaml.safe_load_all(made["definitions.yaml"])) == objects.definitions()
    assert list(yaml.safe_load_all(made["skerry.yaml"])) == objects.objects(Values(host=values.HOST_EXAMPLE))


def test_default_values_of_the_chart_are_ours() -> None:
    chart = yaml.safe_load(render.chart()["values.yaml"])
    ours = Values(host="")
    assert chart == {
        "host": "",
        "image": ours.image,
        "storage": ours.storage,
        "storageClass": "",
        "serviceType": ours.service_type,
        "kubeletCsr": "none",
    }


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"host": ""}, "host"),
        ({"host": "a b"}, "host 'a b'"),
        ({"namespace": "Upper"}, "namespace"),
        ({"image": " x"}, "image"),
        ({"storage": "10"}, "storage"),
        ({"storage_class": "A!"}, "storage class"),
        ({"service_type": "ExternalName"}, "service type"),
        ({"kubelet_csr": "yes"}, "kubelet certificate"),
    ],
)
def test_values_that_no_cluster_takes_are_refused(change: dict[str, str], says: str) -> None:
    with pytest.raises(BadValue, match=says):
        values.checked(Values(**{"host": "hub.example.com", **change}))


def test_good_values_are_taken() -> None:
    assert values.checked(Values(host="10.0.0.1", storage_class="fast.ssd")).host == "10.0.0.1"
    assert quantity.parse(Values(host="h").storage) > 0


def test_pods_meet_the_restricted_standard() -> None:
    pod = objects.objects(Values(host="h"))[-1]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    for c in (*pod["initContainers"], *pod["containers"]):
        assert c["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert c["securityContext"]["allowPrivilegeEscalation"] is False


def test_the_image_is_made_of_what_is_there() -> None:
    text = (ROOT / "Containerfile").read_text()
    copied = [w for line in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE) for w in line.split()[:-1]]
    assert all((ROOT / c).exists() for c in copied)
    packages = {p.name for p in ROOT.iterdir() if (p / "__init__.py").exists()} - {"tests"}
    assert packages <= set(copied)
    assert f"USER {objects.USER}:{objects.USER}" in text and 'ENTRYPOINT ["skerry"]' in text
