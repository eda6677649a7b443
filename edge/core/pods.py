"""The pods of a node, as a pure state machine: ``handle(stimulus) -> [Instruction]``.

No clock, no I/O, no randomness: time comes in stimuli, effects go out as instructions and come back as ``EffectDone``.
Wanted (the replica's pods) is compared with known (the engine's containers) after every stimulus that touches a pod, by
living.py and dying.py.  Rules that hold whatever happens:

* never two containers of one pod and name;
* a healthy container is not restarted because this daemon restarted, its store was lost, or the link is cut;
* a container that no pod claims is removed only when the replica is complete, and then after a grace period.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge.core import dying, effects_done, living, observe, pod_parse, running, status, volumes_plan
from edge.core.context import Context
from edge.core.instructions import (
    SANDBOX_LANE,
    SNAPSHOT_LANE,
    Inspect,
    Instruction,
    RemoveKept,
    ReportPod,
    SetTimer,
    TakeSnapshot,
)
from edge.core.pod_spec import InvalidPod, Pod
from edge.core.pod_state import Lane, PodState
from edge.core.references import References
from edge.core.settings import NodeFacts, PodSettings
from edge.core.stimuli import (
    EffectDone,
    Hint,
    NodeChanged,
    ObjectApplied,
    ProbeResult,
    ReplicaComplete,
    ReportAll,
    RuntimeDown,
    RuntimeUp,
    Stimulus,
    Tick,
)
from edge.core.times import rfc3339
from schemas import local_volumes, pod_tokens
from schemas.reports import Hop, PodReport

REFERENCES = {
    *(("", r) for r in ("configmaps", "secrets", "services", "persistentvolumeclaims", "persistentvolumes")),
    (pod_tokens.GROUP, pod_tokens.RESOURCE),
}
WAITS_FOR_OBJECT = ("CreateContainerConfigError",)


class PodsCore:
    def __init__(self, settings: PodSettings, node: NodeFacts) -> None:
        self._ctx = Context(settings, node, References())
        self._pods: dict[str, PodState] = {}
        self._runtime_up = False
        self._synced = False  # a snapshot was taken since the engine came up
        self._ever_synced = False
        self._replica_complete = False
        # Pods of which "gone" was said while their objects are still here: a log that was restored may have lost it.
        self._told_gone: dict[tuple[str, str], ReportPod] = {}
        self._snapshot_lane = Lane()
        self._resync_mono = 0
        self._asked_mono = 0  # when the last snapshot was asked for
        self._armed: int | None = None

    @property
    def pods(self) -> Mapping[str, PodState]:
        """By uid; to look at, not to change."""
        return self._pods

    def handle(self, stimulus: Stimulus) -> list[Instruction]:
        ctx = self._ctx
        ctx.now_us, ctx.mono_us, ctx.out = stimulus.now_us, stimulus.mono_us, []
        for state in self._react(stimulus):
            self._look(state)
        self._resync()
        self._arm()
        out, ctx.out = ctx.out, []
        return out

    def _react(self, stimulus: Stimulus) -> list[PodState]:
        """Write the stimulus into the state; the pods to look at."""
        match stimulus:
            case ObjectApplied(key=key) if key.group == "" and key.resource == "pods":
                return self._pod_applied(stimulus)
            case ObjectApplied(key=key) if (key.group, key.resource) in REFERENCES:
                return self._reference_applied(stimulus)
            case EffectDone():
                return self._effect_done(stimulus)
            case Hint():
                return self._hint(stimulus)
            case ProbeResult():
                return self._probe(stimulus)
            case Tick():
                return self._due()
            case ReplicaComplete():
                self._replica_complete = True
                return list(self._pods.values())
            case RuntimeUp():
                if not self._ctx.settled_mono:
                    self._ctx.settled_mono = stimulus.mono_us + self._ctx.settings.settle_ms * 1000
                self._runtime_up, self._synced, self._resync_mono = True, False, 0
                return []
            case RuntimeDown():
                self._runtime_up = self._synced = False
                return []
            case NodeChanged():
                name = self._ctx.node.name
                self._ctx.node = NodeFacts(name, stimulus.host_ip, stimulus.cpu_milli, stimulus.memory_bytes)
                return list(self._pods.values())
            case ReportAll():
                self._ctx.out.extend(self._told_gone.values())
                for state in self._pods.values():
                    state.must_report = True
                return list(self._pods.values())
            case _:
                return []

    # --- objects ----------------------------------------------------------------------------------------------------

    def _pod_applied(self, applied: ObjectApplied) -> list[PodState]:
        key, obj = (applied.key.namespace, applied.key.name), applied.obj
        same_name = [s for s in self._pods.values() if s.key == key]
        self._told_gone.pop(key, None)
        if obj is None:
            for state in same_name:
                state.again, state.withdrawn = None, True
                self._withdraw(state, applied)
            return same_name
        uid = _text(obj, "uid")
        if not uid:
            return []  # nothing could tell its containers from those of another pod of the name
        for other in same_name:
            if other.uid != uid:
                other.silent = True
                self._withdraw(other, applied)
        state = self._pods.setdefault(uid, PodState(uid, *key, seen_us=self._ctx.now_us))
        state.namespace, state.name = key
        try:
            self._want(state, applied, pod_parse.parse(obj))
        except InvalidPod as e:
            self._refuse(state, applied, obj, str(e))
        return [*same_name, state]

    def _want(self, state: PodState, applied: ObjectApplied, pod: Pod) -> None:
        if state.doomed and not pod.deleting:
            state.again = applied
            return
        first = state.pod is None
        if state.pod != pod:
            self._because(state, applied)
        state.pod, state.invalid, state.orphan_mono = pod, "", None
        if first:
            known = pod.known
            state.start_time = known.start_time or rfc3339(state.seen_us)
            state.transitions = {kind: (value, time) for kind, value, time in known.conditions} | state.transitions
            if known.phase in ("Succeeded", "Failed"):
                state.finished = known.phase
        if pod.deleting:
            dying.doom(self._ctx, state, pod.grace_s if pod.delete_grace_s is None else pod.delete_grace_s)

    def _refuse(self, state: PodState, applied: ObjectApplied, obj: Mapping[str, Any], why: str) -> None:
        """A pod that can't be read.  One that runs already goes on with the spec that could be."""
        self._because(state, applied)
        self._ctx.event(state, "Warning", "InvalidPod", why)
        if state.pod is None:
            state.invalid, state.orphan_mono = why, None
            state.start_time = state.start_time or rfc3339(state.seen_us)
        metadata = obj.get("metadata")
        if isinstance(metadata, dict) and metadata.get("deletionTimestamp"):
            dying.doom(self._ctx, state, state.grace_s)

    def _withdraw(self, state: PodState, applied: ObjectApplied) -> None:
        """The pod is not this node's any more."""
        if not state.doomed and (state.pod is not None or state.invalid):
            self._because(state, applied)
            dying.doom(self._ctx, state, state.pod.grace_s if state.pod is not None else state.grace_s)

    def _because(self, state: PodState, applied: ObjectApplied) -> None:
        state.cause, state.trace = applied.event_id, applied.trace
        what = "edge.loaded" if applied.loaded else "edge.applied"
        state.hops = [Hop(what=what, time=self._ctx.now_us, about=str(applied.key))]

    def _reference_applied(self, applied: ObjectApplied) -> list[PodState]:
        key = applied.key
        self._ctx.refs.apply(key.resource, key.namespace, key.name, applied.obj)
        if key.resource == "persistentvolumes" and applied.obj is not None:
            self._keep(applied.obj)
        spaces = (s for s in self._pods.values() if key.namespace in ("", s.namespace))
        near = [s for s in spaces if s.pod is not None and not s.doomed]
        for state in near:
            if self._changes(state):
                self._because(state, applied)
        return near

    def _keep(self, volume: Mapping[str, Any]) -> None:
        """A folder of this node goes only when its volume says so itself: it is on its way out, to be deleted with its data.
        A volume that merely isn't there any more (a hub restored from an older backup) is no reason to lose anything."""
        local = local_volumes.of(volume)
        leaving = _text(volume, "deletionTimestamp") and local_volumes.goes_with_claim(volume)
        if local is not None and local[1] == self._ctx.node.name and leaving:
            self._ctx.out.append(RemoveKept(local[0]))

    def _changes(self, state: PodState) -> bool:
        """Whether a new config map or secret is the reason for what this pod does next."""
        waits = state.problem is not None or any(
            c.waiting is not None and c.waiting[0] in WAITS_FOR_OBJECT for c in state.containers.values()
        )
        if waits or state.pod is None:
            return waits
        try:
            plan = volumes_plan.plan(state.pod, self._ctx.refs, self._ctx.node)
        except InvalidPod:
            return False
        return state.plan is not None and plan.digest != state.plan.digest

    # --- what happened ----------------------------------------------------------------------------------------------

    def _effect_done(self, end: EffectDone) -> list[PodState]:
        ended = self._ctx.end(end.effect_id)
        if ended is None:
            return []
        lane, effect = ended
        if lane is self._snapshot_lane:
            return self._snapshot_done(end)
        state = self._pods.get(effect.pod_uid)
        if state is None:
            return []
        effects_done.done(self._ctx, state, lane, effect, end)
        return [state]

    def _snapshot_done(self, end: EffectDone) -> list[PodState]:
        ctx = self._ctx
        if not end.ok:
            ctx.failed(self._snapshot_lane)
            self._resync_mono = self._snapshot_lane.retry_mono
            return []
        ctx.succeeded(self._snapshot_lane)
        observe.snapshot(ctx, self._pods, end.effect_id, end.listing, end.volume_uids)
        if not ctx.settled:
            # One more look when nothing of an earlier life can happen any more
            ctx.settled = self._asked_mono >= ctx.settled_mono
            if not ctx.settled:
                self._resync_mono = max(ctx.settled_mono, ctx.mono_us)
        self._synced = self._ever_synced = self._runtime_up
        return list(self._pods.values())

    def _hint(self, hint: Hint) -> list[PodState]:
        state = self._pods.get(hint.pod_uid)
        if state is None:
            if hint.action == "start":  # a container of a pod that we don't know: look at everything, soon
                self._resync_mono = min(self._resync_mono, self._ctx.mono_us)
            return []
        if hint.container == "":
            known = next((o for o in state.sandboxes.values() if o.id == hint.container_id), None)
            lane = state.sandbox_lane
        else:
            own = state.container(hint.container)
            known = next((o for o in own.attempts.values() if o.id == hint.container_id), None)
            lane = own.lane
        already = {"start": "running", "die": "exited", "destroy": None}[hint.action]
        if (known.state if known is not None else None) == already:
            return []
        lane.hint = hint.container_id
        return [state]

    def _probe(self, result: ProbeResult) -> list[PodState]:
        state = self._pods.get(result.pod_uid)
        if state is None or state.pod is None or state.doomed:
            return []
        container = next((c for c in state.pod.containers if c.name == result.container), None)
        if container is None:
            return []
        running.probed(self._ctx, state, container, result.container_id, result.kind, result.ok, result.message)
        return [state]

    def _due(self) -> list[PodState]:
        return [s for s in self._pods.values() if s.wake_mono is not None and s.wake_mono <= self._ctx.mono_us]

    # --- looking at one pod -----------------------------------------------------------------------------------------

    def _look(self, state: PodState) -> None:
        if self._pods.get(state.uid) is not state:
            return
        ctx = self._ctx
        state.wake_mono = None
        if self._synced:
            self._look_up_hints(state)
            self._orphan(state)
            if state.doomed:
                if dying.look(ctx, state):
                    self._gone(state)
                    return
            elif state.pod is not None and not self._blocked(state):
                living.look(ctx, state, state.pod)
        self._report(state)

    def _look_up_hints(self, state: PodState) -> None:
        lanes = [(SANDBOX_LANE, state.sandbox_lane), *((c.name, c.lane) for c in state.containers.values())]
        for name, lane in lanes:
            if lane.hint and lane.effect is None:
                container_id, lane.hint = lane.hint, ""
                self._ctx.begin(lane, Inspect(self._ctx.next_id(), state.uid, name, container_id))

    def _orphan(self, state: PodState) -> None:
        """Containers or volumes that no pod claims."""
        if state.pod is not None or state.invalid or state.doomed or not self._replica_complete:
            return
        ctx = self._ctx
        if any(s.key == state.key and s.pod is not None for s in self._pods.values()):
            state.orphan_mono, state.silent = ctx.mono_us, True  # its name has gone to another pod: it is nobody's
        elif state.orphan_mono is None:
            state.orphan_mono = ctx.mono_us + ctx.settings.orphan_grace_ms * 1000
        if ctx.mono_us >= state.orphan_mono:
            dying.doom(ctx, state, state.grace_s)
        else:
            ctx.wake(state, state.orphan_mono)

    def _blocked(self, state: PodState) -> bool:
        """Another pod of the same name is still here: it goes first."""
        return any(s.key == state.key and s.uid != state.uid for s in self._pods.values())

    def _gone(self, state: PodState) -> None:
        del self._pods[state.uid]
        ctx = self._ctx
        again, state.again = state.again, None
        if again is not None:
            for other in self._pod_applied(again):
                self._look(other)
            return
        if state.name and not state.silent:
            ctx.hop(state, "pod.gone")
            report = PodReport(uid=state.uid, status=None, hops=list(state.hops))
            told = ReportPod(state.namespace, state.name, report, state.cause, state.trace)
            ctx.out.append(told)
            if state.pod is not None and not state.withdrawn:
                self._told_gone[state.key] = told
        for other in [s for s in self._pods.values() if s.key == state.key]:
            self._look(other)

    # --- telling ----------------------------------------------------------------------------------------------------

    def _report(self, state: PodState) -> None:
        ctx = self._ctx
        if state.silent or state.fading:
            told = None  # see pod_state.py
        elif state.pod is None:
            told = status.refused_status(state) if state.invalid else None
        elif not self._ever_synced or (state.reported is None and state.empty() and (state.finished or state.doomed)):
            told = None  # nothing is known yet, or the API already has all that can be known
        elif self._undecided(state):
            told = None
        else:
            told = status.pod_status(state, state.pod, ctx.node, ctx.now_us)
        if told is None or (told == state.reported and not state.must_report):
            return
        state.reported, state.must_report = told, False
        report = PodReport(uid=state.uid, status=told, hops=list(state.hops))
        ctx.out.append(ReportPod(state.namespace, state.name, report, state.cause, state.trace))

    def _undecided(self, state: PodState) -> bool:
        """An adopted pod whose probes have not answered: wait a moment instead of telling that it isn't ready."""
        waits = state.reported is None and state.adopt_mono is not None and self._ctx.mono_us < state.adopt_mono
        if not waits or not any(c.undecided for c in state.containers.values()):
            return False
        self._ctx.wake(state, state.adopt_mono or 0)
        return True

    # --- time -------------------------------------------------------------------------------------------------------

    def _resync(self) -> None:
        ctx = self._ctx
        if self._runtime_up and self._snapshot_lane.effect is None and ctx.mono_us >= self._resync_mono:
            self._resync_mono = ctx.mono_us + ctx.settings.resync_ms * 1000
            self._asked_mono = ctx.mono_us
            ctx.begin(self._snapshot_lane, TakeSnapshot(ctx.next_id(), "", SNAPSHOT_LANE))

    def _arm(self) -> None:
        times = [s.wake_mono for s in self._pods.values() if s.wake_mono is not None]
        if self._runtime_up and self._snapshot_lane.effect is None:
            times.append(self._resync_mono)
        wanted = min(times, default=None)
        if wanted is not None and (self._armed is None or self._armed <= self._ctx.mono_us or wanted < self._armed):
            self._armed = wanted
            self._ctx.out.append(SetTimer(wanted))


def _text(obj: Mapping[str, Any], key: str) -> str:
    metadata = obj.get("metadata")
    value = metadata.get(key) if isinstance(metadata, dict) else None
    return value if isinstance(value, str) else ""
