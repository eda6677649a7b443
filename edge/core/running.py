"""One container of a living pod: get its image, start it, watch it, start it again.

Each function does at most one thing to the container's lane and returns; the answer to that brings us back here.
"""

from __future__ import annotations

from edge.core import lifecycle
from edge.core.backoff import next_crash_delay_ms
from edge.core.container_config import Identity, container_config
from edge.core.context import Context
from edge.core.instructions import (
    PullImage,
    RemoveContainer,
    RunContainer,
    StartProbe,
    StopContainer,
    StopProbe,
)
from edge.core.pod_spec import Container, InvalidPod, Pod, Probe, ProbeKind
from edge.core.pod_state import ContainerState, PodState, ProbeState
from edge.core.pull_auth import credentials
from edge.core.references import Missing
from edge.core.spec_hash import spec_hash
from edge.core.stimuli import Observed

ERROR_SHOWN_US = 1_000_000  # a failed pull is seen as ErrImagePull before it becomes ImagePullBackOff
KEPT_ATTEMPTS = 2  # the current one, and the one before for `kubectl logs --previous`


def ensure(ctx: Context, state: PodState, container: Container, pod: Pod) -> None:
    """Bring one container to where its spec and its history want it; needs a running sandbox and volumes on disk."""
    own = state.container(container.name)
    current = own.current
    if current is None or current.state != "running":
        stop_watching(ctx, own)
    if tidy(ctx, state, own):
        return
    current = own.current
    if current is None:
        _start(ctx, state, own, container, pod, 0, -1)
    elif current.state == "running":
        _supervise(ctx, state, own, container, pod, current)
    elif current.state == "created":
        _finish_created(ctx, state, own, container, pod, current)
    else:
        _again(ctx, state, own, container, pod, current)


def tidy(ctx: Context, state: PodState, own: ContainerState) -> bool:
    """Stop and remove attempts that are no longer wanted; True when the lane is taken."""
    if own.lane.effect is not None:
        return True
    for attempt in sorted(own.attempts)[:-1]:
        old = own.attempts[attempt]
        if old.state == "running":  # can only be another's doing; never two of one container
            stop(ctx, state, own, old, 0, None, "An older attempt of the container is still running")
            return True
    for attempt in sorted(own.attempts)[:-KEPT_ATTEMPTS]:
        if own.lane.free(ctx.mono_us):
            old_id = own.attempts[attempt].id
            ctx.begin(own.lane, RemoveContainer(ctx.next_id(), state.uid, own.name, old_id))
        else:
            ctx.wake(state, own.lane.retry_mono)
        return True
    return False


def stop(
    ctx: Context, state: PodState, own: ContainerState, seen: Observed, grace_s: int, container: Container | None, why: str
) -> None:
    if not own.lane.free(ctx.mono_us):
        ctx.wake(state, own.lane.retry_mono)
        return
    stop_watching(ctx, own)
    if why:
        ctx.event(state, "Normal", "Killing", why, own.name)
    pre_stop = container.pre_stop if container is not None else None
    ctx.begin(own.lane, StopContainer(ctx.next_id(), state.uid, own.name, seen.id, grace_s, pre_stop, state.pod_ip))


# --- running --------------------------------------------------------------------------------------------------------


def _supervise(
    ctx: Context, state: PodState, own: ContainerState, container: Container, pod: Pod, current: Observed
) -> None:
    own.waiting = None
    sandbox = state.sandbox
    if current.spec_hash and current.spec_hash != spec_hash(container.name, container.image):
        own.excused = own.forced = current.id
        why = f"Container {container.name} definition changed, will be restarted"
        stop(ctx, state, own, current, pod.grace_s, container, why)
    elif sandbox is not None and current.sandbox not in ("", sandbox.id):
        own.excused = current.id
        stop(ctx, state, own, current, pod.grace_s, container, "Pod sandbox changed, container will be restarted")
    elif own.kill is not None and own.kill[0] == current.id:
        _, why, grace = own.kill
        stop(ctx, state, own, current, pod.grace_s if grace is None else grace, container, why)
    else:
        watch(ctx, state, own, container, current)


