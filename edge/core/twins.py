"""The twins core: devices and models in, resolved devices for the mappers and twin reports for the cloud out.

    handle(stimulus) -> [Instruction]      the only way in; the rim (``edge/twins.py``) runs the instructions

What a report is made of, and when (the cloud should know soon what matters, and pay little for what doesn't):
* at once: the device's state or message, an acknowledged desired value, a change of quality, a first value;
* a changed value: once per the property's reportCycle;
* a value that only got newer: once per REFRESH_MS.
A report is whole and holds the properties with reportToCloud.  It is emitted together with the record to persist, which the
rim stores in one transaction: what is on disk is what was reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from edge.core import device_specs
from schemas import codec
from schemas.devices import (
    STALE_MS,
    DeviceConfig,
    DeviceState,
    Property,
    TwinRecord,
    TwinRecordValue,
    TwinUpdate,
    TwinUpdateAnswer,
)
from schemas.event import Event
from schemas.kubeedge import DEVICES, GROUP, MODELS, DeviceModelSpec, DeviceSpec
from schemas.reports import Hop, TwinReport, TwinValue

REFRESH_MS = 600_000  # 144 reports a day and quiet device: well inside a node's 200 kB a day
CHATTER_MS = 200  # a loose contact must not fill the outbox: at most five reports a second and device
STORE_RETRY_MS = 2_000  # a full disk is looked at again this soon
CAUSE_MS = 60_000  # what happens to a device this soon after a change of its manifest is put down to it
CLOCK_SET_BACK_US = 60_000_000  # no update is on its way this long: an older time than that is a clock that was set back
KEY_PREFIX = b"twin/"

Key = tuple[str, str]  # namespace, name


# --- stimuli ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stimulus:
    """``now_us`` is wall time, ``mono_us`` a monotonic clock."""

    now_us: int
    mono_us: int


@dataclass(frozen=True, slots=True)
class ObjectApplied(Stimulus):
    """A Device or DeviceModel of this node as the replica has it now; other kinds are ignored."""

    event: Event


@dataclass(frozen=True, slots=True)
class ObjectsLoaded(Stimulus):
    """Everything in the replica was applied: a twin without a device is nobody's now."""


@dataclass(frozen=True, slots=True)
class TwinUpdated(Stimulus):
    """A mapper said something; exactly one Answer comes back."""

    update: TwinUpdate


@dataclass(frozen=True, slots=True)
class CommitFailed(Stimulus):
    """What was to be persisted and reported of these devices was not."""

    devices: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class ReportAll(Stimulus):
    """What was reported may be lost (a log restored from a backup): every twin is said again."""


@dataclass(frozen=True, slots=True)
class Tick(Stimulus):
    """The time of the last SetTimer has come (or later, or earlier: both are harmless)."""


# --- instructions ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PersistTwin:
    """``value`` None removes the record."""

    device: Key
    key: bytes
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Report:
    """``cause`` is the event that led to it, None when the device changed by itself."""

    namespace: str
    name: str
    report: TwinReport
    cause: str | None
    trace: str | None


@dataclass(frozen=True, slots=True)
class NotifyChanged:
    protocol: str


@dataclass(frozen=True, slots=True)
class Answer:
    answer: TwinUpdateAnswer


@dataclass(frozen=True, slots=True)
class SetTimer:
    """One Tick is wanted at this monotonic time; a later SetTimer replaces this one."""

    at_mono_us: int


Instruction = PersistTwin | Report | NotifyChanged | Answer | SetTimer


# --- state -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Value:
    value: TwinValue
    boot: str
    seq: int


@dataclass(slots=True)
class _Twin:
    uid: str
    heard_mono_us: int
    state: DeviceState = "unknown"
    message: str = ""
    values: dict[str, _Value] = field(default_factory=dict)
    boot: str = ""
    seq: int = 0
    retired: str = ""  # the run of the mapper before this one
    told: dict[str, TwinValue] = field(default_factory=dict)
    told_state: tuple[DeviceState, str] | None = None  # None: never reported
    told_mono_us: int = 0  # at first when it was made: device and model come together, and make one report
    must: bool = False  # a commit failed: report whatever it is
    must_from_mono_us: int = 0
    hops: list[Hop] = field(default_factory=list)


@dataclass(slots=True)
class _Device:
    uid: str
    event_id: str
    trace: str
    applied_us: int
    spec: DeviceSpec | None
    problem: str = ""
    config: DeviceConfig | None = None
    cause_open: bool = True  # the last change of the device is not yet answered by a report
    applied_mono_us: int = 0

    @property
    def model(self) -> str:
        return self.spec.device_model_ref.name if self.spec and self.spec.device_model_ref else ""


