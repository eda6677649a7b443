"""The twins core, stimulus by stimulus: what mappers get, what is reported, when, and what survives."""

from __future__ import annotations

from typing import Any

import pytest

from edge.core.twins import (
    CHATTER_MS,
    REFRESH_MS,
    Answer,
    CommitFailed,
    Instruction,
    NotifyChanged,
    ObjectApplied,
    ObjectsLoaded,
    PersistTwin,
    Report,
    ReportAll,
    SetTimer,
    Tick,
    TwinsCore,
    TwinUpdated,
    record_key,
)
from schemas.devices import STALE_MS, TwinUpdate, TwinUpdateAnswer
from schemas.event import OBJECT_APPLIED, OBJECT_DELETED, Event, uuid7
from schemas.reports import TwinValue

WALL = 1_790_000_000_000_000
NODE = "edge-1"

MODEL: dict[str, Any] = {
    "spec": {
        "protocol": "modbus",
        "protocolConfigData": {"port": 502, "slaveID": 1},
        "properties": [
            {"name": "temperature", "type": "DOUBLE", "accessMode": "ReadOnly", "minimum": "-40", "unit": "C"},
            {"name": "setpoint", "type": "DOUBLE", "accessMode": "ReadWrite", "visitors": {"configData": {"offset": 7}}},
        ],
    }
}


def device(**spec: Any) -> dict[str, Any]:
    return {
        "spec": {
            "deviceModelRef": {"name": "boiler-model"},
            "nodeName": NODE,
            "protocol": {"protocolName": "modbus", "configData": {"ip": "10.0.0.7", "port": 1502}},
            "properties": [
                {"name": "temperature", "collectCycle": 500, "reportCycle": 5000, "visitors": {"configData": {"offset": 0}}},
                {"name": "setpoint", "desired": {"value": "20"}},
            ],
            **spec,
        }
    }


class World:
    """A core with a clock, and what it said so far."""

    def __init__(self, records: dict[bytes, bytes] | None = None) -> None:
        self.mono_us = 1_000_000
        self.wall_us = WALL
        self.core = TwinsCore(NODE, records, self.mono_us)
        self.events = 0
        self.store: dict[bytes, bytes] = dict(records or {})
        self.seq = 0

    def _do(self, stimulus: Any) -> list[Instruction]:
        out = self.core.handle(stimulus)
        for one in out:
            if isinstance(one, PersistTwin):
                if one.value is None:
                    self.store.pop(one.key, None)
                else:
                    self.store[one.key] = one.value
        return out

    def event(
        self, resource: str, name: str, data: dict[str, Any] | None, uid: str = "u1", namespace: str = "default"
    ) -> Event:
        self.events += 1
        ident = uuid7(WALL, self.events.to_bytes(10, "big"))
        return Event(
            id=ident, type=OBJECT_DELETED if data is None else OBJECT_APPLIED, scope=NODE, group="devices.kubeedge.io",
            resource=resource, namespace=namespace, name=name, uid=uid, time=WALL, source="test", trace=ident, data=data,
        )  # fmt: skip

    def model(self, data: dict[str, Any] | None = MODEL) -> list[Instruction]:
        return self._do(ObjectApplied(self.wall_us, self.mono_us, self.event("devicemodels", "boiler-model", data, "m1")))

    def device(self, data: dict[str, Any] | None, uid: str = "u1", name: str = "boiler") -> list[Instruction]:
        return self._do(ObjectApplied(self.wall_us, self.mono_us, self.event("devices", name, data, uid)))

    def loaded(self) -> list[Instruction]:
        return self._do(ObjectsLoaded(self.wall_us, self.mono_us))

    def after(self, ms: int) -> list[Instruction]:
        self.mono_us += ms * 1000
        self.wall_us += ms * 1000
        return self._do(Tick(self.wall_us, self.mono_us))

    def update(self, *values: TwinValue, **more: Any) -> list[Instruction]:
        self.seq += 1
        fields: dict[str, Any] = {"uid": "u1", "boot": "b1", "seq": self.seq, "state": "online", **more}
        update = TwinUpdate(namespace="default", device="boiler", values=list(values), **fields)
        return self._do(TwinUpdated(self.wall_us, self.mono_us, update))

    def value(self, prop: str, value: Any, **more: Any) -> TwinValue:
        return TwinValue(**{"property": prop, "value": value, "time": self.wall_us, **more})


