"""`./just demo [--keep]` and `./just down`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from pathlib import Path

from ops.demo.steps import Demo
from ops.lab import setting
from ops.lab.show import Show, StepFailed
from ops.lab.world import World

ROOT = Path(os.environ.get("SKERRY_DEMO_DIR") or Path(__file__).resolve().parents[2] / ".skerry" / "demo")


def main() -> int:
    parser = argparse.ArgumentParser(prog="just demo", description="The main job of Skerry, live, every step checked.")
    parser.add_argument("what", nargs="?", choices=["run", "down"], default="run")
    parser.add_argument("--keep", action="store_true", help="leave everything running and say how to reach it")
    args = parser.parse_args()
    # asyncio warns at each TLS connection that nats-py ends; processes of the lab log into their own files.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    show = Show()
    world = World(ROOT)
    if args.what == "down":
        down(world, show)
        return 0
    if world.processes.alive():
        show.say("a demo is still running: ending it first")
    down(world, show, quiet=True)
    began = time.monotonic()
    try:
        Demo(world, show).run()
    except StepFailed as e:
        show.say(f"FAILED: {e}")
        show.say(f"logs: {world.processes.logs} (everything is still there; ./just down ends it)")
        return 1
    except KeyboardInterrupt:
        down(world, show)
        return 130
    show.chapter(f"{show.steps} steps, every one checked, in {time.monotonic() - began:.0f} s")
    if args.keep:
        reach(world, show)
    else:
        down(world, show)
    return 0


def down(world: World, show: Show, *, quiet: bool = False) -> None:
    """End everything of the demo, and remove its folder."""
    ended = setting.down(world)
    if not quiet:
        show.say(f"ended: {', '.join(ended) or 'nothing was running'}")


def reach(world: World, show: Show) -> None:
    show.say("left running; `./just down` ends it.  In this folder:")
    show.block(
        f"export KUBECONFIG={world.kubeconfig}\n"
        f"export DOCKER_HOST={os.environ.get('DOCKER_HOST', '')}\n"
        ".venv/bin/kubectl get nodes,pods,devices -o wide\n"
        f".venv/bin/skerry hub status --data {world.hub}          # NATS URLs, streams\n"
        f".venv/bin/skerry edge status --data {world.node_dir('edge-1')}\n"
        f".venv/bin/skerry replay log --hub {world.hub} --limit 20"
    )


if __name__ == "__main__":
    sys.exit(main())