def watch(ctx: Context, state: PodState, own: ContainerState, container: Container, current: Observed) -> None:
    """Have the container's probes run: the startup probe alone at first, then the others."""
    if own.probing == current.id:
        return
    own.probing, own.probes = current.id, {}
    startup = [p for p in container.probes if p.kind == "startup"]
    own.started = not startup
    own.ready = own.started and not any(p.kind == "readiness" for p in container.probes)
    own.undecided = state.adopt_mono is not None and ctx.mono_us < state.adopt_mono and not own.ready
    _start_probes(ctx, state, own, current, startup or list(container.probes))


def _start_probes(ctx: Context, state: PodState, own: ContainerState, current: Observed, probes: list[Probe]) -> None:
    for probe in probes:
        own.probes[probe.kind] = ProbeState()
        ctx.out.append(StartProbe(state.uid, own.name, current.id, state.pod_ip, current.started_us, probe))


def stop_watching(ctx: Context, own: ContainerState) -> None:
    if own.probing:
        ctx.out.append(StopProbe(own.probing, ""))
    own.probing, own.probes, own.started, own.ready, own.undecided = "", {}, False, False, False


def probed(
    ctx: Context, state: PodState, container: Container, container_id: str, kind: ProbeKind, ok: bool, message: str
) -> None:
    """The answer of one probe; thresholds are counted here (Kubernetes, "Configure Probes")."""
    own = state.container(container.name)
    counted = own.probes.get(kind)
    probe = next((p for p in container.probes if p.kind == kind), None)
    current = own.current
    if own.probing != container_id or counted is None or probe is None or current is None:
        return
    counted.successes, counted.failures = (counted.successes + 1, 0) if ok else (0, counted.failures + 1)
    if kind == "readiness":
        own.undecided = False
    if not ok:
        ctx.event(state, "Warning", "Unhealthy", f"{kind.capitalize()} probe failed: {message}", container.name)
        if counted.failures >= probe.failures:
            _condemn(own, probe, container_id)
    elif counted.successes >= probe.successes:
        if kind == "readiness":
            own.ready = True
        elif kind == "startup":
            own.started, own.probes = True, {}
            ctx.out.append(StopProbe(container_id, "startup"))
            own.ready = not any(p.kind == "readiness" for p in container.probes)
            own.undecided = own.undecided and not own.ready
            _start_probes(ctx, state, own, current, [p for p in container.probes if p.kind != "startup"])


def _condemn(own: ContainerState, probe: Probe, container_id: str) -> None:
    if probe.kind == "readiness":
        own.ready = False
    else:
        own.kill = (container_id, f"Container {own.name} failed {probe.kind} probe, will be restarted", probe.grace_s)


# --- not running ----------------------------------------------------------------------------------------------------


def _finish_created(
    ctx: Context, state: PodState, own: ContainerState, container: Container, pod: Pod, current: Observed
) -> None:
    """Created but never started: the start failed, or the daemon died in between."""
    sandbox = state.sandbox
    stale = current.spec_hash != spec_hash(container.name, container.image)
    if not stale and sandbox is not None and current.sandbox == sandbox.id:
        _start(ctx, state, own, container, pod, current.attempt, current.backoff_ms)
    elif own.lane.free(ctx.mono_us):
        ctx.begin(own.lane, RemoveContainer(ctx.next_id(), state.uid, own.name, current.id))
    else:
        ctx.wake(state, own.lane.retry_mono)


def _again(ctx: Context, state: PodState, own: ContainerState, container: Container, pod: Pod, current: Observed) -> None:
    sandbox = state.sandbox
    init_of_old_sandbox = container.kind == "init" and sandbox is not None and current.sandbox not in ("", sandbox.id)
    if not (lifecycle.runs_again(container, pod, current) or own.forced == current.id or init_of_old_sandbox):
        own.waiting = None
        return
    if own.restart is None or own.restart[0] != current.id:
        own.restart = _schedule(ctx, state, own, container, current, init_of_old_sandbox)
    _, delay_ms, at = own.restart
    if ctx.mono_us < at:
        whole = f"{state.name}_{state.namespace}({state.uid})"
        wait = f"back-off {delay_ms // 1000}s restarting failed container={container.name} pod={whole}"
        own.waiting = ("CrashLoopBackOff", wait)
        ctx.wake(state, at)
        return
    _start(ctx, state, own, container, pod, current.attempt + 1, delay_ms)


