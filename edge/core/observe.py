"""What the engine says, written into the state: the answer to one effect, or a whole snapshot.

A snapshot is older than it looks: an effect may begin or end while it is taken.  So a lane that was touched since the
snapshot was asked for keeps what it knows (its effects say what is there afterwards); the rest takes the snapshot's word.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from edge.core.context import Context
from edge.core.pod_state import VANISHED, ContainerState, Lane, PodState
from edge.core.stimuli import Observed

EXIT_VANISHED = 137  # as if killed: the kubelet's choice for a container that disappeared


def put(ctx: Context, pod: PodState, seen: Observed) -> None:
    if seen.created_us:
        pod.seen_us = min(pod.seen_us, seen.created_us)
    if seen.container == "":
        pod.sandboxes[seen.attempt] = seen
        pod.sandbox_attempt = max(pod.sandbox_attempt, seen.attempt)
    else:
        attempts = pod.container(seen.container).attempts
        before = attempts.get(seen.attempt)
        attempts[seen.attempt] = seen
        if before is not None and before.state == "running" and seen.state == "exited":
            ctx.hop(pod, "container.exited", f"{seen.container} with {seen.exit_code}")


def gone(ctx: Context, pod: PodState, name: str, container_id: str) -> None:
    """A container is no longer there, and we didn't remove it (or did: then nothing is kept of it)."""
    if name == "":
        pod.sandboxes = {a: o for a, o in pod.sandboxes.items() if o.id != container_id}
        return
    state = pod.container(name)
    for attempt, known in list(state.attempts.items()):
        if known.id == container_id:
            if known.state == "running" and pod.pod is not None and not pod.doomed:
                state.attempts[attempt] = replace(
                    known, state="exited", exit_code=EXIT_VANISHED, finished_us=ctx.now_us, error=VANISHED
                )
            elif known.state != "exited" or pod.doomed:
                del state.attempts[attempt]


def forget(pod: PodState, name: str, container_id: str) -> None:
    """We removed it."""
    if name == "":
        pod.sandboxes = {a: o for a, o in pod.sandboxes.items() if o.id != container_id}
    else:
        state = pod.container(name)
        state.attempts = {a: o for a, o in state.attempts.items() if o.id != container_id}


def snapshot(
    ctx: Context, pods: dict[str, PodState], asked: int, listing: Iterable[Observed], volume_uids: Iterable[str]
) -> None:
    """``asked`` is the number of the effect that took the snapshot."""
    seen: dict[str, list[Observed]] = defaultdict(list)
    for one in listing:
        seen[one.pod_uid].append(one)
    for uid in volume_uids:
        seen.setdefault(uid, [])
        if uid in pods:
            pods[uid].on_disk = True
    for uid, ones in seen.items():
        if uid not in pods:
            pods[uid] = _orphan(ctx, uid, ones)
    for uid, pod in pods.items():
        _pod(ctx, pod, asked, seen.get(uid, []))


def _orphan(ctx: Context, uid: str, ones: list[Observed]) -> PodState:
    if not ones:  # only volumes are left of it
        return PodState(uid=uid, namespace="", name="", seen_us=ctx.now_us, on_disk=True)
    last = max(ones, key=lambda o: o.created_us)
    return PodState(
        uid=uid,
        namespace=last.namespace,
        name=last.pod,
        seen_us=ctx.now_us,
        cause=last.cause,
        trace=last.trace,
        grace_s=last.grace_s,
    )


def _pod(ctx: Context, pod: PodState, asked: int, ones: list[Observed]) -> None:
    by_name: dict[str, list[Observed]] = defaultdict(list)
    for one in ones:
        by_name[one.container].append(one)
    if ones and not ctx.settled and pod.sandbox_attempt < 0:
        pod.adopted = True
    if _settled(pod.sandbox_lane, asked):
        pod.sandboxes = {}
        for one in by_name.get("", []):
            put(ctx, pod, one)
    if pod.reported is None and pod.adopt_mono is None and any(o.state == "running" for o in ones):
        pod.adopt_mono = ctx.mono_us + ctx.settings.adopt_wait_ms * 1000
    for name in sorted(({*pod.containers, *by_name}) - {""}):
        state = pod.container(name)
        if _settled(state.lane, asked):
            _container(ctx, pod, state, by_name.get(name, []))


def _settled(lane: Lane, asked: int) -> bool:
    return lane.effect is None and lane.touched < asked


def _container(ctx: Context, pod: PodState, state: ContainerState, ones: list[Observed]) -> None:
    there = {o.id for o in ones}
    for known in list(state.attempts.values()):
        if known.id not in there:
            gone(ctx, pod, state.name, known.id)
    for one in ones:
        put(ctx, pod, one)