def reports(out: list[Instruction]) -> list[Report]:
    return [one for one in out if isinstance(one, Report)]


def answer(out: list[Instruction]) -> TwinUpdateAnswer:
    found = [one.answer for one in out if isinstance(one, Answer)]
    assert len(found) == 1
    return found[0]


def running() -> World:
    """A device online and reported, nothing due."""
    world = World()
    world.model()
    world.device(device())
    world.after(CHATTER_MS)
    world.update(world.value("temperature", 20.0), world.value("setpoint", 20.0, desired="20"))
    world.after(CHATTER_MS)
    return world


# --- what mappers get ------------------------------------------------------------------------------------------------


def test_a_device_is_resolved_from_its_model_and_itself() -> None:
    world = World()
    world.model()
    out = world.device(device())
    assert NotifyChanged("modbus") in out
    [config] = world.core.devices("modbus")
    assert (config.namespace, config.name, config.uid, config.model) == ("default", "boiler", "u1", "boiler-model")
    assert config.config == {"ip": "10.0.0.7", "port": 1502, "slaveID": 1}
    temperature, setpoint = config.properties
    assert (temperature.name, temperature.type, temperature.writable, temperature.unit) == (
        "temperature",
        "DOUBLE",
        False,
        "C",
    )
    assert (temperature.minimum, temperature.maximum) == ("-40", None)
    assert (temperature.collect_cycle_ms, temperature.report_cycle_ms, temperature.visitor) == (500, 5000, {"offset": 0})
    assert (setpoint.writable, setpoint.desired, setpoint.visitor) == (True, "20", {"offset": 7})
    assert config.warnings == []
    assert world.core.devices("opcua") == []


def test_device_and_model_in_any_order_are_one_report() -> None:
    world = World()
    assert not reports(world.device(device()))
    assert not reports(world.model())
    [report] = reports(world.after(CHATTER_MS))
    assert (report.report.state, report.report.message, report.report.twins) == (
        "unknown",
        "waiting for a modbus mapper",
        [],
    )
    assert report.report.uid == "u1" and report.cause is not None


def test_a_missing_model_is_said_until_it_comes() -> None:
    world = World()
    world.device(device())
    [report] = reports(world.after(CHATTER_MS))
    assert report.report.message == "DeviceModel default/boiler-model is not known on this node"
    assert world.core.devices("modbus") == []
    out = world.model()
    assert NotifyChanged("modbus") in out and len(world.core.devices("modbus")) == 1
    assert NotifyChanged("modbus") in world.model(None) and world.core.devices("modbus") == []


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"deviceModelRef": {}}, "spec.deviceModelRef.name is empty: a device needs a DeviceModel"),
        ({"properties": "many"}, "the Device can't be used: not a DeviceSpec: properties: Input should be a valid list"),
    ],
)
def test_a_device_that_can_not_be_used_says_why(spec: dict[str, Any], message: str) -> None:
    world = World()
    world.model()
    world.device(device(**spec))
    [report] = reports(world.after(CHATTER_MS))
    assert (report.report.state, report.report.message) == ("unknown", message)