def _schedule(
    ctx: Context, state: PodState, own: ContainerState, container: Container, current: Observed, rerun: bool
) -> tuple[str, int, int]:
    sandbox = state.sandbox
    changed = sandbox is not None and current.sandbox not in ("", sandbox.id)
    if own.excused == current.id or rerun or changed:
        return current.id, max(current.backoff_ms, 0), ctx.mono_us
    ran_us = max(0, current.finished_us - current.started_us)
    delay_ms = next_crash_delay_ms(current.backoff_ms, ran_us, ctx.settings)
    waited_ms = min(max(0, (ctx.now_us - current.finished_us) // 1000), delay_ms)
    if delay_ms > waited_ms:
        message = f"Back-off restarting failed container {container.name} in pod {state.name}_{state.namespace}({state.uid})"
        ctx.event(state, "Warning", "BackOff", message, container.name)
    return current.id, delay_ms, ctx.mono_us + (delay_ms - waited_ms) * 1000


def _start(
    ctx: Context, state: PodState, own: ContainerState, container: Container, pod: Pod, attempt: int, backoff_ms: int
) -> None:
    if own.waiting is None or own.waiting[0] == "CrashLoopBackOff":
        own.waiting = ("ContainerCreating", "")
    if own.image_ready != container.image and not _image(ctx, state, own, container, pod):
        return
    if not own.lane.free(ctx.mono_us):
        ctx.wake(state, own.lane.retry_mono)
        return
    if state.adopted and not own.attempts and not ctx.settled:
        return  # an earlier life may have asked for it a moment ago: its attempt is not known before it is seen
    sandbox, plan = state.sandbox, state.plan
    if sandbox is None or plan is None:
        return
    identity = Identity(
        state.uid,
        state.namespace,
        state.name,
        container.name,
        attempt,
        sandbox=sandbox.id,
        backoff_ms=backoff_ms,
        grace_s=pod.grace_s,
        cause=state.cause,
        trace=state.trace,
    )
    try:
        target = _target(state, container)
        config = container_config(container, pod, identity, plan, ctx.refs, ctx.node, state.pod_ip, ctx.settings, target)
    except (Missing, InvalidPod) as e:
        own.waiting = ("CreateContainerConfigError", str(e))
        ctx.event(state, "Warning", "Failed", f"Error: {e}", container.name)
        return
    ctx.begin(own.lane, RunContainer(ctx.next_id(), state.uid, container.name, config))


def _target(state: PodState, container: Container) -> str:
    """Id of the container that an ephemeral one looks at; raises Missing while it doesn't run."""
    if not container.target:
        return ""
    own = state.containers.get(container.target)
    if own is None or own.current is None or not own.running:
        raise Missing(f'target container "{container.target}" does not run')
    return own.current.id


def _image(ctx: Context, state: PodState, own: ContainerState, container: Container, pod: Pod) -> bool:
    """Whether the image is there; asks for it when it isn't known to be."""
    if own.pull.effect is not None:
        return False
    if not own.pull.free(ctx.mono_us):
        reason, message = own.waiting or ("", "")
        shown_until = own.pull.failed_mono + min(ERROR_SHOWN_US, (own.pull.retry_mono - own.pull.failed_mono) // 2)
        if reason == "ErrImagePull" and ctx.mono_us < shown_until:
            ctx.wake(state, shown_until)
        elif reason == "ErrImagePull":
            own.waiting = ("ImagePullBackOff", f'Back-off pulling image "{container.image}": ErrImagePull: {message}')
            ctx.event(state, "Normal", "BackOff", f'Back-off pulling image "{container.image}"', container.name)
        ctx.wake(state, own.pull.retry_mono)
        return False
    policy, current = container.pull_policy, own.current
    if policy == "Always" and current is not None and current.image == container.image:
        # What ran a moment ago runs again without asking a registry, which a node may not reach for days
        policy = "IfNotPresent"
    auth = credentials(pod, ctx.refs)
    fallback = ctx.settings.pull_fallback
    effect = PullImage(ctx.next_id(), state.uid, container.name, container.image, policy, fallback, auth)
    ctx.begin(own.pull, effect)
    return False
