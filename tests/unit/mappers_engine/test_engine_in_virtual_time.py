"""What the engine does when: hours of it, in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from mappers.driver import BadValue, PropertyError
from tests.unit.mappers_engine import virtual_time
from tests.unit.mappers_engine.rig import Rig, device, now, prop, until


def test_reads_are_aligned_so_that_cycles_meet() -> None:
    async def story() -> None:
        rig = Rig()
        rig.things["one"].values = {"a": 1.0, "b": 2.0, "c": 3.0}
        properties = [prop(name, collect_cycle_ms=ms) for name, ms in (("a", 1000), ("b", 2000), ("c", 5000))]
        async with rig.engine(device("one", *properties)):
            await asyncio.sleep(10.5)
        assert [(round(at, 3), names) for at, names in rig.things["one"].reads] == [
            (0.0, ("a", "b", "c")),
            (1.0, ("a",)),
            (2.0, ("a", "b")),
            (3.0, ("a",)),
            (4.0, ("a", "b")),
            (5.0, ("a", "c")),
            (6.0, ("a", "b")),
            (7.0, ("a",)),
            (8.0, ("a", "b")),
            (9.0, ("a",)),
            (10.0, ("a", "b", "c")),
        ]

    virtual_time.run(story())


def test_a_slow_device_delays_nobody_and_misses_slots() -> None:
    async def story() -> None:
        rig = Rig()
        rig.things["one"].read_s = 3.3
        async with rig.engine(device("one"), device("two")):
            await asyncio.sleep(20.5)
        assert [round(at) for at, _ in rig.things["two"].reads] == list(range(21))
        assert [round(at, 1) for at, _ in rig.things["one"].reads] == [0.0, 4.0, 8.0, 12.0, 16.0, 20.0]
        assert [s.seq for s in rig.seen("t", "one")] == [1, 2, 3, 4, 5]

    virtual_time.run(story())


def test_reconnecting_backs_off_to_a_cap_and_starts_anew_after_success() -> None:
    async def story() -> None:
        rig = Rig()
        thing = rig.things["one"]
        thing.refuse = True
        async with rig.engine(device()):
            await asyncio.sleep(300)
            gaps = [round(b - a, 1) for a, b in zip(thing.connects, thing.connects[1:], strict=False)]
            assert gaps[:10] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
            assert rig.daemon.states["one"] == "offline" and rig.daemon.messages["one"] == "the thing refuses"
            assert [s.quality for s in rig.seen()] == ["bad"], "one sample an outage"
            thing.refuse = False
            assert await until(lambda: rig.daemon.states["one"] == "online") <= 60
            thing.refuse, first = True, len(thing.connects)
            await asyncio.sleep(5)
            gaps = [round(b - a, 1) for a, b in zip(thing.connects[first:], thing.connects[first + 1 :], strict=False)]
            assert gaps == [1.0, 2.0] and thing.open == 0

    virtual_time.run(story())


def test_a_device_that_hangs_is_lost_after_the_call_timeout() -> None:
    async def story() -> None:
        rig = Rig()
        rig.things["one"].hang = True
        async with rig.engine(device()):
            await until(lambda: rig.daemon.states.get("one") == "offline")
            assert round(now(), 1) == 10.0 and rig.daemon.messages["one"] == "no answer within 10 s"

    virtual_time.run(story())


def test_a_bug_in_a_driver_is_said_and_survived() -> None:
    async def story() -> None:
        rig = Rig()
        rig.things["one"].bug = KeyError("offset")
        async with rig.engine(device("one"), device("two")):
            await until(lambda: rig.daemon.states.get("one") == "offline")
            assert rig.daemon.messages["one"] == "bug in the driver: KeyError: 'offset'"
            rig.things["one"].bug = None
            await until(lambda: rig.daemon.states.get("one") == "online")
            assert rig.daemon.states["two"] == "online"

    virtual_time.run(story())


# --- what is told ----------------------------------------------------------------------------------------------------


def test_twins_are_told_on_change_and_every_report_cycle_telemetry_every_time() -> None:
    async def story() -> None:
        rig = Rig()
        async with rig.engine(device("one", prop(collect_cycle_ms=1000, report_cycle_ms=30_000))):
            await asyncio.sleep(5.5)
            rig.things["one"].values["t"] = 21.0
            await asyncio.sleep(55)
        told = [
            (round(at), u.values[0].value) for at, u in zip(rig.daemon.times, rig.daemon.updates, strict=True) if u.values
        ]
        assert told == [(0, 20.0), (6, 21.0), (36, 21.0)]
        assert len(rig.seen()) == 61 and [s.seq for s in rig.seen()] == list(range(1, 62))

    virtual_time.run(story())


def test_a_deadband_thins_telemetry_and_twins() -> None:
    async def story() -> None:
        rig = Rig()
        thing = rig.things["one"]
        properties = prop(collect_cycle_ms=1000, report_cycle_ms=20_000, visitor={"deadband": 0.5})
        async with rig.engine(device("one", properties)):
            for value in (20.1, 20.4, 20.5, 20.6, 20.9, 21.2, 21.2):
                await asyncio.sleep(1)
                thing.values["t"] = value
            await asyncio.sleep(20)
        assert [s.value for s in rig.seen()] == [20.0, 20.6, 21.2, 21.2]

    virtual_time.run(story())


def test_a_silent_device_gives_a_sign_of_life() -> None:
    async def story() -> None:
        rig = Rig()
        async with rig.engine(device("one", prop(collect_cycle_ms=3_600_000, report_cycle_ms=3_600_000))):
            await asyncio.sleep(60.5)
        assert [round(at) for at in rig.daemon.times] == [0, 10, 20, 30, 40, 50, 60]
        assert [u.seq for u in rig.daemon.updates] == list(range(1, 8))

    virtual_time.run(story())


def test_while_the_daemon_is_away_the_last_value_is_kept_and_sampling_goes_on() -> None:
    async def story() -> None:
        rig = Rig()
        async with rig.engine(device()):
            await asyncio.sleep(1.5)
            rig.daemon.available = False
            for value in range(30, 90):
                rig.things["one"].values["t"] = float(value)
                await asyncio.sleep(1)
            told = len(rig.daemon.updates)
            rig.daemon.available = True
            assert await until(lambda: len(rig.daemon.updates) > told) <= rig.settings.list_cap_s
            assert [v.value for v in rig.daemon.updates[told].values] == [89.0]
            assert len(rig.seen()) >= 61

    virtual_time.run(story())


def test_a_refused_twin_is_offered_again() -> None:
    async def story() -> None:
        rig = Rig()
        async with rig.engine(device("one", prop(collect_cycle_ms=3_600_000, report_cycle_ms=3_600_000))):
            rig.daemon.refuse = True
            await asyncio.sleep(5)
            assert rig.daemon.updates == []
            rig.daemon.refuse = False
            await until(lambda: bool(rig.daemon.updates))
            assert rig.twin().value == 20.0

    virtual_time.run(story())


# --- the list of devices ---------------------------------------------------------------------------------------------


def test_a_list_that_is_not_there_yet_is_waited_for() -> None:
    async def story() -> None:
        rig = Rig()
        rig.daemon.available = False
        async with rig.engine(device()):
            await asyncio.sleep(60)
            assert 12 <= rig.daemon.asked <= 18
            rig.daemon.available = True
            await until(lambda: bool(rig.seen()), limit_s=6)

    virtual_time.run(story())


def test_a_lost_notice_is_made_up_for() -> None:
    async def story() -> None:
        rig = Rig()
        async with rig.engine(device("one")):
            await asyncio.sleep(1)
            rig.daemon.set_devices(device("one"), device("two"), notify=False)
            assert await until(lambda: bool(rig.seen("t", "two"))) <= rig.settings.refresh_s

    virtual_time.run(story())


def test_a_daemon_that_does_not_know_a_device_makes_the_list_be_read_again() -> None:
    async def story() -> None:
        rig = Rig()
        async with rig.engine(device("one")):
            await asyncio.sleep(1)
            rig.daemon.set_devices(notify=False)
            assert await until(lambda: rig.things["one"].open == 0) <= rig.settings.heartbeat_s

    virtual_time.run(story())


def test_only_another_way_to_the_device_reconnects() -> None:
    async def story() -> None:
        rig = Rig()
        thing = rig.things["one"]
        async with rig.engine(device("one")):
            await asyncio.sleep(1)
            rig.daemon.set_devices(device("one", prop(desired="25", collect_cycle_ms=500), rev=2))
            await until(lambda: rig.twin().desired == "25")
            assert len(thing.connects) == 1
            rig.daemon.set_devices(device("one", config={"thing": "one", "address": 2}, rev=3))
            await until(lambda: len(thing.connects) == 2)
            await asyncio.sleep(1)
            assert thing.open == 1
        assert thing.open == 0

    virtual_time.run(story())


def test_sequences_go_on_when_a_device_goes_and_comes_back() -> None:
    async def story() -> None:
        rig = Rig()
        async with rig.engine(device("one")):
            await asyncio.sleep(2.5)
            rig.daemon.set_devices()
            await asyncio.sleep(5)
            rig.daemon.set_devices(device("one", uid="uid-new"))
            await asyncio.sleep(2.5)
        numbers = [s.seq for s in rig.seen()]
        assert numbers == list(range(1, 7)) and rig.daemon.updates[-1].uid == "uid-new"

    virtual_time.run(story())


# --- writing ---------------------------------------------------------------------------------------------------------


def test_a_refused_write_is_tried_a_bounded_number_of_times() -> None:
    async def story() -> None:
        rig = Rig()
        thing = rig.things["one"]
        thing.write_error = PropertyError("t", "locked")
        async with rig.engine(device("one", prop(desired="25"))):
            await asyncio.sleep(300)
            assert [round(at) for at, _, _ in thing.writes] == [0, 1, 3, 7, 15]
            assert rig.twin().reason == "desired 25 is not written (try 5 of 5): locked"
            assert (rig.twin().value, rig.twin().desired, rig.twin().quality) == (20.0, None, "good")
            thing.write_error = None
            rig.daemon.set_devices(device("one", prop(desired="26"), rev=2))
            await until(lambda: rig.twin().desired == "26")
            assert rig.twin().reason == ""

    virtual_time.run(story())


@pytest.mark.parametrize(
    ("desired", "reason"),
    [("warm", "'warm' is not a number"), ("99", "99 is above the maximum of 80"), ("nan", "'nan' is not a finite number")],
)
def test_a_value_that_can_not_be_is_not_even_tried(desired: str, reason: str) -> None:
    async def story() -> None:
        rig = Rig()
        async with rig.engine(device("one", prop(desired=desired, maximum="80"))):
            await asyncio.sleep(60)
        assert rig.things["one"].writes == [] and rig.twin().reason == f"desired {desired} is not written: {reason}"

    virtual_time.run(story())


def test_a_value_that_the_driver_can_not_express_is_not_tried_again() -> None:
    async def story() -> None:
        rig = Rig()
        rig.things["one"].write_error = BadValue("too fine")
        async with rig.engine(device("one", prop(desired="25"))):
            await asyncio.sleep(60)
        assert len(rig.things["one"].writes) == 1 and rig.twin().reason == "desired 25 is not written: too fine"

    virtual_time.run(story())


def test_a_write_that_does_not_show_is_a_failure() -> None:
    async def story() -> None:
        rig = Rig()
        rig.things["one"].ignores_writes = True
        async with rig.engine(device("one", prop(desired="25"))):
            await asyncio.sleep(60)
        assert rig.twin().reason.endswith("(try 5 of 5): written, but reads back 20.0") and rig.twin().desired is None

    virtual_time.run(story())


def test_a_device_that_shows_a_value_later_is_waited_for() -> None:
    async def story() -> None:
        rig = Rig()
        thing = rig.things["one"]
        thing.ignores_writes = True

        async def slowly() -> None:
            await until(lambda: bool(thing.writes))
            await asyncio.sleep(0.6)
            thing.values["t"] = 25.0

        showing = asyncio.create_task(slowly())
        async with rig.engine(device("one", prop(desired="25"))):
            await until(lambda: ("one", "t") in rig.daemon.twins and rig.twin().desired == "25")
        await showing
        assert len(thing.writes) == 1

    virtual_time.run(story())


def test_a_desired_value_that_the_device_has_is_not_written() -> None:
    async def story() -> None:
        rig = Rig()
        async with rig.engine(device("one", prop(desired="20"))):
            await asyncio.sleep(5)
        assert rig.things["one"].writes == [] and rig.twin().desired == "20"
        assert rig.daemon.updates[0].values[0].desired == "20", "acknowledged with the first reading"

    virtual_time.run(story())


def test_a_person_at_the_device_wins_until_the_device_restarts() -> None:
    async def story() -> None:
        rig = Rig()
        thing = rig.things["one"]
        async with rig.engine(device("one", prop(desired="25"))):
            await until(lambda: thing.values["t"] == 25.0)
            thing.values["t"] = 22.0
            await asyncio.sleep(60)
            assert thing.values["t"] == 22.0 and (rig.twin().value, rig.twin().desired) == (22.0, "25")
            thing.refuse = True
            await until(lambda: rig.daemon.states["one"] == "offline")
            thing.refuse = False
            await until(lambda: thing.values["t"] == 25.0)

    virtual_time.run(story())


def test_a_write_that_is_cut_off_is_made_after_the_reconnection() -> None:
    async def story() -> None:
        rig = Rig()
        thing = rig.things["one"]
        async with rig.engine(device("one")):
            await asyncio.sleep(1.5)
            thing.refuse = True
            rig.daemon.set_devices(device("one", prop(desired="25"), rev=2))
            await asyncio.sleep(30)
            assert rig.daemon.states["one"] == "offline" and rig.twin().quality == "uncertain"
            thing.refuse = False
            await until(lambda: rig.twin().desired == "25" and rig.daemon.states["one"] == "online")

    virtual_time.run(story())