def test_odd_manifests_are_warned_about_and_used() -> None:
    world = World()
    world.model()
    world.device(
        device(
            properties=[
                {"name": "temperature", "collectCycle": 10_000_000_000, "reportCycle": 3, "desired": {"value": "5"}},
                {"name": "setpoint", "desired": {"value": ""}},
                {"name": "colour"},
                {"name": "setpoint"},
            ]
        )
    )
    [config] = world.core.devices("modbus")
    temperature, setpoint = config.properties
    assert (temperature.collect_cycle_ms, temperature.report_cycle_ms, temperature.desired) == (10_000, 10, None)
    assert setpoint.desired is None
    assert config.warnings == [
        "property temperature: collectCycle 10000000000 is taken as nanoseconds, that is 10 s;"
        " the unit is milliseconds: write 10000",
        "property temperature: reportCycle 3 ms is below the shortest possible: 10 ms is used",
        "property temperature is ReadOnly: its desired value is not written",
        "property colour is not in DeviceModel boiler-model: left out",
        "property setpoint is listed twice: the first one counts",
    ]
    [report] = reports(world.after(CHATTER_MS))
    assert "10000000000 is taken as nanoseconds" in report.report.message


def test_the_list_changes_only_with_what_concerns_a_mapper() -> None:
    world = running()
    rev = world.core.devices("modbus")[0].rev
    assert world.device({**device(), "metadata": {"labels": {"a": "b"}}}) == []
    assert world.core.devices("modbus")[0].rev == rev
    out = world.device(device(properties=[{"name": "setpoint", "desired": {"value": "25"}}]))
    assert NotifyChanged("modbus") in out
    assert world.core.devices("modbus")[0].rev != rev


def test_a_device_of_another_node_is_not_ours() -> None:
    world = running()
    out = world.device(device(nodeName="edge-2"))
    assert out == [PersistTwin(("default", "boiler"), record_key(("default", "boiler")), None), NotifyChanged("modbus")]
    assert world.core.devices("modbus") == [] and world.store == {}


# --- updates and reports ---------------------------------------------------------------------------------------------


def test_first_values_are_reported_at_once_and_stored_with_the_report() -> None:
    world = World()
    world.model()
    world.device(device())
    world.after(CHATTER_MS)
    out = world.update(world.value("temperature", 20.5))
    assert answer(out).ok
    [report] = reports(out)
    assert [(v.property, v.value) for v in report.report.twins] == [("temperature", 20.5)]
    assert [one.key for one in out if isinstance(one, PersistTwin)] == [b"twin/default/boiler"]


def test_changes_are_coalesced_to_the_report_cycle() -> None:
    world = running()
    told = 0
    for i in range(10):  # 10 s of a value that changes every second, reportCycle 5 s
        told += len(reports(world.after(1000)))
        told += len(reports(world.update(world.value("temperature", 21.0 + i))))
    assert told == 2
    held = world.core.twin("default", "boiler")
    assert held is not None and held.twins[0].value == 30.0


