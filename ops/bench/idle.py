"""`python -m ops.bench.idle [--minutes 5] [--beat S]`: what a joined node that has nothing to do costs its link.

Counted by a relay between leaf and hub: bytes of TLS, and the pieces they came in.  On an idle link a piece is a TCP segment
and is acknowledged by another, so what goes over the wire is at most ``tls + pieces * 2 * HEADERS``.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

from ops.lab import setting
from ops.lab.show import Show, StepFailed
from ops.lab.world import World, node_ready

ROOT = Path(__file__).resolve().parents[2] / ".skerry" / "bench-idle"
NODE = "edge-1"
HEADERS = 52  # IPv4 and TCP with timestamps
SETTLE_S = 40.0  # the first report, the looks of the nudger
DAY_S = 86_400


def measure(w: World, show: Show, minutes: float, beat: float | None, after: str) -> dict[str, Any]:
    wire = setting.wire(w)
    setting.join(w, NODE, through=wire)
    w.start(NODE, "edge", "run", "--data", str(w.node_dir(NODE)), *(["--beat", str(beat)] if beat else []))
    with show.step("the node is Ready, and settles") as line:
        w.until("Ready", lambda: node_ready(w.get("node", NODE)) == "True", seconds=60, line=line)
        if after == "device":
            device = {"apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device",
                      "metadata": {"name": "d", "namespace": "default"}, "spec": {"nodeName": NODE}}  # fmt: skip
            w.kubectl("apply", "-f", "-", stdin=json.dumps(device))
        time.sleep(SETTLE_S)
    with show.step(f"{minutes:g} minutes of rest"):
        began, bytes_, chunks = time.monotonic(), wire.count(), wire.chunks()
        time.sleep(minutes * 60)
        seconds = time.monotonic() - began
        tls = [b - a for a, b in zip(bytes_, wire.count(), strict=True)]
        pieces = [b - a for a, b in zip(chunks, wire.chunks(), strict=True)]
    if node_ready(w.get("node", NODE)) != "True":
        raise StepFailed("the node did not stay Ready")
    day = DAY_S / seconds
    return {
        "bench": "idle", "beat_s": beat, "with": after, "seconds": round(seconds, 1),
        "tls_bytes": {"up": tls[0], "down": tls[1]}, "pieces": {"up": pieces[0], "down": pieces[1]},
        "tls_bytes_a_day": round(sum(tls) * day),
        "wire_bytes_a_day_at_most": round((sum(tls) + sum(pieces) * 2 * HEADERS) * day),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m ops.bench.idle", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--beat", type=float, help="default: the node's own")
    parser.add_argument("--with", dest="after", choices=("nothing", "device"), default="nothing")
    options = parser.parse_args()
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # a warning for each TLS connection that nats-py ends
    show, world = Show(), World(ROOT)
    setting.down(world)
    try:
        with show.step("hub and cloud"):
            setting.hub(world)
            setting.cloud(world)
        row = measure(world, show, options.minutes, options.beat, options.after)
    except StepFailed as e:
        show.say(f"FAILED: {e}; logs: {world.processes.logs}")
        return 1
    finally:
        setting.down(world)
    print(json.dumps(row))
    return 0


if __name__ == "__main__":
    sys.exit(main())
