"""One look at a pod that should live: volumes, sandbox, init containers, containers, in that order; or its natural end.

Level-triggered: it compares what is wanted with what is known and starts the next effects; it can be called at any time, as
often as one likes, and remembers nothing about how it came here.
"""

from __future__ import annotations

from edge.core import lifecycle, running, volumes_plan
from edge.core.container_config import Identity, sandbox_config
from edge.core.context import Context
from edge.core.instructions import SANDBOX_LANE, VOLUMES_LANE, EnsureSandbox, RemoveContainer, WriteVolumes
from edge.core.pod_spec import Container, InvalidPod, Pod
from edge.core.pod_state import PodState
from edge.core.times import US_PER_S

DEADLINE_MESSAGE = "Pod was active on the node longer than the specified deadline"


def look(ctx: Context, state: PodState, pod: Pod) -> None:
    _deadline(ctx, state, pod)
    state.finished = state.finished or lifecycle.outcome(state)
    if state.finished:
        wind_down(ctx, state, pod)
        return
    _remove_strays(ctx, state, pod)
    _plan(ctx, state, pod)
    volumes_ready = _volumes(ctx, state, pod)
    if not _sandbox(ctx, state, pod, volumes_ready):
        return
    if not volumes_ready:
        _supervise_only(ctx, state, pod)
        return
    state.problem = None
    for container in pod.ephemerals():  # they look into the pod, so they don't wait for its init containers
        running.ensure(ctx, state, container, pod)
    if _inits(ctx, state, pod):
        for container in pod.apps():
            running.ensure(ctx, state, container, pod)


def _deadline(ctx: Context, state: PodState, pod: Pod) -> None:
    if pod.deadline_s is None or state.finished:
        return
    # The pod's start is wall time; how long it has been seen is what a jumping clock can't falsify by much
    ends_us = state.seen_us + pod.deadline_s * US_PER_S
    if ctx.now_us >= ends_us:
        state.finished, state.finish_reason = "Failed", ("DeadlineExceeded", DEADLINE_MESSAGE)
        ctx.event(state, "Normal", "DeadlineExceeded", DEADLINE_MESSAGE)
    else:
        ctx.wake(state, ctx.mono_us + ends_us - ctx.now_us)


def wind_down(ctx: Context, state: PodState, pod: Pod) -> None:
    """The pod is over: nothing runs any more, its sandbox goes, its containers stay for their logs."""
    for own in state.containers.values():
        if own.lane.effect is None:
            for seen in own.any_running():
                running.stop(ctx, state, own, seen, pod.grace_s, _spec(pod, own.name), f"Stopping container {own.name}")
                break
            else:
                running.stop_watching(ctx, own)
    if not any(c.any_running() or c.lane.effect for c in state.containers.values()):
        remove_sandboxes(ctx, state)


def remove_sandboxes(ctx: Context, state: PodState) -> None:
    lane = state.sandbox_lane
    if state.sandboxes and lane.free(ctx.mono_us):
        oldest = state.sandboxes[min(state.sandboxes)]
        ctx.begin(lane, RemoveContainer(ctx.next_id(), state.uid, SANDBOX_LANE, oldest.id))
    elif state.sandboxes and lane.effect is None:
        ctx.wake(state, lane.retry_mono)


def _spec(pod: Pod, name: str) -> Container | None:
    return next((c for c in pod.containers if c.name == name), None)


def _remove_strays(ctx: Context, state: PodState, pod: Pod) -> None:
    """Containers of names that the pod doesn't have (any more)."""
    names = {c.name for c in pod.containers}
    for own in state.containers.values():
        if own.name in names or not own.attempts or not own.lane.free(ctx.mono_us):
            continue
        seen = next(iter(own.attempts.values()))
        if seen.state == "running":
            running.stop(ctx, state, own, seen, pod.grace_s, None, f"Container {own.name} is not in the pod")
        else:
            ctx.begin(own.lane, RemoveContainer(ctx.next_id(), state.uid, own.name, seen.id))


# --- volumes --------------------------------------------------------------------------------------------------------


def _plan(ctx: Context, state: PodState, pod: Pod) -> None:
    try:
        state.plan = volumes_plan.plan(pod, ctx.refs, ctx.node)
    except InvalidPod as e:
        state.problem = ("FailedMount", str(e))
        ctx.event(state, "Warning", "FailedMount", str(e))


