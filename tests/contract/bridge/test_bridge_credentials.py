"""Tokens that are rotated under a running bridge: a pod's service account, and a kubeconfig's tokenFile."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from bus.kube.auth import users
from cloud.bridge import credentials
from tests.contract.bridge.worlds import NODE, POD, pods, until, world
from tests.contract.kube_served import certificate, served

pytestmark = pytest.mark.contract


class Door:
    """Lets in who has the newest token only; ``seen`` are all that came."""

    def __init__(self) -> None:
        self.token = "token-1"
        self.seen: set[str] = set()

    def __call__(self, headers: Mapping[str, str]) -> users.User | None:
        said = headers.get("Authorization", "")
        self.seen.add(said)
        return users.authenticated("bridge", (users.MASTERS,)) if said == f"Bearer {self.token}" else None


def in_pod(url: str, ca: Path, token: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> credentials.Credentials:
    from kubernetes.config import incluster_config

    host, port = url.removeprefix("https://").split(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(ca))
    return credentials.load(None)


def of_kubeconfig(url: str, ca: Path, token: Path, folder: Path, monkeypatch: Any) -> credentials.Credentials:
    path = folder / "kubeconfig-file"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": url, "certificate-authority": str(ca)}}],
        "users": [{"name": "u", "user": {"tokenFile": token.name}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "c",
    }
    path.write_text(yaml.safe_dump(config))
    return credentials.load(path)


@pytest.mark.parametrize("load", [in_pod, of_kubeconfig], ids=["in a pod", "tokenFile"])
async def test_a_token_that_is_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load: Any) -> None:
    door, token = Door(), tmp_path / "token"
    token.write_text("token-1\n")
    async with served(tmp_path, authenticate=door) as cluster, world(cluster, tmp_path) as w:
        who = load(cluster.url, cluster.ca, token, tmp_path, monkeypatch)
        await w.node()
        await w.pod()
        async with w.bridge(who=who) as bridge:
            assert w.agrees([NODE, POD])
            for n in (2, 3):
                token.write_text(f"token-{n}\n")
                door.token = f"token-{n}"  # the old one is over at once
                await w.node_report()
                made = await w.pod(f"p-{n}")
                status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
                await w.report("pod", {"uid": made["metadata"]["uid"], "status": status}, f"p-{n}")
                (key,) = pods(f"p-{n}")

                def running(key: Any = key) -> bool:
                    return ((w.there(key) or {}).get("status") or {}).get("phase") == "Running"

                await until(running)
            assert bridge.reports is not None and bridge.reports.stats.rejected == 0
        assert {f"Bearer token-{n}" for n in (1, 2, 3)} == door.seen


async def test_a_token_file_that_is_gone_is_said(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("t")
    ca, _ = certificate(tmp_path)
    who = of_kubeconfig("https://127.0.0.1:1", ca, token, tmp_path, None)
    assert await who.headers() == {"Authorization": "Bearer t"}
    token.unlink()
    who.forget()
    with pytest.raises(credentials.CredentialsError, match="no token.*token"):
        await who.headers()