def test_an_unchanged_value_is_refreshed_rarely() -> None:
    world = running()
    told = 0
    for _ in range(REFRESH_MS // 10_000):
        told += len(reports(world.after(10_000)))
        told += len(reports(world.update(world.value("temperature", 20.0), world.value("setpoint", 20.0, desired="20"))))
    assert told == 1


def test_an_acknowledged_desired_value_is_reported_at_once_with_its_cause() -> None:
    world = running()
    properties = device()["spec"]["properties"]
    properties[1]["desired"]["value"] = "25"
    world.device(device(properties=properties))
    change = world.core.devices("modbus")[0].trace
    world.after(10)
    out = world.update(world.value("setpoint", 25.0, desired="25"))
    [report] = reports(out)
    assert report.cause == change and report.trace == change
    assert [hop.what for hop in report.report.hops] == ["edge.applied"]
    # and what the device does later by itself is not put down to that change
    world.after(CHATTER_MS)
    [later] = reports(world.update(world.value("temperature", 99.0, quality="uncertain", reason="hot")))
    assert later.cause is None and later.trace is None and later.report.hops == []


def test_a_failed_write_is_reported_with_its_reason() -> None:
    world = running()
    failed = world.value("setpoint", 20.0, desired="20", reason="desired 999 is not written: too hot")
    [report] = reports(world.update(failed))
    assert [v.reason for v in report.report.twins if v.property == "setpoint"] == ["desired 999 is not written: too hot"]


def test_a_chattering_device_is_bounded() -> None:
    world = running()
    told = 0
    for i in range(1000):  # 10 s of a state that changes every 10 ms
        told += len(reports(world.after(10)))
        told += len(reports(world.update(state="offline" if i % 2 else "online")))
    assert told <= 10_000 // CHATTER_MS


def test_only_properties_for_the_cloud_are_reported_but_all_are_kept() -> None:
    world = World()
    world.model()
    properties = device()["spec"]["properties"]
    properties[0]["reportToCloud"] = False
    world.device(device(properties=properties))
    world.after(CHATTER_MS)
    [report] = reports(world.update(world.value("temperature", 1.0), world.value("setpoint", 20.0, desired="20")))
    assert [v.property for v in report.report.twins] == ["setpoint"]
    assert not reports(world.update(world.value("temperature", 2.0)))
    held = world.core.twin("default", "boiler")
    assert held is not None and {v.property for v in held.twins} == {"temperature", "setpoint"}


# --- order, lateness, strangers --------------------------------------------------------------------------------------


def held(world: World, prop: str = "temperature") -> Any:
    twin = world.core.twin("default", "boiler")
    assert twin is not None
    return next(v.value for v in twin.twins if v.property == prop)


def test_an_older_update_of_the_same_run_changes_nothing() -> None:
    world = running()
    world.update(world.value("temperature", 30.0), seq=50)
    out = world.update(world.value("temperature", 10.0), seq=49)
    assert answer(out).ok and held(world) == 30.0


def test_within_a_run_the_count_decides_even_if_the_clock_goes_back() -> None:
    world = running()
    world.update(world.value("temperature", 31.0, time=WALL - 3_600_000_000))
    assert held(world) == 31.0


def test_over_runs_the_time_decides_unless_the_clock_was_set_back() -> None:
    world = running()
    now = world.wall_us
    world.update(world.value("temperature", 40.0, time=now - 1_000_000), boot="b2", seq=1)
    assert held(world) == 20.0  # a second older: late
    world.update(world.value("temperature", 41.0, time=now - 86_400_000_000), boot="b3", seq=1)
    assert held(world) == 41.0  # a day older: the clock was set back


def test_a_retired_run_is_refused_until_the_new_one_is_silent() -> None:
    world = running()
    world.update(boot="b2", seq=1)
    refused = answer(world.update(world.value("temperature", 1.0), boot="b1"))
    assert not refused.ok and refused.known and "b2" in refused.message
    world.after(STALE_MS)
    assert answer(world.update(world.value("temperature", 1.0), boot="b1", seq=1000)).ok


def test_a_new_run_that_has_not_written_keeps_what_was_written() -> None:
    world = running()
    world.after(1000)
    world.update(world.value("setpoint", 20.0, desired=None), boot="b2", seq=1)
    twin = world.core.twin("default", "boiler")
    assert twin is not None and [v.desired for v in twin.twins if v.property == "setpoint"] == ["20"]


def test_updates_of_unknown_devices_are_refused() -> None:
    world = World()
    assert not answer(world.update()).known
    world = running()
    refused = answer(world.update(uid="another"))
    assert not refused.ok and not refused.known and "made anew" in refused.message


def test_properties_that_the_device_does_not_have_are_ignored() -> None:
    world = running()
    assert answer(world.update(world.value("colour", "red"))).ok
    twin = world.core.twin("default", "boiler")
    assert twin is not None and "colour" not in {v.property for v in twin.twins}


def test_silence_makes_a_device_unknown_once() -> None:
    world = running()
    [report] = reports(world.after(STALE_MS))
    assert report.report.state == "unknown" and "nothing heard" in report.report.message
    assert not reports(world.after(STALE_MS))
    assert [r.report.state for r in reports(world.update(world.value("temperature", 20.0)))] == ["online"]


def test_the_timer_is_always_set_for_what_is_due() -> None:
    """Whoever follows the timers and nothing else sees every report in time."""
    world = World()
    at: int | None = None

    def follow(out: list[Instruction]) -> list[Report]:
        nonlocal at
        for one in out:
            if isinstance(one, SetTimer):
                at = one.at_mono_us
        return reports(out)

    follow(world.model())
    follow(world.device(device()))
    told = [(world.mono_us, r.report.state) for r in follow(world.update(world.value("temperature", 1.0)))]
    follow(world.update(world.value("temperature", 2.0)))
    for _ in range(20):
        if at is None:
            break
        step, at = max(0, at - world.mono_us), None
        told += [(world.mono_us, r.report.state) for r in follow(world.after(-(-step // 1000)))]
    assert [state for _, state in told] == ["online", "online", "unknown"]


# --- deletion, restart, a full disk ----------------------------------------------------------------------------------


def test_a_deleted_device_leaves_nothing() -> None:
    world = running()
    assert world.store
    out = world.device(None)
    assert NotifyChanged("modbus") in out and world.store == {}
    assert world.core.twin("default", "boiler") is None
    assert world.after(STALE_MS) == []


def test_a_device_made_anew_starts_anew() -> None:
    world = running()
    out = world.device(device(), uid="u2")
    assert NotifyChanged("modbus") in out
    [report] = reports(world.after(CHATTER_MS))
    assert (report.report.uid, report.report.state, report.report.twins) == ("u2", "unknown", [])


def test_a_restart_goes_on_from_the_records_and_says_nothing_new() -> None:
    before = running()
    again = World(before.store)
    again.model()
    assert not reports(again.device(device()))
    assert again.loaded() == [] and not reports(again.after(CHATTER_MS))
    assert held(again, "setpoint") == 20.0
    out = again.update(again.value("temperature", 20.0, time=before.wall_us), boot="b2", seq=1)
    assert answer(out).ok and not reports(out)


def test_records_of_devices_that_are_gone_are_swept_once_all_is_loaded() -> None:
    again = World(running().store)
    assert again.loaded() == [PersistTwin(("default", "boiler"), b"twin/default/boiler", None)]


def test_a_damaged_record_costs_only_itself() -> None:
    core = TwinsCore(NODE, {**running().store, b"twin/default/other": b"\xff\x00garbage"}, 0)
    assert len(core.damaged) == 1 and "other" in core.damaged[0]
    assert core.twin("default", "boiler") is not None


def test_what_could_not_be_stored_is_reported_again() -> None:
    world = running()
    out = world.update(state="offline", message="gone")
    out += world.after(CHATTER_MS)
    assert len(reports(out)) == 1
    failed = world.core.handle(CommitFailed(world.wall_us, world.mono_us, (("default", "boiler"),)))
    [timer] = [one for one in failed if isinstance(one, SetTimer)]
    assert not reports(failed)
    [report] = reports(world.after((timer.at_mono_us - world.mono_us) // 1000))
    assert (report.report.state, report.report.message) == ("offline", "gone")


def test_all_is_said_again_when_the_log_may_have_lost_it() -> None:
    world = running()
    before = world.core.twin("default", "boiler")
    again = World(world.store)  # also after a restart, when the node remembers having told it
    for w in (world, again):
        if w is again:
            w.model()
            w.device(device())
            w.loaded()
        out = w._do(ReportAll(w.wall_us, w.mono_us))
        [report] = reports(out)
        assert before is not None
        assert [(t.property, t.value) for t in report.report.twins] == [(t.property, t.value) for t in before.twins]
        assert not reports(w.after(CHATTER_MS))
    nothing = World()
    nothing.model()
    nothing.device(device())
    assert not reports(nothing._do(ReportAll(nothing.wall_us, nothing.mono_us))), "what was never said is not repeated"
