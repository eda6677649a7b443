"""Questions about a pod's life, answered from what is known: is it initialised, is it over, must a container run again.

Source: Kubernetes, "Pod Lifecycle", "Init Containers", "Sidecar Containers"; kubelet computePodActions and getPhase.
"""

from __future__ import annotations

from edge.core.pod_spec import Container, Pod
from edge.core.pod_state import PodState
from edge.core.stimuli import Observed


def failed(seen: Observed) -> bool:
    return seen.exit_code != 0


def runs_again(container: Container, pod: Pod, exited: Observed) -> bool:
    """Whether an exited container is started again, by policy alone."""
    if container.kind == "sidecar":
        return True
    if container.kind == "ephemeral":
        return False
    if container.kind == "init":
        return failed(exited) and pod.restart_policy != "Never"
    return pod.restart_policy == "Always" or (pod.restart_policy == "OnFailure" and failed(exited))


def init_done(state: PodState, container: Container) -> bool:
    """An init container counts for the sandbox that it ran in; a sidecar once it has started."""
    own = state.containers.get(container.name)
    current = own.current if own else None
    if own is None or current is None:
        return False
    if container.kind == "sidecar":
        return current.state == "running" and own.started
    sandbox = state.sandbox
    same = sandbox is None or current.sandbox in ("", sandbox.id)
    return current.state == "exited" and not failed(current) and same


def initialized(state: PodState) -> bool:
    """All init containers done, or an application container was started in this sandbox (theirs may be removed by then)."""
    if state.pod is None:
        return False
    sandbox = state.sandbox
    for c in state.pod.apps():
        own = state.containers.get(c.name)
        current = own.current if own else None
        if current is not None and (sandbox is None or current.sandbox in ("", sandbox.id)):
            return True
    return all(init_done(state, c) for c in state.pod.inits())


def outcome(state: PodState) -> str:
    """Succeeded or Failed when the pod is over, else nothing."""
    pod = state.pod
    if pod is None or state.finished:
        return state.finished
    if pod.restart_policy == "Never":
        for c in pod.inits():
            own = state.containers.get(c.name)
            current = own.current if own else None
            if c.kind == "init" and current is not None and current.state == "exited" and failed(current):
                return "Failed"
    if pod.restart_policy == "Always":
        return ""
    ended: list[Observed] = []
    for c in pod.apps():
        own = state.containers.get(c.name)
        current = own.current if own else None
        if own is None or current is None or current.state != "exited":
            return ""
        if runs_again(c, pod, current) or own.forced == current.id:
            return ""
        ended.append(current)
    return "Failed" if any(failed(o) for o in ended) else "Succeeded"
