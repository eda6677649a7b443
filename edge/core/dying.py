"""One look at a pod that must go: stop its containers with grace, remove them, the sandbox and volumes, say that it is gone.

The same for a deleted pod, a withdrawn one, one whose name was taken over by another uid, and an orphan.
Source: Kubernetes, "Pod Lifecycle", termination of pods; sidecars stop after the application containers, in reverse order.
"""

from __future__ import annotations

from edge.core import living, running
from edge.core.context import Context
from edge.core.instructions import SANDBOX_LANE, VOLUMES_LANE, KillContainer, ListPod, RemoveContainer, RemoveVolumes
from edge.core.pod_state import ContainerState, Lane, PodState


def doom(ctx: Context, state: PodState, grace_s: int) -> None:
    """Begin to end a pod, or shorten the grace of one that is ending."""
    if not state.doomed:
        state.doomed, state.grace_s = True, grace_s
    elif grace_s < state.grace_s:
        state.grace_s = grace_s
        state.kill_mono = ctx.mono_us + grace_s * 1_000_000


def look(ctx: Context, state: PodState) -> bool:
    """True when nothing is left."""
    _kill_late(ctx, state)
    if _stop_all(ctx, state):
        return False
    if _remove_all(ctx, state):
        state.fading = True
        return False
    living.remove_sandboxes(ctx, state)
    if state.sandboxes or state.sandbox_lane.effect is not None or not _confirmed(ctx, state):
        return False
    return _remove_volumes(ctx, state)


def _confirmed(ctx: Context, state: PodState) -> bool:
    """Whether the engine itself says that nothing is left.  A daemon that died may have left a start under way that no
    snapshot showed; a pod of the same name must not begin beside it."""
    if state.confirmed_gone:
        return True
    lane = state.sandbox_lane
    if ctx.mono_us < ctx.settled_mono:
        ctx.wake(state, ctx.settled_mono)
    elif lane.free(ctx.mono_us):
        ctx.begin(lane, ListPod(ctx.next_id(), state.uid, SANDBOX_LANE))
    else:
        ctx.wake(state, lane.retry_mono)
    return False


def _kill_late(ctx: Context, state: PodState) -> None:
    """The grace was shortened while a stop with the longer one is under way."""
    if state.kill_mono is None:
        return
    if ctx.mono_us < state.kill_mono:
        ctx.wake(state, state.kill_mono)
        return
    for own in state.containers.values():
        for seen in own.any_running():
            if own.lane.effect is not None and seen.id not in state.kill_lanes:
                lane = state.kill_lanes[seen.id] = Lane()
                ctx.begin(lane, KillContainer(ctx.next_id(), state.uid, own.name, seen.id))


def _stop_all(ctx: Context, state: PodState) -> bool:
    """True while something runs or is being worked on."""
    sidecars = [c.name for c in state.pod.inits() if c.kind == "sidecar"] if state.pod is not None else []
    apps = [own for own in state.containers.values() if own.name not in sidecars]
    if _stop(ctx, state, apps):
        return True
    return any(_stop(ctx, state, [state.container(name)]) for name in reversed(sidecars))


def _stop(ctx: Context, state: PodState, owns: list[ContainerState]) -> bool:
    busy = False
    for own in owns:
        if own.lane.effect is not None:
            busy = True
            continue
        runs = own.any_running()
        if runs:
            busy = True
            spec = next((c for c in state.pod.containers if c.name == own.name), None) if state.pod is not None else None
            running.stop(ctx, state, own, runs[0], state.grace_s, spec, f"Stopping container {own.name}")
        else:
            running.stop_watching(ctx, own)
    return busy


def _remove_all(ctx: Context, state: PodState) -> bool:
    left = False
    for own in state.containers.values():
        if not own.attempts:
            continue
        left = True
        if own.lane.free(ctx.mono_us):
            first = own.attempts[min(own.attempts)]
            ctx.begin(own.lane, RemoveContainer(ctx.next_id(), state.uid, own.name, first.id))
        else:
            ctx.wake(state, own.lane.retry_mono)
    return left


def _remove_volumes(ctx: Context, state: PodState) -> bool:
    lane = state.volumes_lane
    if lane.effect is not None:
        return False
    if not state.on_disk and not state.written:
        return True
    if lane.free(ctx.mono_us):
        ctx.begin(lane, RemoveVolumes(ctx.next_id(), state.uid, VOLUMES_LANE))
    else:
        ctx.wake(state, lane.retry_mono)
    return False
