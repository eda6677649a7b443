"""The PodStatus of a pod, as the kubelet would write it, from what is known.

Source: Kubernetes API reference, PodStatus; kubelet getPhase and status generation for the order and wording of conditions.
"""

from __future__ import annotations

from typing import Any

from edge.core import lifecycle
from edge.core.pod_spec import Container, Pod
from edge.core.pod_state import VANISHED, ContainerState, PodState
from edge.core.settings import NodeFacts
from edge.core.stimuli import Observed
from edge.core.times import rfc3339

ENGINE_PREFIX = "docker://"


def pod_status(state: PodState, pod: Pod, node: NodeFacts, now_us: int) -> dict[str, Any]:
    """``state.transitions`` is kept up: a condition's time is when its status last changed."""
    inits, apps = pod.inits(), pod.apps()
    init_statuses = [_container(state, pod, c) for c in inits]
    app_statuses = [_container(state, pod, c) for c in apps]
    phase = _phase(state, pod, app_statuses)
    status: dict[str, Any] = {
        "phase": phase,
        "conditions": _conditions(state, pod, phase, app_statuses, now_us),
        "hostIP": node.host_ip,
        "hostIPs": [{"ip": node.host_ip}],
        "startTime": state.start_time,
        "containerStatuses": app_statuses,
        "qosClass": pod.qos,
    }
    if not node.host_ip:
        del status["hostIP"], status["hostIPs"]
    if init_statuses:
        status["initContainerStatuses"] = init_statuses
    if ephemerals := pod.ephemerals():
        status["ephemeralContainerStatuses"] = [_container(state, pod, c) for c in ephemerals]
    ip = node.host_ip if pod.host_network and state.sandbox else state.pod_ip
    if ip:
        status |= {"podIP": ip, "podIPs": [{"ip": ip}]}
    if state.finish_reason:
        status["reason"], status["message"] = state.finish_reason
    return status


def refused_status(state: PodState) -> dict[str, Any]:
    """A pod that this node can't read or run at all."""
    return {"phase": "Failed", "reason": "InvalidPod", "message": state.invalid, "startTime": state.start_time}


def _phase(state: PodState, pod: Pod, apps: list[dict[str, Any]]) -> str:
    if state.finished:
        return state.finished
    if not lifecycle.initialized(state):
        return "Pending"
    if any("waiting" in s["state"] and not s["lastState"] for s in apps):
        return "Pending"
    return "Running"


# --- conditions -----------------------------------------------------------------------------------------------------


def _conditions(state: PodState, pod: Pod, phase: str, apps: list[dict[str, Any]], now_us: int) -> list[dict[str, Any]]:
    initialized = lifecycle.initialized(state) or phase == "Succeeded"
    ready, reason, message = _readiness(phase, apps)
    sandboxed = state.sandbox is not None and state.sandbox.state == "running"
    pending = [c.name for c in pod.inits() if not lifecycle.init_done(state, c)]
    rows = [
        ("PodReadyToStartContainers", sandboxed, "", ""),
        (
            "Initialized",
            initialized,
            "PodCompleted" if phase == "Succeeded" else "" if initialized else "ContainersNotInitialized",
            "" if initialized else f"containers with incomplete status: [{' '.join(pending)}]",
        ),
        ("Ready", ready, reason, message),
        ("ContainersReady", ready, reason, message),
        ("PodScheduled", True, "", ""),
    ]
    return [_condition(state, kind, true, why, text, now_us) for kind, true, why, text in rows]


def _readiness(phase: str, apps: list[dict[str, Any]]) -> tuple[bool, str, str]:
    unready = [s["name"] for s in apps if not s["ready"]]
    if phase == "Succeeded":
        return False, "PodCompleted", ""
    if phase == "Failed":
        return False, "PodFailed", ""
    if unready:
        return False, "ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]"
    return True, "", ""


def _condition(state: PodState, kind: str, true: bool, reason: str, message: str, now_us: int) -> dict[str, Any]:
    value = "True" if true else "False"
    known = state.transitions.get(kind)
    if known is None or known[0] != value:
        known = state.transitions[kind] = (value, rfc3339(now_us))
    condition: dict[str, Any] = {"type": kind, "status": value, "lastProbeTime": None, "lastTransitionTime": known[1]}
    if reason:
        condition["reason"] = reason
    if message:
        condition["message"] = message
    return condition


# --- containers -----------------------------------------------------------------------------------------------------


def _container(state: PodState, pod: Pod, container: Container) -> dict[str, Any]:
    own = state.containers.get(container.name) or ContainerState(container.name)
    current = own.current
    last = last_ended(own)
    shown = _state(state, pod, container, own, current)
    ready = own.ready
    if container.kind == "init":
        ready = current is not None and current.state == "exited" and current.exit_code == 0
    return {
        "name": container.name,
        "state": shown,
        "lastState": {"terminated": _terminated(last)} if last is not None else {},
        "ready": ready,
        "restartCount": current.attempt if current is not None else 0,
        "image": container.image,
        "imageID": current.image_id if current is not None else "",
        "started": own.running and own.started,
        **({"containerID": ENGINE_PREFIX + current.id} if current is not None and current.state != "created" else {}),
    }


def _waits(own: ContainerState, current: Observed | None) -> bool:
    return own.waiting is not None and (current is None or current.state != "running")


def last_ended(own: ContainerState) -> Observed | None:
    """What ``lastState`` tells of, and ``kubectl logs --previous`` shows."""
    current, previous = own.current, own.previous
    if current is not None and current.state == "exited" and _waits(own, current):
        return current
    return previous if previous is not None and previous.state == "exited" else None


def _state(state: PodState, pod: Pod, container: Container, own: ContainerState, current: Observed | None) -> dict[str, Any]:
    if current is not None and current.state == "running":
        return {"running": {"startedAt": rfc3339(current.started_us)}}
    if current is not None and current.state == "exited" and not _waits(own, current):
        return {"terminated": _terminated(current)}
    reason, message = own.waiting or _default_waiting(state, pod, container)
    return {"waiting": {"reason": reason, "message": message} if message else {"reason": reason}}


def _default_waiting(state: PodState, pod: Pod, container: Container) -> tuple[str, str]:
    if container.kind == "app" and pod.inits() and not lifecycle.initialized(state):
        return "PodInitializing", ""
    return "ContainerCreating", state.problem[1] if state.problem else ""


def _terminated(seen: Observed) -> dict[str, Any]:
    if seen.error == VANISHED:
        reason, message = VANISHED, "The container could not be located when it was looked for"
    elif seen.oom_killed:
        reason, message = "OOMKilled", seen.error
    else:
        reason, message = ("Error" if seen.exit_code else "Completed"), seen.error
    terminated: dict[str, Any] = {"exitCode": seen.exit_code, "reason": reason}
    if message:
        terminated["message"] = message
    if seen.started_us:
        terminated["startedAt"] = rfc3339(seen.started_us)
    if seen.finished_us:
        terminated["finishedAt"] = rfc3339(seen.finished_us)
    return {**terminated, "containerID": ENGINE_PREFIX + seen.id}
