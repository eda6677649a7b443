"""The field on which faults happen: a hub, a cloud, two nodes with pods that must stay, users who go on changing things, and
a device that goes on measuring.  And what is looked at afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bus import log
from ops.chaos import disk
from ops.cli import common
from ops.demo import telemetry
from ops.lab import setting
from ops.lab.links import Links
from ops.lab.nodes import Containers, Lab
from ops.lab.show import StepFailed
from ops.lab.world import pod_ready
from schemas import codec, subjects
from schemas.telemetry import Sample

STEADY = ("steady-a", "steady-b")  # nobody changes these: whatever happens, their containers stay the same ones
PROBE = "n"
NODE_DISK, HUB_DISK = "96m", "192m"
KUBECTL = "--request-timeout=4s"  # a user gives up and tries again
TELEMETRY_S_MAX = 90.0  # the hub's source may wait 40 s before it comes back to a leaf (NATS-FACTS.md)


@dataclass(slots=True)
class _Node:
    writer: subprocess.Popen[bytes]
    disk: disk.Disk
    generation: int = 0  # how often the toggle pod was replaced
    samples: tuple[int, int] = (0, 0)  # lost and doubled so far
    setting: int = 0  # what the config map says, as far as the API accepted it


class Field:
    """``wild`` is the node that most faults happen to, ``calm`` the one that must not notice them."""

    def __init__(self, lab: Lab, hub_disk: disk.Disk) -> None:
        self.lab, self.hub_disk = lab, hub_disk
        self.wild, self.calm = f"wild-{lab.tail}", f"calm-{lab.tail}"
        self.nodes = [self.wild, self.calm]
        self._nodes: dict[str, _Node] = {}
        self._reports_seen: dict[str, int] = {}
        self._report_ids: Counter[str] = Counter()

    @property
    def links(self) -> Links:
        return self.lab.links

    # --- making it

    def settle(self) -> None:
        for node in self.nodes:
            small = disk.small(self.lab.node_dir(node), NODE_DISK)
            self.lab.join(node.partition("-")[0])
            self.lab.start_daemon(node)
            self._nodes[node] = _Node(self._device(node), small)
        for node in self.nodes:
            self.lab.ready(node)
            self._config(node)
            for name in STEADY:
                self.lab.pod(node, f"{name}-{node}", config_map=f"settings-{node}")
            self.lab.pod(node, self.toggle(node))
        for node in self.nodes:
            self.converged(node)

    def _device(self, node: str) -> subprocess.Popen[bytes]:
        """Its samples are ours to make (writer.py); the API must know it, or the hub would not fetch them."""
        model = {
            "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "DeviceModel", "metadata": {"name": "probe"},
            "spec": {"protocol": "virtual", "properties": [{"name": PROBE, "type": "INT", "accessMode": "ReadOnly"}]},
        }  # fmt: skip
        device = {
            "apiVersion": "devices.kubeedge.io/v1beta1", "kind": "Device", "metadata": {"name": f"probe-{node}"},
            "spec": {"nodeName": node, "deviceModelRef": {"name": "probe"}, "protocol": {"protocolName": "virtual"},
                     "properties": [{"name": PROBE, "visitors": {"protocolName": "virtual", "configData": {}}}]},
        }  # fmt: skip
        for body in (model, device):
            self.lab.kubectl("apply", "-f", "-", stdin=json.dumps(body))
        self.lab.answers(node)
        argv = [sys.executable, "-m", "ops.chaos.writer", str(self.lab.node_dir(node)), self._subject(node)]
        return self.lab.processes.start(f"writer-{node}", [*self.links.inside(node), *argv], pipes=True)

    def _subject(self, node: str) -> str:
        return subjects.telemetry(node, "default", f"probe-{node}", PROBE)

    def close(self) -> None:
        for n in self._nodes.values():
            n.disk.close()

    # --- users

    def toggle(self, node: str) -> str:
        return f"toggle-{self._nodes[node].generation}-{node}"

    def _config(self, node: str) -> None:
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"settings-{node}"},
                "data": {"n": str(self._nodes[node].setting)}}  # fmt: skip
        self.lab.kubectl(KUBECTL, "apply", "-f", "-", stdin=json.dumps(body))

    def change(self, node: str) -> int:
        """What users do meanwhile: a setting changes, a pod is deleted, another is made.  How many of the three the API
        accepted; what it did not is done by ``make_up``."""
        accepted = 0
        n = self._nodes[node]
        with contextlib.suppress(StepFailed):
            self.lab.kubectl(KUBECTL, "patch", "configmap", f"settings-{node}", "--type=merge", "-p",
                             json.dumps({"data": {"n": str(n.setting + 1)}}))  # fmt: skip
            n.setting += 1
            accepted += 1
        with contextlib.suppress(StepFailed):
            self.lab.kubectl(KUBECTL, "delete", "pod", self.toggle(node), "--wait=false", "--ignore-not-found")
            accepted += 1
            n.generation += 1
            self.lab.pod(node, self.toggle(node))
            accepted += 1
        return accepted

    def make_up(self, node: str) -> None:
        """The users try again until the API has taken all of it."""

        def once() -> bool:
            with contextlib.suppress(StepFailed):
                self._config(node)
                for pod in self.lab.pods(node):
                    name = pod["metadata"]["name"]
                    if (
                        name.startswith("toggle-")
                        and name != self.toggle(node)
                        and "deletionTimestamp" not in pod["metadata"]
                    ):
                        self.lab.kubectl(KUBECTL, "delete", "pod", name, "--wait=false")
                if not self.lab.get("pod", self.toggle(node)):
                    self.lab.pod(node, self.toggle(node))
                return True
            return False

        self.lab.until("the API takes what users want", once, seconds=90)

    # --- looking

    def steady(self, node: str) -> Containers:
        return {k: v for k, v in self.lab.containers(node).items() if k.startswith(STEADY)}

    def accepted(self, node: str) -> int:
        """Samples that the node's bus has taken so far."""
        writer = self._nodes[node].writer
        assert writer.stdin is not None and writer.stdout is not None
        writer.stdin.write(b"\n")
        writer.stdin.flush()
        while True:
            words = writer.stdout.readline().split()
            if len(words) == 2:
                return int(words[1])

    def apart(self, node: str) -> str:
        """Why a node is not what the API says, "" when it is."""
        status = self.lab.node_status(node)
        if status.get("link") != "up":
            return f"the link is {status.get('link') or 'not told'}"
        replica = status["replica"]
        if not replica["synced"] or replica["scopes"][node]["cursor"] < self.lab.last_of_scope(node):
            return "the replica is behind"
        if status["outbox_pending"]:
            return f"{status['outbox_pending']} reports wait"
        pods = {p["metadata"]["name"]: p for p in self.lab.pods(node)}
        wanted = {f"{name}-{node}" for name in STEADY} | {self.toggle(node)}
        running = {c.partition("/")[0] for c in self.lab.containers(node)}
        if pods.keys() != wanted:
            return f"the API has {sorted(pods.keys() ^ wanted)} too many or too few"
        if not all(pod_ready(p) for p in pods.values()):
            return "not every pod is Ready in the API"
        if running != wanted:
            return f"the engine runs {sorted(running ^ wanted)} too many or too few"
        return self._stale_setting(node)

    def _stale_setting(self, node: str) -> str:
        want = str(self._nodes[node].setting)
        for name, (container, _) in self.steady(node).items():
            if name.endswith("/sleep"):
                found = self.lab.docker("exec", container, "cat", "/v/n", check=False).strip()
                if found != want:
                    return f"{name} sees setting {found}, the API says {want}"
        return ""

    def converged(self, node: str, seconds: float = 120) -> None:
        why = "not looked at"

        def look() -> bool:
            nonlocal why
            try:
                why = self.apart(node)
            except StepFailed as e:  # the API or the hub is not back yet
                why = str(e)[:200]
            return not why

        try:
            self.lab.until(f"{node} is what the API says", look, seconds=seconds)
        except StepFailed as e:
            raise StepFailed(f"{node} after {seconds:.0f} s: {why}\n{e}") from e

    def divergence(self, node: str) -> int:
        """Objects in which the replica differs from the fold of the log, byte for byte."""
        out = self.lab.skerry("replay", "verify", node, "--hub", str(self.lab.hub), "--data", str(self.lab.node_dir(node)),
                              "--json", "--all", check=False)  # fmt: skip
        return sum(len(s["differences"]) + (not s["equal"]) for s in json.loads(out)["scopes"])

    def samples(self, node: str) -> tuple[int, int]:
        """(lost, doubled) since the last look, of the samples that the node's bus accepted."""
        accepted = self.accepted(node)

        def missing() -> tuple[int, int]:
            found = Counter(s.seq for s in self._at_hub(node))
            return sum(seq not in found for seq in range(1, accepted + 1)), sum(n - 1 for n in found.values())

        known = self._nodes[node].samples
        with contextlib.suppress(StepFailed):
            self.lab.until("all samples are at the hub", lambda: missing()[0] <= known[0], seconds=TELEMETRY_S_MAX)
        now = self._nodes[node].samples = missing()
        return now[0] - known[0], now[1] - known[1]

    def _at_hub(self, node: str) -> list[Sample]:
        try:
            return telemetry.at_hub(self.lab.hub, node, f"probe-{node}", PROBE)
        except log.LogError as e:
            raise StepFailed(f"the hub can't be read: {e}") from e

    def reports(self) -> tuple[int, int]:
        """Of the reports in the log since the last look: (stored twice, older than one of their subject before them)."""
        doubled = stale = 0
        last: dict[str, tuple[str, int]] = {}
        for record in self._new_reports():
            ev = codec.decode_event(record.payload)
            self._report_ids[ev.id] += 1
            doubled += self._report_ids[ev.id] > 1
            boot, mono = last.get(record.subject, ("", 0))
            stale += ev.boot == boot and (ev.mono or 0) < mono
            last[record.subject] = (ev.boot or "", ev.mono or 0)
        return doubled, stale

    def _new_reports(self) -> Iterator[log.Recorded]:
        async def read() -> list[log.Recorded]:
            out = []
            async with common.hub_log(self.lab.hub, "chaos") as (hub, _, store):
                for shard in range(hub.shards):
                    stream = f"HISTORY-REPORT-{shard}"
                    async for batch in store.follow(stream, after=self._reports_seen.get(stream, 0)):
                        out += batch.records
                        if batch.pending == 0:
                            break
                    self._reports_seen[stream] = max([self._reports_seen.get(stream, 0),
                                                      *(r.seq for r in out if r.stream == stream)])  # fmt: skip
            return out

        yield from asyncio.run(read())

    # --- hurting it

    def pid(self, what: str, node: str = "") -> int:
        """Of ``hub`` (supervisor), ``hub server``, ``cloud``, ``leaf`` or ``daemon``."""
        if what in ("hub server", "leaf"):
            return self.lab.server_pid(self.lab.hub if what == "hub server" else self.lab.node_dir(node) / "leaf")
        name = node if what == "daemon" else what
        return next(r.pid for r in self.lab.processes.alive() if r.name == name)

    def kill(self, what: str, node: str = "") -> None:
        if what in ("hub server", "leaf"):
            os.kill(self.pid(what, node), signal.SIGKILL)
        else:
            self.lab.processes.kill_9(node if what == "daemon" else what)

    def start(self, what: str, node: str = "") -> None:
        """What its own supervisor (systemd, on a real machine) would start again; servers have theirs in our processes."""
        match what:
            case "daemon":
                self.lab.start_daemon(node)
            case "cloud":
                self.lab.kubeconfig.unlink(missing_ok=True)
                setting.cloud(self.lab, "--grace", self.lab.grace_s)
            case "hub":
                setting.run_hub(self.lab)

    def signal(self, what: str, sig: signal.Signals, node: str = "") -> None:
        os.kill(self.pid(what, node), sig)

    def disk(self, node: str) -> disk.Disk:
        return self._nodes[node].disk

    def store(self, node: str) -> Path:
        return self.lab.node_dir(node) / "store" / "data.mdb"
