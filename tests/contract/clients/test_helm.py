"""Helm itself, and a manifest as large as charts make them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract.kube_served import Ran, Served

pytestmark = [pytest.mark.contract, pytest.mark.timeout(240)]

OBJECTS = 100

CHART = """\
apiVersion: v2
name: shop
version: 0.1.0
"""
TEMPLATE = """\
{{- range $i := until (int .Values.count) }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ $.Release.Name }}-{{ $i }}
data: {greeting: {{ $.Values.greeting | quote }}}
{{- end }}
---
apiVersion: v1
kind: Service
metadata: {name: {{ .Release.Name }}}
spec: {selector: {app: {{ .Release.Name }}}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: {{ .Release.Name }}}
spec:
  replicas: {{ .Values.replicas }}
  selector: {matchLabels: {app: {{ .Release.Name }}}}
  template:
    metadata: {labels: {app: {{ .Release.Name }}}}
    spec: {containers: [{name: main, image: "busybox:{{ .Values.tag }}"}]}
"""


async def helm(api: Served, program: Path, *args: str) -> str:
    process = await api.start(*args, program=str(program))
    out, err = await process.communicate()
    ran = Ran(process.returncode or 0, out.decode(), err.decode())
    assert ran.code == 0, f"helm {' '.join(args)}: {ran.out}{ran.err}"
    return ran.out


async def test_install_upgrade_rollback_uninstall(cluster: Served, programs: dict[str, Path], tmp_path: Path) -> None:
    chart = tmp_path / "shop"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text(CHART)
    (chart / "values.yaml").write_text("{count: 3, greeting: hello, replicas: 2, tag: '1'}\n")
    (chart / "templates" / "all.yaml").write_text(TEMPLATE)
    program, wait = programs["helm"], ("--wait", "--timeout", "60s")
    await helm(cluster, program, "install", "r", str(chart), *wait)
    assert await cluster.ok("get", "cm", "r-2", "-o", "jsonpath={.data.greeting}") == "hello"
    await helm(cluster, program, "upgrade", "r", str(chart), "--set", "greeting=ahoy,count=2,tag=2", *wait)
    assert await cluster.ok("get", "cm", "r-1", "-o", "jsonpath={.data.greeting}") == "ahoy"
    assert (await cluster.run("get", "cm", "r-2")).code == 1
    image = "jsonpath={.spec.template.spec.containers[*].image}"
    assert await cluster.ok("get", "deploy", "r", "-o", image) == "busybox:2"
    await helm(cluster, program, "rollback", "r", "1", *wait)
    assert await cluster.ok("get", "cm", "r-2", "-o", "jsonpath={.data.greeting}") == "hello"
    listed = json.loads(await helm(cluster, program, "list", "-o", "json"))
    assert [(r["name"], r["status"], r["revision"]) for r in listed] == [("r", "deployed", "3")]
    assert "STATUS: deployed" in await helm(cluster, program, "status", "r")
    await helm(cluster, program, "uninstall", "r", *wait)
    assert await cluster.ok("get", "deploy,svc,cm", "-o", "name") == ""


async def test_a_hundred_objects_in_one_manifest(cluster: Served) -> None:
    objects: list[dict[str, Any]] = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "many"}}]
    for i in range(OBJECTS - 1):
        kind, body = (("ConfigMap", {"data": {"i": str(i)}}), ("Secret", {"data": {"i": "c2hpcA=="}}))[i % 2]
        meta = {"name": f"o{i}", "namespace": "many", "labels": {"set": "x"}}
        objects.append({"apiVersion": "v1", "kind": kind, "metadata": meta, **body})
    text = yaml.safe_dump_all(objects)
    for said in ("created", "unchanged"):
        assert (await cluster.ok("apply", "-f", "-", stdin=text)).count(said) == OBJECTS
    assert (await cluster.ok("apply", "--server-side", "-f", "-", stdin=text)).count("serverside-applied") == OBJECTS
    kept = yaml.safe_dump_all(objects[:60])
    kinds = ("--prune-allowlist=core/v1/ConfigMap", "--prune-allowlist=core/v1/Secret")
    pruned = await cluster.ok("apply", "-f", "-", "--prune", "-l", "set=x", "-n", "many", *kinds, stdin=kept)
    assert pruned.count("pruned") == OBJECTS - 60
    inside = yaml.safe_dump_all(objects[1:60])  # the namespace would take them with it
    assert (await cluster.ok("delete", "-f", "-", "--timeout=60s", stdin=inside)).count("deleted") == 59