def _volumes(ctx: Context, state: PodState, pod: Pod) -> bool:
    """Whether containers may be started: all was written once.  What is missing now but was there before stays as it was."""
    plan, lane = state.plan, state.volumes_lane
    if plan is None:
        return False
    if plan.missing and not state.written and not state.on_disk:
        message = f"MountVolume.SetUp failed: {plan.missing}"
        if state.problem != ("FailedMount", message):
            ctx.event(state, "Warning", "FailedMount", message)
        state.problem = ("FailedMount", message)
        return False
    if state.written != plan.digest and lane.effect is None:
        if lane.free(ctx.mono_us):
            state.writing = plan.digest
            ctx.begin(lane, WriteVolumes(ctx.next_id(), state.uid, VOLUMES_LANE, plan.volumes, pod.fs_group))
        else:
            ctx.wake(state, lane.retry_mono)
    return bool(state.written)


# --- sandbox --------------------------------------------------------------------------------------------------------


def _sandbox(ctx: Context, state: PodState, pod: Pod, volumes_ready: bool) -> bool:
    """Whether the pod has a running sandbox; takes the next step to one."""
    sandbox, lane = state.sandbox, state.sandbox_lane
    if lane.effect is not None:
        return False
    if sandbox is not None and sandbox.state == "running":
        if len(state.sandboxes) > 1:
            remove_older_sandboxes(ctx, state)
        return True
    if not _stopped_for_new_sandbox(ctx, state, pod):
        return False
    if sandbox is not None and sandbox.state == "exited":
        remove_sandboxes(ctx, state)
        return False
    if not volumes_ready or state.plan is None:
        return False
    if not lane.free(ctx.mono_us):
        ctx.wake(state, lane.retry_mono)
        return False
    attempt = sandbox.attempt if sandbox is not None else state.sandbox_attempt + 1
    identity = Identity(
        state.uid, state.namespace, state.name, "", attempt, grace_s=pod.grace_s, cause=state.cause, trace=state.trace
    )
    try:
        config = sandbox_config(pod, identity, state.plan, ctx.settings)
    except InvalidPod as e:
        state.problem = ("FailedCreatePodSandBox", str(e))
        ctx.event(state, "Warning", "FailedCreatePodSandBox", str(e))
        return False
    ctx.begin(lane, EnsureSandbox(ctx.next_id(), state.uid, SANDBOX_LANE, config))
    return False


def remove_older_sandboxes(ctx: Context, state: PodState) -> None:
    if state.sandbox_lane.free(ctx.mono_us):
        oldest = state.sandboxes[min(state.sandboxes)]
        ctx.begin(state.sandbox_lane, RemoveContainer(ctx.next_id(), state.uid, SANDBOX_LANE, oldest.id))
    else:
        ctx.wake(state, state.sandbox_lane.retry_mono)


def _stopped_for_new_sandbox(ctx: Context, state: PodState, pod: Pod) -> bool:
    """A sandbox that died takes its network with it: containers can't go on in the new one, so they are stopped first."""
    still = False
    for own in state.containers.values():
        for seen in own.any_running():
            still = True
            own.excused = seen.id
            if own.lane.effect is None:
                why = "Pod sandbox changed, it will be killed and re-created."
                running.stop(ctx, state, own, seen, pod.grace_s, _spec(pod, own.name), why)
        still = still or own.lane.effect is not None
    return not still


# --- containers -----------------------------------------------------------------------------------------------------


def _inits(ctx: Context, state: PodState, pod: Pod) -> bool:
    """Whether the application containers may run; takes the next step of the init containers, in order."""
    done = lifecycle.initialized(state)
    for container in pod.inits():
        if container.kind == "sidecar" or not (done or lifecycle.init_done(state, container)):
            running.ensure(ctx, state, container, pod)
        if not (done or lifecycle.init_done(state, container)):
            return False
    return True


def _supervise_only(ctx: Context, state: PodState, pod: Pod) -> None:
    """Volumes are not known to be right (after a restart of the daemon, for a moment): watch what runs, start nothing."""
    for container in pod.containers:
        own = state.container(container.name)
        current = own.current
        if current is not None and current.state == "running" and own.lane.effect is None:
            running.watch(ctx, state, own, container, current)
        elif not own.running:
            running.stop_watching(ctx, own)
