"""The Helm chart, the plain manifests and the command install the same; Helm itself says what it makes of the chart."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops.install import objects, render
from ops.install.values import Values
from tests.contract.clients import binaries

pytestmark = [pytest.mark.contract, pytest.mark.timeout(240)]


async def rendered(*args: str) -> tuple[int, str, str]:
    helm = await asyncio.to_thread(binaries.helm)
    process = await asyncio.create_subprocess_exec(
        str(helm), "template", "skerry", str(render.CHART), "--namespace", "edge-system", "--include-crds", *args,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


def named(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {f"{o['kind']}/{o['metadata']['name']}": o for o in found}


@pytest.mark.parametrize(("storage_class", "csr"), [("", "none"), ("fast", "request"), ("", "approve")])
async def test_the_chart_makes_what_the_command_makes(storage_class: str, csr: str) -> None:
    more = ("20Gi", storage_class, "NodePort", csr)
    values = Values("hub.example.com", "edge-system", "registry.example.com/skerry:1", *more)
    given = {"host": values.host, "image": values.image, "storage": "20Gi", "storageClass": storage_class,
             "serviceType": "NodePort", "kubeletCsr": csr}  # fmt: skip
    code, out, err = await rendered(*(a for k, v in given.items() for a in ("--set", f"{k}={v}")))
    assert code == 0, err
    wanted = named([*objects.definitions(), *objects.objects(values)])
    del wanted["Namespace/edge-system"]  # Helm's own --create-namespace
    assert named([o for o in yaml.safe_load_all(out) if o]) == wanted


async def test_a_chart_without_a_host_is_refused() -> None:
    code, _, err = await rendered()
    assert code != 0 and "host: the name under which edge nodes reach the hub" in err


async def test_helm_has_nothing_to_say_against_it(tmp_path: Path) -> None:
    helm = await asyncio.to_thread(binaries.helm)
    shutil.copytree(render.CHART, tmp_path / "skerry")
    process = await asyncio.create_subprocess_exec(
        str(helm), "lint", "--strict", str(tmp_path / "skerry"), "--set", "host=h", stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
