"""The main job in six chapters.  Each step does something and proves that it happened."""

from __future__ import annotations

import json
import time
from importlib import resources
from typing import Any

from ops.demo import telemetry
from ops.lab import setting
from ops.lab.show import Show, StepFailed
from ops.lab.world import NODES, Wire, World, free_port, node_ready, pod_ready

EDGE = "edge-1"
DEVICE = "boiler-1"
BEAT_S = 1.0  # seconds; the default of 20 is for metered links, a demo should not wait for it
GRACE_S = "4"


def manifest(name: str) -> str:
    return resources.files("ops.demo").joinpath("manifests", name).read_text()


class Demo:
    def __init__(self, world: World, show: Show) -> None:
        self.w, self.show = world, show
        self.wire: Wire | None = None
        self.device_port = 0
        self.before: dict[str, Any] = {}
        self.wire_before = (0, 0)
        self.healthy: dict[str, tuple[str, str]] = {}
        self.healed_at = 0.0

    def run(self) -> None:
        self.hub_and_nodes()
        self.pods()
        self.device()
        self.cut()
        self.heal()
        self.story()

    # --- 1

    def hub_and_nodes(self) -> None:
        w, show = self.w, self.show
        show.chapter("1. A hub, a Kubernetes API, two edge nodes")
        with show.step("hub: nats-server with JetStream, TLS, accounts CORE and EDGE") as line:
            hub = setting.hub(w)
            line.detail(f"hub {hub['id']}, {hub['shards']} shards")
        with show.step("cloud: Kubernetes API, controllers, dispatcher, reports, sync, join") as line:
            setting.cloud(w, "--grace", GRACE_S)
            line.detail("kubectl reaches it over TLS")
        with show.step("edge-1's link to the hub goes through a wire that can be cut"):
            self.wire = setting.wire(w)
        for node in NODES:
            with show.step(f"{node}: joins with a one-time token") as line:
                setting.join(w, node, through=self.wire if node == EDGE else None)
                setting.start_edge(w, node, beat_s=BEAT_S)
                line.detail("its key never left the node")
        with show.step("both nodes are Ready") as line:
            w.until("two Ready nodes", lambda: self._ready_nodes() == list(NODES), seconds=60, line=line)
        show.block(w.kubectl("get", "nodes", "-o", "wide"))

    def _ready_nodes(self) -> list[str]:
        items = self.w.get("nodes").get("items", [])
        return sorted(n["metadata"]["name"] for n in items if node_ready(n) == "True")

    # --- 2

    def pods(self) -> None:
        w, show = self.w, self.show
        show.chapter("2. kubectl apply: a Deployment, a ConfigMap, a Secret, a probe")
        with show.step("kubectl apply -f app.yaml") as line:
            out = w.kubectl("apply", "-f", "-", stdin=manifest("app.yaml"))
            line.detail(f"{len(out.splitlines())} objects")
        with show.step("kubectl rollout status deployment/web") as line:
            w.kubectl("rollout", "status", "deployment/web", "--timeout=50s")
            w.until("guest is ready", lambda: any(p["metadata"]["name"] == "guest" and pod_ready(p) for p in w.pods()))
            on = sorted(p["spec"]["nodeName"] for p in w.pods() if p["metadata"]["name"].startswith("web-"))
            if on != list(NODES):
                raise StepFailed(f"the two replicas should be on two nodes, they are on {on}")
            line.detail("one replica a node")
        with show.step("in the containers: the ConfigMap as file, as variable, the Secret") as line:
            for node in NODES:
                self._check_container(node, "hello from the rock", "calm")
            line.detail("as the Docker engine itself says")
        with show.step("kubectl exec and kubectl logs reach a node that has no open port") as line:
            said = w.kubectl("exec", "guest", "--", "sh", "-c", "echo here I am >/proc/1/fd/1; hostname").strip()
            if said != "guest":
                raise StepFailed(f"kubectl exec guest -- hostname says {said!r}")
            w.until("the log line", lambda: "here I am" in w.kubectl("logs", "guest"), seconds=20, line=line)
            line.detail("through the tunnel on the bus")
        show.block(w.kubectl("get", "nodes,pods", "-o", "wide"))

    def _web(self, node: str) -> str:
        for name, (container, _) in self.w.containers(node).items():
            if name.startswith("web-") and name.endswith("/httpd"):
                return container
        raise StepFailed(f"no container of web runs on {node}")

    def _page(self, node: str) -> str:
        return self.w.docker("exec", self._web(node), "cat", "/www/index.html").strip()

    def _check_container(self, node: str, page: str, mood: str) -> None:
        env = dict(e.split("=", 1) for e in self.w.docker("exec", self._web(node), "env").splitlines() if "=" in e)
        seen = (self._page(node), env.get("MOOD"), env.get("PASSWORD"))
        if seen != (page, mood, "not-on-the-wall"):
            raise StepFailed(f"{node}: the container sees {seen}")

    # --- 3

    def device(self) -> None:
        w, show = self.w, self.show
        show.chapter("3. A Modbus device: telemetry up, a set-point down")
        with show.step("a Modbus TCP device with a changing temperature") as line:
            self.device_port = free_port()
            w.simulator(self.device_port)
            line.detail(f"port {self.device_port}")
        with show.step("kubectl apply -f device.yaml; the Modbus mapper starts on edge-1"):
            text = manifest("device.yaml").replace("DEVICE_PORT", str(self.device_port))
            w.kubectl("apply", "-f", "-", stdin=text)
            w.start("mapper", "mapper", "run", "modbus", "--data", str(w.node_dir(EDGE)))
        with show.step(f"telemetry.{EDGE}.{DEVICE}.temperature arrives at the hub") as line:
            samples = w.until(
                "five samples", lambda: s if len(s := telemetry.at_hub(w.hub, EDGE, DEVICE, "temperature")) >= 5 else None
            )
            line.detail(f"{len(samples)} samples, the last {samples[-1].value}")
        with show.step("kubectl patch device: set-point 25 -> the register changes") as line:
            self._want_setpoint(25)
            register = w.until(
                "the register holds 250", lambda: r if (r := w.register(self.device_port, 0)) == 250 else None
            )
            line.detail(f"holding register 0 = {register}")
        with show.step("the reported twin comes back in DeviceStatus and in the columns") as line:
            w.until("setpoint 25 reported", lambda: self._twin("setpoint") == 25.0, line=line)
            w.until("the column", lambda: "setpoint=25" in w.kubectl("get", "devices", "-o", "wide"))
        show.block(w.kubectl("get", "devices", "-o", "wide"))

    def _want_setpoint(self, value: int) -> None:
        props = self.w.get("device", DEVICE)["spec"]["properties"]
        for p in props:
            if p["name"] == "setpoint":
                p["desired"] = {"value": str(value)}
        patch = json.dumps({"spec": {"properties": props}})
        self.w.kubectl("patch", "device", DEVICE, "--type=merge", "-p", patch)

    def _twin(self, name: str) -> float | None:
        for t in (self.w.get("devicestatus", DEVICE).get("status") or {}).get("twins") or []:
            if t["propertyName"] == name and t.get("reported"):
                return float(t["reported"]["value"])
        return None

    # --- 4

    def cut(self) -> None:
        w, show = self.w, self.show
        assert self.wire is not None
        show.chapter("4. The link of edge-1 is cut")
        with show.step("the wire is cut; the daemon notices") as line:
            self.before = w.node_status(EDGE)
            self.wire.cut()
            w.until("link down", lambda: w.node_status(EDGE).get("link") == "down", seconds=30, line=line)
        with show.step("the cloud shows the node NotReady, and since when") as line:
            node = w.until(
                "NotReady", lambda: n if node_ready(n := w.get("node", EDGE)) == "Unknown" else None, seconds=40, line=line
            )
            ready = next(c for c in node["status"]["conditions"] if c["type"] == "Ready")
            if "unknown since" not in ready["message"]:
                raise StepFailed(f"the Ready condition says {ready['message']!r}")
            line.detail(ready["message"])
        with show.step("a container is killed on edge-1, and comes back") as line:
            name = next(n for n in w.containers(EDGE) if n.startswith("web-"))
            killed = w.containers(EDGE)[name]
            w.docker("kill", "-s", "KILL", killed[0])
            w.until("it runs again", lambda: w.containers(EDGE).get(name, killed) != killed, seconds=40, line=line)
            line.detail(name)
        with show.step("kill -9 of the edge daemon; it comes back and touches no healthy container") as line:
            self.healthy = w.containers(EDGE)
            pid = w.node_status(EDGE)["pid"]
            w.processes.kill_9(EDGE)
            setting.start_edge(w, EDGE, beat_s=BEAT_S)
            w.until("a new daemon", lambda: w.node_status(EDGE).get("pid", pid) != pid, seconds=30, line=line)
            w.until("its pods are known", lambda: w.node_status(EDGE).get("runtime_ready"), seconds=30)
            time.sleep(2)  # time in which a daemon that got it wrong would restart something
            if w.containers(EDGE) != self.healthy:
                raise StepFailed(f"containers were {self.healthy}, are {w.containers(EDGE)}")
            line.detail(f"{len(self.healthy)} containers, same ids, same start times")
        with show.step("telemetry goes on and is kept on the node") as line:
            first = len(telemetry.on_leaf(w.node_dir(EDGE)))
            last = w.until(
                "more samples", lambda: n if (n := len(telemetry.on_leaf(w.node_dir(EDGE)))) > first + 5 else None
            )
            line.detail(f"{first} -> {last} samples in the leaf's stream")
        with show.step("meanwhile in the cloud: a ConfigMap changes, a pod is deleted, another is made"):
            change = json.dumps({"data": {"index.html": "hello again\n"}})
            w.kubectl("patch", "configmap", "greeting", "--type=merge", "-p", change)
            w.kubectl("delete", "pod", "guest", "--wait=false")
            w.kubectl("apply", "-f", "-", stdin=manifest("newcomer.yaml"))
        show.block(w.kubectl("get", "nodes,pods", "-o", "wide"))

    # --- 5

    def heal(self) -> None:
        w, show = self.w, self.show
        assert self.wire is not None
        show.chapter("5. The link heals")
        with show.step("the node catches up incrementally") as line:
            before = w.node_status(EDGE)["replica"]
            wire = self.wire.count()
            self.healed_at = time.monotonic()
            self.wire.heal()
            status = w.until(
                "in sync",
                lambda: (
                    s
                    if (s := w.node_status(EDGE)).get("link") == "up"
                    and s["replica"]["synced"]
                    and self._caught_up(s, before)
                    else None
                ),
                seconds=60,
                line=line,
            )
            after = status["replica"]
            events = after["page_events"] + after["live_events"] - before["page_events"] - before["live_events"]
            size = after["page_bytes"] + after["live_bytes"] - before["page_bytes"] - before["live_bytes"]
            full = sum(s["bytes"] for s in after["scopes"].values())
            objects = sum(s["objects"] for s in after["scopes"].values())
            up, down = self.wire.count()
            line.detail(
                f"{events} events, {size} bytes (a full list: {objects} objects, {full} bytes); "
                f"on the wire, TLS and telemetry included: {up - wire[0]} up, {down - wire[1]} down"
            )
        with show.step("edge-1 is what the API says: new page, guest gone, newcomer runs") as line:
            w.until("Ready", lambda: node_ready(w.get("node", EDGE)) == "True", line=line)
            w.until("the new page in the container", lambda: self._page(EDGE) == "hello again", line=line)
            w.until(
                "guest is gone", lambda: not w.get("pod", "guest") and "guest/sleep" not in w.containers(EDGE), line=line
            )
            w.until("newcomer is ready", lambda: pod_ready(w.get("pod", "newcomer")), line=line)
            same = {k: v for k, v in self.healthy.items() if not k.startswith("guest/")}
            now = w.containers(EDGE)
            if any(now.get(k) != v for k, v in same.items()):
                raise StepFailed(f"containers were {same}, are {now}")
            line.detail(
                f"{time.monotonic() - self.healed_at:.1f} s after the link came back; no other container was touched"
            )
        with show.step("no sample lost, none doubled") as line:
            line.detail(self._telemetry_whole())
        for node in NODES:
            with show.step(f"skerry replay verify {node}: the replica equals the fold of the log") as line:
                out = w.skerry("replay", "verify", node, "--hub", str(w.hub), "--data", str(w.node_dir(node)))
                line.detail(out.strip().splitlines()[-1])
        show.block(w.kubectl("get", "nodes,pods,devices", "-o", "wide"))

    def _caught_up(self, status: dict[str, Any], before: dict[str, Any]) -> bool:
        return bool(status["replica"]["scopes"][EDGE]["cursor"] > before["scopes"][EDGE]["cursor"])

    def _telemetry_whole(self) -> str:
        """Everything that the leaf has stored up to now is at the hub, each sequence number once."""
        w = self.w
        kept = telemetry.on_leaf(w.node_dir(EDGE))
        w.until("the hub has all of it", lambda: telemetry.missing_at_hub(w.hub, kept, EDGE) == 0, seconds=120)
        counts = []
        for prop in ("temperature", "setpoint"):
            counts.append(f"{prop} {telemetry.check_whole(telemetry.at_hub(w.hub, EDGE, DEVICE, prop))}")
        return ", ".join(counts) + " samples, numbered without a gap or a repetition"

    # --- 6

    def story(self) -> None:
        w, show = self.w, self.show
        show.chapter("6. What happened to one change, hop by hop")
        with show.step("skerry replay story pods/newcomer") as line:
            out = w.skerry("replay", "story", "pods/newcomer", "--hub", str(w.hub))
            for word in ("api", "dispatch", "edge.applied", "container.started", "report", "status"):
                if word not in out.lower():
                    raise StepFailed(f"the story lacks {word!r}:\n{out}")
            line.detail(f"{len(out.splitlines())} lines")
        show.block(out)
