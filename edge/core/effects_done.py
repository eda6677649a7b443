"""What the end of each kind of effect means for the pod that it belongs to."""

from __future__ import annotations

from edge.core import observe
from edge.core.context import Context
from edge.core.instructions import (
    SANDBOX_LANE,
    Effect,
    EnsureSandbox,
    Inspect,
    ListPod,
    PullImage,
    RemoveContainer,
    RemoveVolumes,
    RunContainer,
    StopContainer,
    WriteVolumes,
)
from edge.core.pod_state import Lane, PodState
from edge.core.stimuli import EffectDone

RUNTIME_UNAVAILABLE = "RuntimeUnavailable"  # nobody's fault but the engine's: no penalty, tried again when it is back
IMAGE_MISSING = "ImageMissing"  # removed between the pull and the start


def done(ctx: Context, state: PodState, lane: Lane, effect: Effect, end: EffectDone) -> None:
    if end.container is not None:
        observe.put(ctx, state, end.container)
    if not end.ok:
        _failed(ctx, state, lane, effect, end)
        return
    ctx.succeeded(lane)
    match effect:
        case EnsureSandbox():
            state.problem = None
            ctx.hop(state, "sandbox.started")
        case PullImage(lane=name, image=image):
            own = state.container(name)
            own.image_ready, own.waiting = image, ("ContainerCreating", "")
            ctx.hop(state, "image.pulled", image)
            ctx.event(state, "Warning" if end.reason else "Normal", end.reason or "Pulled", end.message, name)
        case RunContainer(lane=name):
            own = state.container(name)
            own.image_ready, own.waiting, own.restart = "", None, None
            ctx.hop(state, "container.started", name)
            ctx.event(state, "Normal", "Started", f"Started container {name}", name)
        case StopContainer(lane=name, container_id=container_id) | Inspect(lane=name, container_id=container_id):
            if end.container is None:
                observe.gone(ctx, state, "" if name == SANDBOX_LANE else name, container_id)
        case RemoveContainer(lane=name, container_id=container_id):
            observe.forget(state, "" if name == SANDBOX_LANE else name, container_id)
        case ListPod():
            state.confirmed_gone = not end.listing
            for seen in end.listing:
                observe.put(ctx, state, seen)
        case WriteVolumes():
            _written(ctx, state)
        case RemoveVolumes():
            state.written, state.on_disk = "", False
        case _:
            pass


def _written(ctx: Context, state: PodState) -> None:
    if state.written:  # a change of content, which no status shows: say it, so that the change's story has an end
        state.must_report = True
    state.on_disk, state.written = True, state.writing
    ctx.hop(state, "volume.written")


def _failed(ctx: Context, state: PodState, lane: Lane, effect: Effect, end: EffectDone) -> None:
    if end.reason == RUNTIME_UNAVAILABLE:
        lane.retry_mono = ctx.mono_us + ctx.settings.retry_base_ms * 1000
        return
    match effect:
        case PullImage(lane=name, image=image):
            reason = end.reason or "ErrImagePull"
            state.container(name).waiting = (reason, end.message)
            ctx.failed(lane, ctx.settings.pull_base_ms, ctx.settings.pull_max_ms)
            ctx.event(state, "Warning", "Failed", f'Failed to pull image "{image}": {end.message}', name)
        case RunContainer(lane=name):
            own = state.container(name)
            own.image_ready = ""
            if end.reason == IMAGE_MISSING:
                return
            own.waiting = (end.reason or "CreateContainerError", end.message)
            ctx.failed(lane, ctx.settings.crash_base_ms, ctx.settings.crash_max_ms)
            ctx.event(state, "Warning", "Failed", f"Error: {end.message}", name)
        case EnsureSandbox():
            state.problem = ("FailedCreatePodSandBox", end.message)
            ctx.failed(lane)
            ctx.event(state, "Warning", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {end.message}")
        case WriteVolumes():
            state.problem = ("FailedMount", end.message)
            ctx.failed(lane)
            ctx.event(state, "Warning", "FailedMount", end.message)
        case _:
            ctx.failed(lane)