class TwinsCore:
    """``records`` are the persisted twins; ``damaged`` then says which of them could not be read (they start anew)."""

    def __init__(self, node: str, records: Mapping[bytes, bytes] | None = None, mono_us: int = 0) -> None:
        self.node = node
        self.damaged: list[str] = []
        self._devices: dict[Key, _Device] = {}
        self._models: dict[Key, DeviceModelSpec | str] = {}  # a text: why it can't be used
        self._twins: dict[Key, _Twin] = {}
        self._timer: int | None = None
        for key, value in (records or {}).items():
            self._restore(key, value, mono_us)

    def _restore(self, key: bytes, value: bytes, mono_us: int) -> None:
        try:
            record = codec.decode_as(TwinRecord, value)
        except codec.DecodeError as e:
            self.damaged.append(f"{key!r}: {e}")
            return
        twin = _Twin(record.uid, mono_us, record.state, record.message)
        twin.values = {v.value.property: _Value(v.value, v.boot, v.seq) for v in record.values}
        twin.told = {name: v.value for name, v in twin.values.items()}
        twin.told_state, twin.told_mono_us = (record.state, record.reported), mono_us
        self._twins[record.namespace, record.name] = twin

    # --- what the rim may look at ----------------------------------------------------------------------------------

    def devices(self, protocol: str) -> list[DeviceConfig]:
        """The resolved devices of a protocol, by name."""
        found = [d.config for _, d in sorted(self._devices.items()) if d.config is not None]
        return [config for config in found if config.protocol == protocol]

    def twin(self, namespace: str, name: str) -> TwinReport | None:
        """The twin as it is now, whole (also what isn't for the cloud)."""
        twin = self._twins.get((namespace, name))
        return None if twin is None else _report(twin, None, [])

    # --- the one mutator -------------------------------------------------------------------------------------------

    def handle(self, stimulus: Stimulus) -> list[Instruction]:
        out: list[Instruction] = []
        match stimulus:
            case ObjectApplied(event=event):
                self._applied(event, stimulus, out)
            case ObjectsLoaded():
                for key in [key for key in self._twins if key not in self._devices]:
                    self._forget(key, out)
            case TwinUpdated(update=update):
                self._updated(update, stimulus, out)
            case CommitFailed(devices=keys):
                for key in keys:
                    if (twin := self._twins.get(key)) is not None:
                        twin.must, twin.must_from_mono_us = True, stimulus.mono_us + STORE_RETRY_MS * 1000
                        self._consider(key, stimulus, out)
            case ReportAll():
                for key, twin in self._twins.items():
                    if twin.told_state is not None:
                        twin.must, twin.must_from_mono_us = True, stimulus.mono_us
                        self._consider(key, stimulus, out)
            case Tick():
                self._timer = None
                for key in self._twins:
                    self._consider(key, stimulus, out)
        return out

    # --- objects ---------------------------------------------------------------------------------------------------

    def _applied(self, event: Event, at: Stimulus, out: list[Instruction]) -> None:
        if event.group != GROUP:
            return
        key = (event.namespace, event.name)
        if event.resource == MODELS:
            self._model_applied(key, event, at, out)
        elif event.resource == DEVICES:
            self._device_applied(key, event, at, out)

    def _model_applied(self, key: Key, event: Event, at: Stimulus, out: list[Instruction]) -> None:
        if event.deleted or event.data is None:
            self._models.pop(key, None)
        else:
            try:
                self._models[key] = device_specs.parse_model(event.data)
            except codec.DecodeError as e:
                self._models[key] = f"DeviceModel {key[0]}/{key[1]} can't be used: {e}"
        for device_key, device in self._devices.items():
            if device_key[0] == key[0] and device.model == key[1]:
                self._resolve(device_key, device, event, at, out)

    def _device_applied(self, key: Key, event: Event, at: Stimulus, out: list[Instruction]) -> None:
        before = self._devices.get(key)
        spec, problem = None, ""
        if not event.deleted and event.data is not None:
            try:
                spec = device_specs.parse_device(event.data)
            except codec.DecodeError as e:
                problem = f"the Device can't be used: {e}"
        if event.deleted or event.data is None or (spec is not None and spec.node_name not in ("", self.node)):
            self._devices.pop(key, None)
            self._forget(key, out)
            if before is not None and before.config is not None:
                out.append(NotifyChanged(before.config.protocol))
            return
        device = _Device(event.uid, event.id, event.trace, at.now_us, spec, problem)
        if before is not None and before.uid == event.uid:
            device.config, device.cause_open = before.config, before.cause_open
            device.event_id, device.trace = before.event_id, before.trace
            device.applied_us, device.applied_mono_us = before.applied_us, before.applied_mono_us
            if before.spec == spec and before.problem == problem:
                self._devices[key] = before  # labels, status: nothing that concerns a mapper
                return
        elif before is not None and before.config is not None:
            out.append(NotifyChanged(before.config.protocol))
        self._devices[key] = device
        self._resolve(key, device, event, at, out)

    def _resolve(self, key: Key, device: _Device, event: Event, at: Stimulus, out: list[Instruction]) -> None:
        before, resolved = device.config, self._resolved(key, device, event.trace)
        after = resolved.config
        if before is None or after is None or before.rev != after.rev:
            device.config = after
            device.event_id, device.trace, device.cause_open = event.id, event.trace, True
            device.applied_us, device.applied_mono_us = at.now_us, at.mono_us
            protocols = dict.fromkeys(config.protocol for config in (before, after) if config is not None)
            out.extend(NotifyChanged(protocol) for protocol in protocols)
        twin = self._twins.get(key)
        if twin is None or twin.uid != device.uid:
            twin = self._twins[key] = _Twin(device.uid, at.mono_us, told_mono_us=at.mono_us)
        if after is None:
            twin.state, twin.message = "unknown", resolved.problem
        elif before is None and twin.state == "unknown":
            twin.message = f"waiting for a {after.protocol} mapper"
        if after is not None:
            names = {p.name for p in after.properties}
            twin.values = {name: value for name, value in twin.values.items() if name in names}
        self._consider(key, at, out)

    def _resolved(self, key: Key, device: _Device, trace: str) -> device_specs.Resolved:
        if device.spec is None:
            return device_specs.Resolved(None, device.problem)
        model = self._models.get((key[0], device.model))
        if isinstance(model, str):
            return device_specs.Resolved(None, model)
        return device_specs.resolve(
            namespace=key[0], name=key[1], uid=device.uid, trace=trace, spec=device.spec, model=model
        )

    def _forget(self, key: Key, out: list[Instruction]) -> None:
        if self._twins.pop(key, None) is not None:
            out.append(PersistTwin(key, record_key(key), None))

    # --- twins -----------------------------------------------------------------------------------------------------

    def _updated(self, update: TwinUpdate, at: Stimulus, out: list[Instruction]) -> None:
        key = (update.namespace, update.device)
        device, twin = self._devices.get(key), self._twins.get(key)
        refusal = _refusal(update, device, twin)
        if refusal is not None or twin is None or device is None or device.config is None:
            out.append(Answer(refusal or TwinUpdateAnswer(ok=False, known=False)))
            return
        twin.heard_mono_us = at.mono_us
        if update.boot == twin.boot and update.seq <= twin.seq:
            out.append(Answer(TwinUpdateAnswer(ok=True, message="known already")))
            return
        if update.boot != twin.boot:
            twin.retired, twin.boot = twin.boot, update.boot
        twin.seq = update.seq
        twin.state, twin.message = update.state, update.message
        names = {p.name for p in device.config.properties}
        for value in update.values:
            if value.property in names:
                self._take(twin, value, update)
        twin.hops = [*twin.hops, *update.hops][-16:]
        self._consider(key, at, out)
        out.append(Answer(TwinUpdateAnswer(ok=True)))

    def _take(self, twin: _Twin, value: TwinValue, update: TwinUpdate) -> None:
        """An older value never replaces a newer one."""
        old = twin.values.get(value.property)
        if old is not None:
            if old.boot != update.boot and 0 < old.value.time - value.time < CLOCK_SET_BACK_US:
                return
            if value.desired is None:  # a new run of the mapper hasn't written anything yet: what was written, was
                value = value.model_copy(update={"desired": old.value.desired})
        twin.values[value.property] = _Value(value, update.boot, update.seq)

    # --- reports ---------------------------------------------------------------------------------------------------

    def _consider(self, key: Key, at: Stimulus, out: list[Instruction]) -> None:
        """Reports the twin if it is due, and sets the timer for when it will be."""
        twin, device = self._twins[key], self._devices.get(key)
        if device is None:
            return  # restored, and its object not applied yet
        if device.config is not None and twin.state != "unknown" and at.mono_us - twin.heard_mono_us >= STALE_MS * 1000:
            twin.state, twin.retired = "unknown", ""
            twin.message = f"nothing heard from a {device.config.protocol} mapper for {STALE_MS // 1000} s"
        due = self._due(twin, device)
        if due is not None and due <= at.mono_us:
            self._tell(key, twin, device, at, out)
            due = self._due(twin, device)
        if twin.state != "unknown":
            stale = twin.heard_mono_us + STALE_MS * 1000
            due = stale if due is None else min(due, stale)
        if due is not None and (self._timer is None or due < self._timer):
            self._timer = due
            out.append(SetTimer(due))

    def _due(self, twin: _Twin, device: _Device) -> int | None:
        """The monotonic time at which a report is due; None when nothing is to say."""
        if twin.must:
            return twin.must_from_mono_us
        told = twin.told_mono_us
        dues: list[int] = []
        if twin.told_state != (twin.state, _message(twin, device)):
            dues.append(told + CHATTER_MS * 1000)
        for prop in device.config.properties if device.config else ():
            held = twin.values.get(prop.name)
            after_ms = _after_ms(twin.told.get(prop.name), held.value, prop) if held else None
            if after_ms is not None:
                dues.append(told + after_ms * 1000)
        return min(dues, default=None)

    def _tell(self, key: Key, twin: _Twin, device: _Device, at: Stimulus, out: list[Instruction]) -> None:
        config = device.config
        message = _message(twin, device)
        urgent = twin.told_state != (twin.state, message) or any(
            _urgent_ms(twin.told.get(name), held.value) is not None for name, held in twin.values.items()
        )
        answered = _answered(twin, config)
        if answered and at.mono_us - device.applied_mono_us > CAUSE_MS * 1000:
            device.cause_open = False
        caused = device.cause_open and urgent
        hops = [Hop(what="edge.applied", time=device.applied_us, about=f"device {key[0]}/{key[1]}"), *twin.hops]
        names = {p.name for p in config.properties if p.report_to_cloud} if config else None
        report = _report(twin, names, hops if caused else [], message)
        cause, trace = (device.event_id, device.trace) if caused else (None, None)
        record = TwinRecord(
            namespace=key[0],
            name=key[1],
            uid=twin.uid,
            state=twin.state,
            message=twin.message,
            reported=message,
            values=[TwinRecordValue(value=v.value, boot=v.boot, seq=v.seq) for v in twin.values.values()],
        )
        out.append(PersistTwin(key, record_key(key), codec.encode(record)))
        out.append(Report(key[0], key[1], report, cause, trace))
        if caused and answered:
            device.cause_open = False
        twin.told = {name: held.value for name, held in twin.values.items()}
        twin.told_state, twin.told_mono_us = (twin.state, message), at.mono_us
        twin.must, twin.hops = False, []


