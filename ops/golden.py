"""Replays the recorded conversations with a real Kubernetes API server against the standalone API's rules.

    python -m ops.golden [--only TEXT] [--server URL --token TOKEN]

The recordings are in a folder ``shared`` beside the checkout (or $SKERRY_SHARED); without it there is nothing to do.
Without ``--server`` an API over memory is started here, with a token of its own, and asked over HTTP like any other.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

from bus.identity import api_keys
from bus.kube import memory, server, upkeep
from bus.kube.auth import policy, users
from bus.kube.storage import Origin
from cloud.standalone import rules, run_controllers

SUITES = (
    ("kube-golden", "cases.json", "golden.json"),
    ("kubeedge", "samples-cases.json", "samples-golden.json"),
)


def shared_folder() -> Path | None:
    """Where the recordings are, if anywhere."""
    beside = Path(__file__).resolve().parent.parent.parent / "shared"
    folder = Path(os.environ.get("SKERRY_SHARED") or beside)
    return folder if (folder / "kube-golden" / "golden.py").is_file() else None


async def check(folder: Path, url: str, token: str, only: str) -> int:
    """Runs every suite; the number of suites that don't agree."""
    failed = 0
    for where, cases, golden in SUITES:
        if not (folder / where / cases).is_file():
            continue
        args = [
            str(folder / "kube-golden" / "golden.py"),
            "check",
            str(folder / where / cases),
            str(folder / where / golden),
        ]
        args += ["--server", url, "--token", token, *(["--only", only] if only else [])]
        process = await asyncio.create_subprocess_exec(sys.executable, *args)
        failed += await process.wait() != 0
    return failed


async def run(folder: Path, only: str) -> int:
    """The same against an API that lives as long as the run."""
    token = secrets.token_hex(16)

    def authenticate(headers: Mapping[str, str]) -> users.User | None:
        given = headers.get("Authorization", "")
        admin = users.authenticated("golden", (users.MASTERS,))
        return admin if secrets.compare_digest(given.encode(), f"Bearer {token}".encode()) else None

    storage = memory.MemoryStorage()
    api = rules.make_registry(storage, issuer=rules.make_issuer(storage, api_keys.lone()))
    controllers = run_controllers.ControllerRunner(api)  # the recorded server had its controllers too
    running_controllers = asyncio.create_task(controllers.run())
    await upkeep.bootstrap(api, Origin("golden"))
    await policy.reconcile(api, Origin("golden"))
    running = await server.serve(rules.make_app(api, authenticate=authenticate), "127.0.0.1", 0)
    try:
        failed = await check(folder, f"http://127.0.0.1:{running.port}", token, only)
        if running_controllers.done():
            running_controllers.result()  # raises what ended them
        return failed
    finally:
        running_controllers.cancel()
        await asyncio.gather(running_controllers, return_exceptions=True)
        await running.stop()


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--only", default="", help="only cases with this text in their name")
    p.add_argument("--server", help="an API that runs already")
    p.add_argument("--token", default="")
    a = p.parse_args()
    folder = shared_folder()
    if folder is None:
        print("no recordings: there is no folder 'shared' beside the checkout and $SKERRY_SHARED names none")
        return 0
    if a.server:
        return min(1, asyncio.run(check(folder, a.server, a.token, a.only)))
    return min(1, asyncio.run(run(folder, a.only)))


if __name__ == "__main__":
    sys.exit(main())
