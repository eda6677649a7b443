"""One step of the pods core: the time of the stimulus, what is known of the node, and the instructions so far."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from edge.core.backoff import doubling_ms
from edge.core.instructions import Effect, EmitEvent, Instruction
from edge.core.pod_state import Lane, PodState, Told
from edge.core.references import References
from edge.core.settings import NodeFacts, PodSettings
from schemas.reports import EventReport, Hop

HOPS_MAX = 32  # of one cause: enough for a pod of ten containers, small in a report
TOLD_MAX = 64  # different events remembered for a pod; older ones are told anew
MESSAGE_CHARS_MAX = 1024  # Kubernetes: limit of an event's message


@dataclass(slots=True)
class Context:
    settings: PodSettings
    node: NodeFacts
    refs: References
    now_us: int = 0
    mono_us: int = 0
    settled_mono: int = 0  # from then on nothing happens any more that another life of this daemon asked for
    settled: bool = False  # a snapshot was taken since then
    effects: int = 0  # number of effects begun and ended
    out: list[Instruction] = field(default_factory=list)
    in_flight: dict[int, Lane] = field(default_factory=dict)

    def next_id(self) -> int:
        self.effects += 1
        return self.effects

    def begin(self, lane: Lane, effect: Effect) -> None:
        """Start an effect in a free lane."""
        assert lane.effect is None, f"two effects in one lane: {lane.effect}"
        lane.effect, lane.touched = effect, effect.id
        self.in_flight[effect.id] = lane
        self.out.append(effect)

    def end(self, effect_id: int) -> tuple[Lane, Effect] | None:
        """The lane of an effect that ended, free again; None for one that nobody waits for any more."""
        lane = self.in_flight.pop(effect_id, None)
        if lane is None or lane.effect is None or lane.effect.id != effect_id:
            return None
        effect, lane.effect, lane.touched = lane.effect, None, self.next_id()
        return lane, effect

    def failed(self, lane: Lane, base_ms: int | None = None, max_ms: int | None = None) -> None:
        """The lane waits, longer each time."""
        lane.failures += 1
        lane.failed_mono = self.mono_us
        delay = doubling_ms(lane.failures, base_ms or self.settings.retry_base_ms, max_ms or self.settings.retry_max_ms)
        lane.retry_mono = self.mono_us + delay * 1000

    @staticmethod
    def succeeded(lane: Lane) -> None:
        lane.failures, lane.retry_mono = 0, 0

    def wake(self, pod: PodState, mono_us: int) -> None:
        """Look at the pod again then."""
        if mono_us > self.mono_us and (pod.wake_mono is None or mono_us < pod.wake_mono):
            pod.wake_mono = mono_us

    def hop(self, pod: PodState, what: str, about: str = "") -> None:
        if len(pod.hops) < HOPS_MAX:
            pod.hops.append(Hop(what=what, time=self.now_us, about=about))

    def event(self, pod: PodState, kind: str, reason: str, message: str, container: str = "") -> None:
        """Tell a Kubernetes event; repetitions are told at 2, 4, 8 ... so that a crash loop can't fill the log."""
        message = message[:MESSAGE_CHARS_MAX]
        told = pod.told.get((reason, message))
        if told is None:
            if len(pod.told) >= TOLD_MAX:
                pod.told.pop(next(iter(pod.told)))
            told = pod.told[reason, message] = Told(0, self.now_us)
        told.count += 1
        if told.count & (told.count - 1):
            return
        involved = {"apiVersion": "v1", "kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": pod.uid}
        if container:
            init = pod.pod is not None and any(c.name == container for c in pod.pod.inits())
            involved["fieldPath"] = f"spec.{'initContainers' if init else 'containers'}{{{container}}}"
        report = EventReport(
            involved=involved,
            type="Normal" if kind == "Normal" else "Warning",
            reason=reason,
            message=message,
            count=told.count,
            first=min(told.first_us, self.now_us),
            last=self.now_us,
        )
        # One report subject a series: the log keeps the last of each, and "Started" must not take the place of "Pulled".
        series = hashlib.blake2b(f"{pod.uid}\0{reason}\0{message}".encode(), digest_size=6).hexdigest()
        self.out.append(EmitEvent(pod.namespace, f"{pod.name}.{series}", report, pod.cause, pod.trace))