def record_key(key: Key) -> bytes:
    return KEY_PREFIX + f"{key[0]}/{key[1]}".encode()


def _refusal(update: TwinUpdate, device: _Device | None, twin: _Twin | None) -> TwinUpdateAnswer | None:
    who = f"device {update.namespace}/{update.device}"
    if device is None or twin is None or device.config is None:
        return TwinUpdateAnswer(ok=False, known=False, message=f"{who} is not known on this node")
    if device.uid != update.uid:
        return TwinUpdateAnswer(ok=False, known=False, message=f"{who} was deleted and made anew")
    if update.boot == twin.retired and twin.retired:
        return TwinUpdateAnswer(ok=False, message=f"another run of the mapper ({twin.boot}) speaks for {who} now")
    return None


def _urgent_ms(told: TwinValue | None, now: TwinValue) -> int | None:
    """How long after the last report this must be told whatever the reportCycle; None when it isn't urgent.

    The reason of a good value is that a desired one could not be written; other reasons may change with every reading."""
    if told is None or told.desired != now.desired:
        return 0
    if told.quality != now.quality or (now.quality == "good" and told.reason != now.reason):
        return CHATTER_MS
    return None


def _after_ms(told: TwinValue | None, now: TwinValue, prop: Property) -> int | None:
    """How long after the last report this value is due; None when it was told as it is."""
    urgent_ms = _urgent_ms(told, now)
    if urgent_ms is not None and (prop.report_to_cloud or (told is not None and told.desired != now.desired)):
        return urgent_ms  # what was written is put on disk even if it isn't for the cloud
    if told is None or not prop.report_to_cloud:
        return None
    if type(told.value) is not type(now.value) or told.value != now.value or told.reason != now.reason:
        return prop.report_cycle_ms
    return None if told.time == now.time else max(REFRESH_MS, prop.report_cycle_ms)


def _answered(twin: _Twin, config: DeviceConfig | None) -> bool:
    """Whether everything that the last change of the device asked for was done."""
    if config is None or twin.state != "online":
        return False
    wanted = {p.name: p.desired for p in config.properties if p.desired is not None}
    return all(name in twin.values and twin.values[name].value.desired == text for name, text in wanted.items())


def _message(twin: _Twin, device: _Device) -> str:
    warnings: Iterable[str] = device.config.warnings if device.config else ()
    return "; ".join(part for part in (twin.message, *warnings) if part)


def _report(twin: _Twin, names: Iterable[str] | None, hops: list[Hop], message: str = "") -> TwinReport:
    """Of the named properties, None: of all."""
    values = [held.value for name, held in twin.values.items() if names is None or name in names]
    return TwinReport(uid=twin.uid, state=twin.state, message=message or twin.message, twins=values, hops=hops)
