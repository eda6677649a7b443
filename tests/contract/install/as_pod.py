"""What a Deployment's pod template says, run as its pod would run it.

Its commands and environment, its volume and its account's files in their places, in a mount namespace of their own.  It is
not a container, since CI has no registry with a base image in it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ops.install import objects
from ops.lab.processes import Processes
from tests.contract.kube_served import WAIT_S, Ran

ACCOUNT = "/run/secrets/kubernetes.io/serviceaccount"  # /var/run is a link to /run
# What a container engine and a kubelet do before the command is run.
ROOT = """\
set -e
mount -t tmpfs none /run
mkdir -p "$ACCOUNT" && cp "$FILES"/* "$ACCOUNT"
mount -t tmpfs none /var/lib
mkdir -p "$DATA" && mount --bind "$VOLUME" "$DATA"
exec "$@"
"""


class AsPod:
    """One pod of the template, in the cluster at ``url`` with the CA in ``ca``, as the account that ``token`` is of.

    ``kubelet_port``: where it listens for kubelets (0: any), ``address``: by which Node objects name them.  ``volume``: a
    folder that another has as well; None is one of its own.  ``env`` goes before what the template says."""

    def __init__(
        self,
        template: dict[str, Any],
        url: str,
        ca: Path,
        token: str,
        namespace: str,
        folder: Path,
        *,
        kubelet_port: int = 0,
        volume: Path | None = None,
        address: str = "127.0.0.1",
        env: dict[str, str] | None = None,
        processes: Processes | None = None,
    ) -> None:
        self._spec, self._changed = template["spec"], env or {}
        self.address, self.kubelet_port = address, kubelet_port
        account, self.volume = folder / "account", volume or folder / "volume"
        for made in (account, self.volume):
            made.mkdir(parents=True, exist_ok=True)
        (account / "token").write_text(token)
        (account / "namespace").write_text(namespace)
        shutil.copy(ca, account / "ca.crt")
        at = urlsplit(url)
        self._env = {
            "KUBERNETES_SERVICE_HOST": str(at.hostname),
            "KUBERNETES_SERVICE_PORT": str(at.port),
            "ACCOUNT": ACCOUNT,
            "FILES": str(account),
            "DATA": objects.DATA,
            "VOLUME": str(self.volume),
            # The machine's own ports may be taken.
            **{f"SKERRY_HUB_INIT_{name}": "0" for name in ("PORT", "LEAF_PORT", "WEBSOCKET_PORT")},
        }
        self.processes = processes or Processes(folder)

    def command(self, name: str, *more: str) -> tuple[list[str], dict[str, str]]:
        """``more`` are arguments that an administrator would add."""
        container = next(c for c in (*self._spec["initContainers"], *self._spec["containers"]) if c["name"] == name)
        told = {e["name"]: e.get("value", self.address) for e in container.get("env", [])}  # the other is the pod's address
        if "SKERRY_CLOUD_RUN_KUBELET" in told:
            told["SKERRY_CLOUD_RUN_KUBELET"] = f"0.0.0.0:{self.kubelet_port}"
        return self._within([sys.executable, "-m", "ops.cli", *container["args"], *more]), self._env | told | self._changed

    def _within(self, argv: list[str]) -> list[str]:
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", ROOT, "pod", *argv]

    def exec(self, *args: str) -> Ran:
        """``kubectl exec deploy/skerry -- skerry ARGS``."""
        return _run(self._within([sys.executable, "-m", "ops.cli", *args]), self._env)

    def init(self) -> Ran:
        return _run(*self.command("init"))

    def start(self, name: str, *more: str, called: str = "") -> None:
        argv, env = self.command(name, *more)
        self.processes.start(called or name, argv, env=env)


def _run(argv: list[str], env: dict[str, str]) -> Ran:
    done = subprocess.run(
        argv, env={**os.environ, **env}, capture_output=True, text=True, timeout=2 * WAIT_S, check=False
    )  # fmt: skip
    return Ran(done.returncode, done.stdout, done.stderr)
