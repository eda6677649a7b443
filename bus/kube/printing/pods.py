"""The row of a pod (kubernetes pkg/printers/internalversion, printPod): its status is what went wrong last, if anything."""

from __future__ import annotations

from typing import Any

from bus.kube.kinds.base import at
from bus.kube.printing import text
from bus.kube.printing.cells import AGE, NAME, Cell, Look
from bus.kube.storage import Object


def _terminated(state: Object, prefix: str = "") -> str:
    if state.get("reason"):
        return prefix + str(state["reason"])
    if state.get("signal"):
        return f"{prefix}Signal:{state['signal']}"
    return f"{prefix}ExitCode:{state.get('exitCode', 0)}"


def _initializing(pod: Object) -> str | None:
    """What the first init container that isn't done is doing."""
    specs = at(pod, "spec", "initContainers") or []
    sidecars = {c.get("name") for c in specs if c.get("restartPolicy") == "Always"}
    for i, status in enumerate(at(pod, "status", "initContainerStatuses") or []):
        state = status.get("state") or {}
        terminated, waiting = state.get("terminated"), state.get("waiting")
        if terminated and terminated.get("exitCode") == 0:
            continue
        if status.get("name") in sidecars and status.get("started"):
            continue
        if terminated:
            return _terminated(terminated, "Init:")
        if waiting and waiting.get("reason") not in (None, "", "PodInitializing"):
            return f"Init:{waiting['reason']}"
        return f"Init:{i}/{len(specs)}"
    return None


def status(pod: Object, _: Look) -> str:
    seen = pod.get("status", {})
    reason: str = seen.get("reason") or seen.get("phase") or ""
    gated: Object = next((c for c in seen.get("conditions") or [] if c.get("type") == "PodScheduled"), {})
    if gated.get("reason") == "SchedulingGated":
        reason = "SchedulingGated"
    initializing = _initializing(pod)
    if initializing is not None:
        reason = initializing
    else:
        running = False
        for container in reversed(seen.get("containerStatuses") or []):
            state = container.get("state") or {}
            waiting, terminated = state.get("waiting"), state.get("terminated")
            if waiting and waiting.get("reason"):
                reason = waiting["reason"]
            elif terminated:
                reason = _terminated(terminated)
            elif container.get("ready") and state.get("running") is not None:
                running = True
        if reason == "Completed" and running:
            ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in seen.get("conditions") or [])
            reason = "Running" if ready else "NotReady"
    if pod["metadata"].get("deletionTimestamp") and seen.get("reason") == "NodeLost":
        return "Unknown"
    if pod["metadata"].get("deletionTimestamp") and seen.get("phase") not in ("Succeeded", "Failed"):
        return "Terminating"
    return reason


def _counted(pod: Object) -> list[Object]:
    """Statuses of containers and of sidecars, which count as containers."""
    sidecars = {c.get("name") for c in at(pod, "spec", "initContainers") or [] if c.get("restartPolicy") == "Always"}
    inits = [s for s in at(pod, "status", "initContainerStatuses") or [] if s.get("name") in sidecars]
    return [*inits, *(at(pod, "status", "containerStatuses") or [])]


def ready(pod: Object, _: Look) -> str:
    sidecars = [c for c in at(pod, "spec", "initContainers") or [] if c.get("restartPolicy") == "Always"]
    total = len(at(pod, "spec", "containers") or []) + len(sidecars)
    running = sum(bool(s.get("ready")) and at(s, "state", "running") is not None for s in _counted(pod))
    return f"{running}/{total}"


def restarts(pod: Object, look: Look) -> str:
    seen = at(pod, "status", "initContainerStatuses") or [] if _initializing(pod) is not None else _counted(pod)
    count = sum(s.get("restartCount", 0) for s in seen)
    ends = [at(s, "lastState", "terminated", "finishedAt") for s in seen]
    last = max((e for e in ends if isinstance(e, str)), default=None)
    return f"{count} ({text.age(last, look.now_us)} ago)" if count and last else str(count)


def _gates(pod: Object, _: Look) -> str:
    gates = at(pod, "spec", "readinessGates") or []
    true = {c.get("type") for c in at(pod, "status", "conditions") or [] if c.get("status") == "True"}
    return f"{sum(g.get('conditionType') in true for g in gates)}/{len(gates)}" if gates else text.NONE


def _or_none(*path: str) -> Any:
    return lambda pod, _: at(pod, *path) or text.NONE


COLUMNS = (
    NAME,
    Cell("Ready", ready),
    Cell("Status", status),
    Cell("Restarts", restarts),
    AGE,
    Cell("IP", _or_none("status", "podIP"), priority=1),
    Cell("Node", _or_none("spec", "nodeName"), priority=1),
    Cell("Nominated Node", _or_none("status", "nominatedNodeName"), priority=1),
    Cell("Readiness Gates", _gates, priority=1),
)
