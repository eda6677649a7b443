"""An operator made with kopf: its definition, handlers, finalizer, status, and events."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.contract.kube_served import WAIT_S, Served

pytestmark = [pytest.mark.contract, pytest.mark.timeout(240)]

OPERATOR = Path(__file__).parent / "operator.py"
_SPEC = {"type": "object", "required": ["ship"], "properties": {"ship": {"type": "string", "minLength": 1}}}
_STATUS = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
DEFINITION: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "berths.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "berths", "kind": "Berth", "shortNames": ["bt"]},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "additionalPrinterColumns": [{"name": "Phase", "type": "string", "jsonPath": ".status.phase"}],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": _SPEC, "status": _STATUS}}},
            }
        ],
    },
}
HANDLED = "jsonpath={.items[?(@.message==\"Handler 'made' succeeded.\")].message}"
BERTH = {"apiVersion": "example.com/v1", "kind": "Berth", "metadata": {"name": "b"}, "spec": {"ship": "skiff"}}


async def until(api: Served, said: str, *args: str) -> None:
    """Until kubectl says exactly this."""
    last = ""
    try:
        async with asyncio.timeout(2 * WAIT_S):
            while (last := (await api.run(*args)).out.strip()) != said:
                await asyncio.sleep(0.1)
    except TimeoutError:
        pytest.fail(f"kubectl {' '.join(args)} never said {said!r}, but {last!r}")


@contextlib.asynccontextmanager
async def operator(api: Served, log: Path) -> Any:
    kopf = str(Path(sys.executable).parent / "kopf")
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            kopf, "run", "--namespace=default", "--standalone", str(OPERATOR), stdout=out, stderr=out, env=api.environment
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(WAIT_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


async def test_an_operator(cluster: Served, tmp_path: Path) -> None:
    await cluster.apply(DEFINITION)
    await cluster.ok("wait", "--for=condition=Established", "crd/berths.example.com", "--timeout=30s")
    await cluster.apply(BERTH)  # before the operator is there
    log = tmp_path / "operator.log"
    async with operator(cluster, log):
        phase = ("get", "berth", "b", "-o", "jsonpath={.status.phase}")
        ship = ("get", "cm", "b", "-o", "jsonpath={.data.ship}")
        await until(cluster, "Moored", *phase)
        await until(cluster, "skiff", *ship)
        found = json.loads(await cluster.ok("get", "berth", "b", "-o", "json"))
        assert found["metadata"]["finalizers"] == ["berths.example.com/kopf"] and found["metadata"]["generation"] == 1
        assert (await cluster.ok("get", "cm", "b", "-o", "jsonpath={.metadata.ownerReferences[0].kind}")) == "Berth"
        await cluster.ok("patch", "berth", "b", "--type=merge", "-p", '{"spec":{"ship":"brig"}}')
        await until(cluster, "Moved", *phase)
        await until(cluster, "brig", *ship)
        assert "Moved" in await cluster.ok("get", "bt")
        await until(cluster, "Handler 'made' succeeded.", "get", "events", "-o", HANDLED)
        ran = await cluster.run("patch", "berth", "b", "--type=merge", "-p", '{"spec":{"ship":""}}')
        assert ran.code == 1 and "should be at least 1 chars long" in ran.err
        await cluster.ok("delete", "berth", "b", "--timeout=60s")
        await until(cluster, "configmap/b-left", "get", "cm", "-o", "name")  # and the owned one went with its owner
        assert "Traceback" not in log.read_text(), log.read_text()
