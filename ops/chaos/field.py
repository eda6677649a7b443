"""The field on which faults happen: a hub of one server or three, a cloud of one process a part, two nodes with pods that
must stay, users who go on changing things, and a mapper on each node that goes on measuring.

What is looked at afterwards is in looks.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from ops.chaos import clocks, disk
from ops.lab import setting
from ops.lab.links import Links
from ops.lab.nodes import BEAT_S, Containers, Lab
from ops.lab.show import StepFailed
from ops.lab.world import free_port
from schemas import subjects

STEADY = ("steady-a", "steady-b")  # nobody changes these: whatever happens, their containers stay the same ones
PROBE = "n"
NODE_DISK, HUB_DISK, HUB_OF_THREE_DISK = "96m", "192m", "512m"
KUBECTL = "--request-timeout=4s"  # a user gives up and tries again
SETTLE_S = 90.0

# One process a part, so that each can die alone.
CLOUD = {
    "api": ("api", "controllers"),
    "dispatcher": ("dispatcher",),
    "reports": ("reports",),
    "sync": ("sync", "join"),
}
SPARE = "spare"  # a second process of one part, for rows in which somebody else must take over


@dataclass(slots=True)
class Mapper:
    process: subprocess.Popen[bytes]
    boot: str
    accepted: int = 0  # when last asked


@dataclass(slots=True)
class NodeFacts:
    mapper: Mapper
    disk: disk.Disk
    past: list[Mapper] = field(default_factory=list)  # that were killed
    generation: int = 0  # how often the toggle pod was replaced
    setting: int = 0  # what the config map says, as far as the API accepted it


class Field:
    """``wild`` is the node that most faults happen to, ``calm`` the one that must not notice them."""

    def __init__(self, lab: Lab, hub_disk: disk.Disk, api_port: int, day: clocks.Day | None = None) -> None:
        self.lab, self.hub_disk, self._api_port, self._day = lab, hub_disk, api_port, day
        self.wild, self.calm = f"wild-{lab.tail}", f"calm-{lab.tail}"
        self.nodes = [self.wild, self.calm]
        self.facts: dict[str, NodeFacts] = {}
        self._disks: list[disk.Disk] = []
        self.api_writes = 0  # changes by users that the API accepted so far
        self.restored = 0  # how often the log was made anew from a backup: what was known of it before is worth nothing

    @property
    def links(self) -> Links:
        return self.lab.links

    @property
    def day(self) -> clocks.Day:
        """Of a field whose clocks can be set."""
        assert self._day is not None
        return self._day

    # --- making it

    def settle(self) -> None:
        for node in self.nodes:
            self._disks.append(small := disk.small(self.lab.node_dir(node), NODE_DISK))
            self.lab.join(node.partition("-")[0], **({} if self._day is None else self._day.nodes.env))
            self.lab.start_daemon(node)
            self._device(node)
            self.lab.answers(node)
            self.facts[node] = NodeFacts(self._mapper(node), small)
        for node in self.nodes:
            self.lab.ready(node)
            self.set_config(node)
            for name in STEADY:
                self.lab.pod(node, f"{name}-{node}", config_map=f"settings-{node}")
            self.lab.pod(node, self.toggle(node))

    def _device(self, node: str) -> None:
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

    def _mapper(self, node: str) -> Mapper:
        argv = [sys.executable, "-m", "ops.chaos.writer", str(self.lab.node_dir(node)), self.subject(node)]
        env = self.lab.node_env[node]
        child = self.lab.processes.start(mapper_name(node), [*self.links.inside(node), *argv], env=env, pipes=True)
        assert child.stdout is not None
        words = child.stdout.readline().decode().split()
        if words[:1] != ["ready"]:
            raise StepFailed(f"{mapper_name(node)} does not start: it said {words}")
        return Mapper(child, words[1])

    def subject(self, node: str) -> str:
        return subjects.telemetry(node, "default", f"probe-{node}", PROBE)

    def close(self) -> None:
        for one in self._disks:
            one.close()

    # --- users

    def toggle(self, node: str) -> str:
        return f"toggle-{self.facts[node].generation}-{node}"

    def wanted(self, node: str) -> set[str]:
        """Names of the pods that users want there."""
        return {f"{name}-{node}" for name in STEADY} | {self.toggle(node)}

    def set_config(self, node: str) -> None:
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"settings-{node}"},
                "data": {"n": str(self.facts[node].setting)}}  # fmt: skip
        self.lab.kubectl(KUBECTL, "apply", "-f", "-", stdin=json.dumps(body))

    def change(self, node: str) -> None:
        """What users do meanwhile: a setting changes, a pod is deleted, another is made.  What the API does not accept is
        done by ``make_up``."""
        n = self.facts[node]
        with contextlib.suppress(StepFailed):
            self.lab.kubectl(KUBECTL, "patch", "configmap", f"settings-{node}", "--type=merge", "-p",
                             json.dumps({"data": {"n": str(n.setting + 1)}}))  # fmt: skip
            n.setting += 1
            self.api_writes += 1
        with contextlib.suppress(StepFailed):
            self.lab.kubectl(KUBECTL, "delete", "pod", self.toggle(node), "--wait=false", "--ignore-not-found")
            self.api_writes += 1
            n.generation += 1
            self.lab.pod(node, self.toggle(node))
            self.api_writes += 1

    def make_up(self, node: str) -> None:
        """The users try again until the API has taken all of it."""

        def once() -> bool:
            with contextlib.suppress(StepFailed):
                self.set_config(node)
                found = {p["metadata"]["name"]: p["metadata"] for p in self.lab.pods(node)}
                for name, meta in found.items():
                    if name.startswith("toggle-") and name != self.toggle(node) and "deletionTimestamp" not in meta:
                        self.lab.kubectl(KUBECTL, "delete", "pod", name, "--wait=false")
                if self.toggle(node) not in found:
                    self.lab.pod(node, self.toggle(node))
                return True
            return False

        self.lab.until("the API takes what users want", once, seconds=90)

    # --- looking

    def steady(self, node: str) -> Containers:
        return {k: v for k, v in self.lab.containers(node).items() if k.startswith(STEADY)}

    def accepted(self, node: str) -> int:
        """Samples of its mapper that the node's bus has taken so far."""
        n = self.facts[node]
        process = n.mapper.process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        words = process.stdout.readline().split()
        if len(words) != 2:
            log = self.lab.processes.logs / f"{mapper_name(node)}.log"
            raise StepFailed(f"{mapper_name(node)} has ended, exit {process.poll()}: {log.read_text()[-2000:]}")
        n.mapper.accepted = int(words[1])
        return n.mapper.accepted + sum(m.accepted for m in n.past)

    # --- hurting it

    def pid(self, what: str, node: str = "") -> int:
        """Of ``hub`` (supervisor), ``hub server``, a part of the cloud, ``leaf``, ``daemon`` or ``mapper``."""
        if what in ("hub server", "leaf"):
            return self.lab.server_pid(self.lab.hub if what == "hub server" else self.lab.node_dir(node) / "leaf")
        name = process_name(what, node)
        return next(r.pid for r in self.lab.processes.alive() if r.name == name)

    def kill(self, what: str, node: str = "") -> None:
        """kill -9."""
        if what == "mapper":
            self.accepted(node)  # what it says last is what counts: more may be there
        if what in ("hub server", "leaf"):
            os.kill(self.pid(what, node), signal.SIGKILL)
        else:
            self.lab.processes.kill_9(process_name(what, node))

    def signal(self, what: str, sig: signal.Signals, node: str = "") -> None:
        os.kill(self.pid(what, node), sig)

    def start(self, what: str, node: str = "", *, beat_s: float = BEAT_S) -> None:
        """What its own supervisor (systemd, on a real machine) would start again; servers have theirs in our processes."""
        match what:
            case "daemon":
                self.lab.start_daemon(node, beat_s=beat_s)
            case "hub":
                setting.run_hub(self.lab)
            case "mapper":
                n = self.facts[node]
                n.past.append(n.mapper)
                for pipe in (n.mapper.process.stdin, n.mapper.process.stdout):
                    if pipe is not None:
                        pipe.close()
                n.mapper = self._mapper(node)
            case _:
                start_cloud(self.lab, what, self._api_port, day=self._day)
                if what == "api":
                    setting.api_answers(self.lab)

    def stop(self, what: str) -> None:
        """SIGTERM, and wait."""
        self.lab.processes.stop(process_name(what, ""))

    def spare(self, part: str) -> None:
        """A second process of a part, ready to take over."""
        start_cloud(self.lab, part, self._api_port, name=SPARE, day=self._day)
        log = self.lab.processes.logs / f"{SPARE}.log"
        self.lab.until("the spare is ready", lambda: log.exists() and "cloud.ready" in log.read_text())

    def forget_spare(self) -> None:
        self.lab.processes.stop(SPARE)
        (self.lab.processes.logs / f"{SPARE}.log").unlink()

    def disk(self, node: str) -> disk.Disk:
        return self.facts[node].disk

    def store(self, node: str) -> Path:
        return self.lab.node_dir(node) / "store" / "data.mdb"


def mapper_name(node: str) -> str:
    return f"mapper-{node}"


def process_name(what: str, node: str) -> str:
    match what:
        case "daemon":
            return node
        case "mapper":
            return mapper_name(node)
        case _:
            return what


def start_cloud(lab: Lab, part: str, api_port: int, *, name: str = "", day: clocks.Day | None = None) -> None:
    parts = [word for p in CLOUD[part] for word in ("--part", p)]
    options = () if day is None else ("--credentials-life", clocks.CREDENTIALS_LIFE)
    env = None if day is None else day.cloud.env
    listen = f"127.0.0.1:{api_port}"
    setting.start_cloud(lab, name or part, *parts, "--grace", lab.grace_s, *options, listen=listen, env=env)


def start_whole_cloud(lab: Lab, day: clocks.Day | None = None) -> int:
    """The API's port."""
    port = free_port()
    for part in CLOUD:
        start_cloud(lab, part, port, day=day)
    setting.api_answers(lab)
    return port
