"""KubeEdge's resources are served as it defines them, so its manifests need no change.

What is compared with KubeEdge's own files is collected where the folder with them is (ops/golden.py says where).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from bus.kube.catalog import of_definition, shipped_definitions
from bus.kube.targets import Write
from ops import golden, kube_data
from tests.unit.kube_registry.conftest import ME, Api

SHARED = golden.shared_folder()
CRDS = sorted((SHARED / "kubeedge" / "crds").glob("*.yaml")) if SHARED else []
SAMPLES = sorted((SHARED / "kubeedge" / "samples").glob("*/*.yaml")) if SHARED else []


def test_every_kind_of_kubeedge_is_shipped() -> None:
    found = {f"{r.group}/{r.storage_version}/{r.kind}": r.namespaced for r in map(of_definition, shipped_definitions())}
    assert found == {
        "devices.kubeedge.io/v1beta1/Device": True,
        "devices.kubeedge.io/v1beta1/DeviceModel": True,
        "devices.kubeedge.io/v1beta1/DeviceStatus": True,
        "apps.kubeedge.io/v1alpha1/NodeGroup": False,
        "apps.kubeedge.io/v1alpha1/EdgeApplication": True,
        "rules.kubeedge.io/v1/Rule": True,
        "rules.kubeedge.io/v1/RuleEndpoint": True,
        "operations.kubeedge.io/v1alpha2/ImagePrePullJob": False,
        "operations.kubeedge.io/v1alpha2/NodeUpgradeJob": False,
        "operations.kubeedge.io/v1alpha2/ConfigUpdateJob": False,
        "policy.kubeedge.io/v1alpha1/ServiceAccountAccess": True,
    }


if CRDS:

    @pytest.mark.parametrize("path", CRDS, ids=lambda p: p.stem)
    def test_a_definition_is_kubeedges_own_but_for_its_prose(path: Path) -> None:
        theirs = kube_data.without_descriptions(yaml.safe_load(path.read_text()))
        ours = {d["metadata"]["name"]: d for d in shipped_definitions()}.get(theirs["metadata"]["name"])
        if theirs["spec"]["group"] == "reliablesyncs.kubeedge.io":
            assert ours is None, "its bookkeeping has no part here"
        else:
            assert ours is not None
            assert (ours["metadata"], ours["spec"]) == (theirs["metadata"], theirs["spec"])


def documents(path: Path) -> list[dict[str, Any]]:
    return [d for d in yaml.safe_load_all(path.read_text()) if d]


if SAMPLES:

    @pytest.mark.parametrize("path", SAMPLES, ids=lambda p: p.stem)
    async def test_a_sample_is_taken_as_it_is(api: Api, path: Path) -> None:
        for body in documents(path):
            (group, version), kind = body["apiVersion"].split("/"), body["kind"]
            resource = api.rules.catalog.find_kind(group, kind)
            assert resource is not None, f"{group}/{kind} is not served"
            namespace = body["metadata"].setdefault("namespace", "default") if resource.namespaced else ""
            made = await api.rules.create(group, resource.resource, namespace, body, how=Write(ME), version=version)
            assert _within(body["spec"], made["spec"]), made["spec"]


def _within(given: Any, made: Any) -> bool:
    """Everything that was given came back: nothing was pruned or changed, though defaults may have been added."""
    if isinstance(given, dict):
        return isinstance(made, dict) and all(k in made and _within(v, made[k]) for k, v in given.items())
    if isinstance(given, list):
        return isinstance(made, list) and len(made) == len(given) and all(map(_within, given, made))
    return bool(given == made)
