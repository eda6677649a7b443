"""The rim of the pods core: runs its instructions on the real node, and feeds what happened back as stimuli.

``PodsRim`` is what the daemon uses.  Everything happens on one event loop: a stimulus is handled at once, its instructions
become tasks, and the end of each task is the next stimulus.  The core keeps the effects of one container in order (one at a
time); the engine's queues (edge/containers) bound how many run at once; here each is made to end, one way or another.

Ending the daemon, in whatever way, leaves containers running: they are found again by their labels.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import structlog
from pydantic import BaseModel

from edge import node_status
from edge.containers.errors import RuntimeFailure
from edge.containers.images import Images
from edge.containers.runtime import Runtime
from edge.containers.settings import RuntimeSettings
from edge.containers.watch import Watch
from edge.core import instructions as do
from edge.core import stimuli as saw
from edge.core.container_config import MountConfig
from edge.core.pods import PodsCore
from edge.core.settings import NodeFacts, PodSettings
from edge.core.volumes_plan import HostPath, KeptDir, MemoryDir
from edge.probes import HOOK_TIMEOUT_S, Checker, Probes
from edge.volumes import VolumeError, Volumes
from schemas import event, local_volumes

logger = structlog.get_logger(__name__)

UNEXPECTED = "InternalError"


class Clock(Protocol):
    def wall_us(self) -> int: ...

    def mono_us(self) -> int: ...


class SystemClock:
    def wall_us(self) -> int:
        return time.time_ns() // 1000

    def mono_us(self) -> int:
        return time.monotonic_ns() // 1000


Report = Callable[[Literal["pod", "event"], str, str, BaseModel, str | None, str | None], None]


class PodsRim:
    """Pods of one node on its container engine.

    ``report(kind, namespace, name, payload, cause, trace)`` is called for every pod status (PodReport) and every
    Kubernetes event (EventReport); it must not block.  ``ready_changed()`` is called when ``runtime_ready`` or
    ``volumes_in_use`` may differ.
    Construct it inside a running event loop."""

    def __init__(
        self,
        *,
        node: str,
        data_dir: Path,
        report: Report,
        settings: PodSettings | None = None,
        runtime: RuntimeSettings | None = None,
        facts: NodeFacts | None = None,
        secret_dir: Path | None = None,
        clock: Clock | None = None,
        ready_changed: Callable[[], None] = lambda: None,
    ) -> None:
        runtime = runtime or RuntimeSettings()
        self._clock = clock or SystemClock()
        self._report = report
        self._ready_changed = ready_changed
        self._core = PodsCore(settings or PodSettings(), facts or node_status.facts(node))
        self._runtime = Runtime(node, runtime)
        self._images = Images(self._runtime, runtime)
        self._volumes = Volumes(data_dir, secret_dir)
        self._checker = Checker(self._runtime)
        self._probes = Probes(self._checker, self._probed, self._clock.wall_us)
        self._watch = Watch(self._runtime, runtime, self._up, self._down, self._hint)
        self._inbox: deque[saw.Stimulus] = deque()
        self._draining = False
        self._stopped = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._watching: asyncio.Task[None] | None = None
        self._ready: tuple[bool, str] = (False, "the container engine was not reached yet")

    # --- for the daemon ---------------------------------------------------------------------------------------------

    @property
    def runtime_ready(self) -> tuple[bool, str]:
        """Whether the container engine answers, and why not."""
        return self._ready

    @property
    def engine(self) -> Mapping[str, Any]:
        """What the engine said about itself when it was last reached (Docker's /info); empty before that."""
        return self._runtime.info

    def volumes_in_use(self) -> list[str]:
        """The folders of persistent volumes on this node, as its status names them."""
        return [local_volumes.in_use(handle) for handle in self._volumes.kept()]

    @property
    def core(self) -> PodsCore:
        """To look at (status, doctor, tests), not to change."""
        return self._core

    @property
    def runtime(self) -> Runtime:
        """To look into containers (logs, exec), not to start or end any."""
        return self._runtime

    def object_applied(self, applied: event.Event, seq: int = 0, *, loaded: bool = False) -> None:
        """An object of this node, new (live or caught up) or ``loaded`` back from the node's own store at start."""
        data = None if applied.deleted else applied.data
        self._feed(saw.ObjectApplied(*self._now(), applied.key, applied.id, applied.trace, data, loaded))

    def replica_complete(self) -> None:
        """The replica has caught up with the log at least once since it was made: what no pod claims is nobody's."""
        self._feed(saw.ReplicaComplete(*self._now()))

    def report_all(self) -> None:
        """Report every pod again, for a cloud that may have written something else while the link was cut."""
        self._feed(saw.ReportAll(*self._now()))

    def node_facts(self, facts: NodeFacts) -> None:
        self._feed(saw.NodeChanged(*self._now(), facts.host_ip, facts.cpu_milli, facts.memory_bytes))

    async def run(self) -> None:
        """Until cancelled or stopped."""
        self._watching = asyncio.create_task(self._watch.run(), name="engine-watch")
        try:
            await self._watching
        except asyncio.CancelledError:
            if not self._stopped:
                raise
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Let go of the engine.  Containers stay as they are; what was under way may or may not have happened."""
        if self._stopped:
            return
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        tasks = [*self._tasks, *([self._watching] if self._watching is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._probes.close()
        await self._checker.close()
        await self._runtime.close()

    # --- stimuli in, instructions out -------------------------------------------------------------------------------

    def _now(self) -> tuple[int, int]:
        return self._clock.wall_us(), self._clock.mono_us()

    def _feed(self, stimulus: saw.Stimulus) -> None:
        """Handle it now, or after the one that is being handled (a report callback may lead back here)."""
        if self._stopped:
            return
        self._inbox.append(stimulus)
        if self._draining:
            return
        self._draining = True
        try:
            while self._inbox:
                for instruction in self._core.handle(self._inbox.popleft()):
                    self._run(instruction)
        finally:
            self._draining = False

    def _run(self, instruction: do.Instruction) -> None:
        match instruction:
            case do.Effect():
                task = asyncio.create_task(self._effect(instruction), name=type(instruction).__name__)
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            case do.RemoveKept(handle=handle):
                task = asyncio.create_task(self._remove_kept(handle), name="RemoveKept")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            case do.StartProbe():
                self._probes.start(instruction)
            case do.StopProbe(container_id=container_id, kind=kind):
                self._probes.stop(container_id, kind)
            case do.SetTimer(at_mono_us=at):
                self._arm(at)
            case do.ReportPod(namespace=namespace, name=name, report=report, cause=cause, trace=trace):
                self._tell("pod", namespace, name, report, cause, trace)
            case do.EmitEvent(namespace=namespace, name=name, report=report, cause=cause, trace=trace):
                self._tell("event", namespace, name, report, cause, trace)

    def _tell(
        self, kind: Literal["pod", "event"], namespace: str, name: str, report: BaseModel, cause: str, trace: str
    ) -> None:
        try:
            self._report(kind, namespace, name, report, cause or None, trace or None)
        except Exception:  # whatever is wrong with telling, the instructions that follow keep containers going
            logger.exception("a report could not be handed on", kind=kind, namespace=namespace, name=name)

    def _arm(self, at_mono_us: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        delay_s = max(0, at_mono_us - self._clock.mono_us()) / 1e6
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._feed(saw.Tick(*self._now()))

    def _up(self) -> None:
        self._ready = (True, "")
        self._feed(saw.RuntimeUp(*self._now()))
        self._ready_changed()

    def _down(self, reason: str) -> None:
        logger.warning("container engine lost", reason=reason)
        self._ready = (False, reason)
        self._feed(saw.RuntimeDown(*self._now(), reason))
        self._ready_changed()

    def _hint(self, uid: str, container: str, container_id: str, action: Literal["start", "die", "destroy"]) -> None:
        self._feed(saw.Hint(*self._now(), uid, container, container_id, action))

    def _probed(self, spec: do.StartProbe, ok: bool, message: str) -> None:
        self._feed(
            saw.ProbeResult(*self._now(), spec.pod_uid, spec.container, spec.container_id, spec.probe.kind, ok, message)
        )

    async def _remove_kept(self, handle: str) -> None:
        try:
            await asyncio.to_thread(self._volumes.remove_kept, handle)
            logger.info("the data of a volume was removed", volume=handle)
        except VolumeError as e:
            logger.warning("the data of a volume is still there", volume=handle, reason=str(e))
        self._look_at_kept()

    def _look_at_kept(self) -> None:
        """The folders may be others now: that is part of what the node says of itself."""
        self._ready_changed()

    # --- effects ----------------------------------------------------------------------------------------------------

    async def _effect(self, effect: do.Effect) -> None:
        try:
            end = await self._execute(effect)
        except RuntimeFailure as e:
            end = self._failed(effect, e.reason, str(e))
        except VolumeError as e:
            end = self._failed(effect, "FailedMount", str(e))
        except Exception as e:  # an effect must end whatever happens, or its container would wait for ever
            logger.exception("effect failed in an unexpected way", effect=type(effect).__name__, pod=effect.pod_uid)
            end = self._failed(effect, UNEXPECTED, f"{type(e).__name__}: {e}")
        if not end.ok and end.container is None and isinstance(effect, do.RunContainer):
            end = await self._with_remains(effect, end)
        self._feed(end)

    def _failed(self, effect: do.Effect, reason: str, message: str) -> saw.EffectDone:
        return saw.EffectDone(*self._now(), effect.id, False, reason, message)

    async def _with_remains(self, effect: do.RunContainer, end: saw.EffectDone) -> saw.EffectDone:
        """A container that was created but could not be started is there: the core has to know."""
        try:
            left = await self._runtime.named(effect.config.identity)
        except RuntimeFailure:
            return end
        return saw.EffectDone(*self._now(), effect.id, False, end.reason, end.message, left)

    async def _execute(self, effect: do.Effect) -> saw.EffectDone:
        container: saw.Observed | None = None
        listing: tuple[saw.Observed, ...] = ()
        uids: tuple[str, ...] = ()
        reason = message = ""
        match effect:
            case do.TakeSnapshot():
                listing = tuple(await self._runtime.snapshot())
                uids = await asyncio.to_thread(self._volumes.pod_uids)
            case do.ListPod():
                listing = tuple(await self._runtime.snapshot(effect.pod_uid))
            case do.Inspect():
                container = await self._runtime.inspect(effect.container_id)
            case do.EnsureSandbox():
                container = await self._runtime.ensure_sandbox(effect.config)
            case do.PullImage():
                message, reason = await self._images.ensure(effect.image, effect.policy, effect.fallback, effect.auth)
            case do.RunContainer():
                container = await self._run_container(effect)
            case do.StopContainer():
                container = await self._stop(effect)
            case do.KillContainer():
                container = await self._runtime.stop(effect.container_id, 0)
            case do.RemoveContainer():
                await self._runtime.remove(effect.container_id)
            case do.WriteVolumes():
                await asyncio.to_thread(self._volumes.write, effect.pod_uid, effect.volumes, effect.group)
                if any(isinstance(v, KeptDir) for v in effect.volumes):
                    self._look_at_kept()
            case do.RemoveVolumes():
                await self._runtime.remove_memory_volumes(effect.pod_uid)
                await asyncio.to_thread(self._volumes.remove, effect.pod_uid)
            case _:
                raise TypeError(f"{type(effect).__name__} is not an effect that this rim knows")
        return saw.EffectDone(*self._now(), effect.id, True, reason, message, container, listing, uids)

    async def _run_container(self, effect: do.RunContainer) -> saw.Observed:
        config = effect.config
        uid = effect.pod_uid
        paths = await asyncio.to_thread(lambda: {m: str(self._source(uid, m)) for m in config.mounts if _on_disk(m)})
        found, started = await self._runtime.run_container(config, lambda m: paths[m])
        if started and config.post_start is not None and found.state == "running":
            ok, message = await self._checker.check(config.post_start, found.id, config.pod_ip, HOOK_TIMEOUT_S)
            if not ok:
                await self._runtime.stop(found.id, 0)
                raise RuntimeFailure("PostStartHookError", f"postStart hook failed: {message}")
            found = await self._runtime.inspect(found.id) or found
        return found

    def _source(self, uid: str, mount: MountConfig) -> Path:
        if isinstance(mount.source, HostPath):
            base = Path(mount.source.path)
        elif isinstance(mount.source, KeptDir):
            base = self._volumes.kept_path(mount.source.handle)
        else:
            assert isinstance(mount.source, str)
            base = self._volumes.path(uid, mount.source)
        return self._volumes.sub_path(base, mount.sub_path) if mount.sub_path else base

    async def _stop(self, effect: do.StopContainer) -> saw.Observed | None:
        """preStop and SIGTERM share the grace period; after its hook a container gets two seconds at least (kubelet)."""
        grace_s = effect.grace_s
        if effect.pre_stop is not None and grace_s > 0:
            began = self._clock.mono_us()
            await self._checker.check(effect.pre_stop, effect.container_id, effect.pod_ip, float(grace_s))
            grace_s = max(2, grace_s - (self._clock.mono_us() - began) // 1_000_000)
        return await self._runtime.stop(effect.container_id, grace_s)


def _on_disk(mount: MountConfig) -> bool:
    return not isinstance(mount.source, MemoryDir)
