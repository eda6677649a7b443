"""What any driver must show: a catalogue of cases, run through the real engine against a bench with the driver's device.

    results = await conformance.run(MyDriver, MyBench)     # or, in pytest:

    @pytest.mark.parametrize("case", conformance.CASES, ids=lambda c: c.__name__)
    async def test_my_driver(case): await conformance.check(case, MyDriver, MyBench)

A bench is a device (a simulator, or a real one behind a relay) that the suite can start, stop and cut off.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from mappers.driver import Device, DeviceUnreachable, Driver, PropertySpec
from mappers.engine import Engine
from mappers.memory import MemoryDaemon, MemorySamples
from mappers.settings import Settings
from schemas import subjects
from schemas.devices import DeviceConfig, Property
from schemas.reports import TwinValue
from schemas.telemetry import Sample

WAIT_S = 20.0  # for anything to happen: far above what it takes, a loaded machine must not fail a driver
CYCLE_MS = 50
FAST = Settings(
    connect_timeout_s=3.0,
    call_timeout_s=3.0,
    reconnect_first_s=0.05,
    reconnect_cap_s=0.2,
    write_first_s=0.05,
    write_cap_s=0.2,
    readback_wait_s=0.05,
    heartbeat_s=1.0,
)


class Bench(Protocol):
    """One device of the driver's kind.  After ``stop`` and ``start`` it is at the same address."""

    async def start(self) -> None: ...

    async def stop(self) -> None:
        """Unreachable from now on."""

    async def drop(self) -> None:
        """Present connections are cut, new ones are taken."""

    async def close(self) -> None:
        """The end, from any state."""

    def show(self, value: float) -> None:
        """What the readable property reads from now on (a number between 0 and 100 with one decimal)."""

    def config(self) -> dict[str, Any]:
        """protocol.configData that reaches it."""

    def bad_config(self) -> dict[str, Any]:
        """protocol.configData that the driver must refuse."""

    def readable(self) -> dict[str, Any]:
        """visitors.configData of a DOUBLE that can be read."""

    def writable(self) -> dict[str, Any]:
        """... that can be read and written: 25.5 and 30 at least."""

    def missing(self) -> dict[str, Any]:
        """... that is well-formed, but the device doesn't have it."""

    def bad_visitor(self) -> dict[str, Any]:
        """... that the driver must refuse before it asks the device."""


class Kit:
    """What a case works with: benches, devices, a running engine, and what came out of it."""

    def __init__(self, make_driver: Callable[[], Driver], make_bench: Callable[[], Bench], stack: AsyncExitStack) -> None:
        self.make_driver = make_driver
        self._make_bench = make_bench
        self._stack = stack
        self.daemon = MemoryDaemon()
        self.samples = MemorySamples()
        self._uids = itertools.count(1)

    async def bench(self, *, started: bool = True) -> Bench:
        bench = self._make_bench()
        self._stack.push_async_callback(bench.close)
        await bench.start()
        if not started:
            await bench.stop()
        return bench

    def device(self, bench: Bench, name: str = "one", **more: Any) -> DeviceConfig:
        fields: dict[str, Any] = {
            "namespace": "default",
            "name": name,
            "uid": f"uid-{name}",
            "model": "model",
            "protocol": "any",
            "config": bench.config(),
            "properties": [self.readable(bench), self.writable(bench)],
            "rev": 1,
        }
        return DeviceConfig(**{**fields, **more})

    def property(self, name: str, visitor: dict[str, Any], **more: Any) -> Property:
        fields: dict[str, Any] = {
            "name": name,
            "type": "DOUBLE",
            "writable": False,
            "collect_cycle_ms": CYCLE_MS,
            "report_cycle_ms": CYCLE_MS,
            "visitor": visitor,
        }
        return Property(**{**fields, **more})

    def readable(self, bench: Bench, **more: Any) -> Property:
        return self.property("readable", bench.readable(), **more)

    def writable(self, bench: Bench, **more: Any) -> Property:
        return self.property("writable", bench.writable(), **{"writable": True, **more})

    async def engine(self, *devices: DeviceConfig) -> None:
        self.daemon.set_devices(*devices)
        engine = Engine(
            self.make_driver,
            self.daemon,
            self.samples,
            boot="conformance",
            wall_us=lambda: time.time_ns() // 1000,
            random=random.random,
            settings=FAST,
        )
        await self._stack.enter_async_context(_running(engine.run()))

    def seen(self, prop: str = "readable", device: str = "one") -> list[Sample]:
        return self.samples.by_subject.get(subjects.telemetry(self.daemon.node, "default", device, prop), [])

    def twin(self, prop: str = "readable", device: str = "one") -> TwinValue | None:
        return self.daemon.twins.get((device, prop))

    def state(self, device: str = "one") -> str:
        return self.daemon.states.get(device, "")

    def message(self, device: str = "one") -> str:
        return self.daemon.messages.get(device, "")

    async def until(self, what: str, true: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(WAIT_S):
                while not true():  # noqa: ASYNC110 (what is waited for is a device's state, which tells nobody)
                    await asyncio.sleep(0.01)
        except TimeoutError as e:
            told = f"states {self.daemon.states}, messages {self.daemon.messages}, twins {self.daemon.twins}"
            raise AssertionError(f"not within {WAIT_S:g} s: {what}; {told}") from e

    async def until_reads(self, value: float, device: str = "one") -> None:
        def reads() -> bool:
            twin = self.twin(device=device)
            return twin is not None and twin.value == value and twin.quality == "good"

        await self.until(f"{device} reads {value}", reads)

    def contiguous(self, prop: str = "readable", device: str = "one") -> None:
        numbers = [sample.seq for sample in self.seen(prop, device)]
        assert numbers == list(range(1, len(numbers) + 1)), f"samples of {device}.{prop} are numbered {numbers[:50]}..."


# --- the cases -------------------------------------------------------------------------------------------------------


async def reads_what_the_device_shows(kit: Kit) -> None:
    bench = await kit.bench()
    bench.show(21.5)
    await kit.engine(kit.device(bench))
    await kit.until_reads(21.5)
    bench.show(42.5)
    await kit.until_reads(42.5)
    assert kit.state() == "online" and kit.message() == ""
    kit.contiguous()
    assert {21.5, 42.5} <= {sample.value for sample in kit.seen()}


async def writes_and_reads_back(kit: Kit) -> None:
    bench = await kit.bench()
    await kit.engine(kit.device(bench, properties=[kit.writable(bench, desired="25.5")]))

    def holds(text: str) -> Callable[[], bool]:
        def check() -> bool:
            twin = kit.twin("writable")
            return twin is not None and twin.desired == text and twin.value == float(text)

        return check

    await kit.until("25.5 is acknowledged", holds("25.5"))
    kit.daemon.set_devices(kit.device(bench, properties=[kit.writable(bench, desired="30")], rev=2))
    await kit.until("30 is acknowledged", holds("30"))
    assert [hop.what for hop in kit.daemon.hops][-3:] == ["mapper.told", "device.written", "device.read-back"]


async def writes_again_what_the_device_forgot(kit: Kit) -> None:
    """A new engine finds the device with another value."""
    bench = await kit.bench()
    first = [kit.writable(bench, desired="30")]
    driver = kit.make_driver()
    config = type(driver).device_config.model_validate(bench.config())
    spec = PropertySpec("writable", "DOUBLE", type(driver).visitor_config.model_validate(bench.writable()), True)
    await driver.connect(Device("default", "one", config))
    await driver.write(spec, 25.5)
    await driver.close()
    await kit.engine(kit.device(bench, properties=first))
    await kit.until("30 is written over 25.5", lambda: (t := kit.twin("writable")) is not None and t.value == 30.0)


async def comes_when_the_device_comes(kit: Kit) -> None:
    bench = await kit.bench(started=False)
    await kit.engine(kit.device(bench))
    await kit.until("offline", lambda: kit.state() == "offline")
    assert kit.message(), "an unreachable device says why"
    await bench.start()
    bench.show(33.0)
    await kit.until_reads(33.0)
    assert kit.state() == "online"
    kit.contiguous()


async def survives_a_cut_connection(kit: Kit) -> None:
    bench = await kit.bench()
    await kit.engine(kit.device(bench))
    for value in (11.0, 12.0, 13.0):
        bench.show(value)
        await kit.until_reads(value)
        await bench.drop()
    bench.show(14.0)
    await kit.until_reads(14.0)
    kit.contiguous()


async def survives_a_restart_of_the_device(kit: Kit) -> None:
    bench = await kit.bench()
    bench.show(11.0)
    await kit.engine(kit.device(bench))
    await kit.until_reads(11.0)
    await bench.stop()
    await kit.until("offline", lambda: kit.state() == "offline")
    twin, last = kit.twin(), kit.seen()[-1]
    assert twin is not None and (twin.value, twin.quality) == (11.0, "uncertain"), "the last value stays, as uncertain"
    assert (last.value, last.quality) == (None, "bad") and last.reason, "telemetry says that the device was lost"
    await bench.start()
    bench.show(12.0)
    await kit.until_reads(12.0)
    kit.contiguous()


async def says_which_property_is_configured_badly(kit: Kit) -> None:
    bench = await kit.bench()
    bench.show(11.0)
    properties = [kit.readable(bench), kit.property("crooked", bench.bad_visitor())]
    await kit.engine(kit.device(bench, properties=properties))
    await kit.until_reads(11.0)
    await kit.until("the crooked one is told", lambda: kit.twin("crooked") is not None)
    twin = kit.twin("crooked")
    assert twin is not None and (twin.value, twin.quality) == (None, "bad")
    assert "default/one" in twin.reason and "crooked" in twin.reason
    kit.daemon.set_devices(
        kit.device(bench, properties=[kit.readable(bench), kit.property("crooked", bench.readable())], rev=2)
    )
    await kit.until("corrected without a restart", lambda: (t := kit.twin("crooked")) is not None and t.quality == "good")


async def says_which_device_is_configured_badly(kit: Kit) -> None:
    bench = await kit.bench()
    bench.show(11.0)
    await kit.engine(kit.device(bench, config=bench.bad_config()))
    await kit.until("refused", lambda: "default/one" in kit.message())
    assert kit.state() != "online"
    kit.daemon.set_devices(kit.device(bench, rev=2))
    await kit.until_reads(11.0)


async def one_missing_property_costs_only_itself(kit: Kit) -> None:
    bench = await kit.bench()
    bench.show(11.0)
    await kit.engine(kit.device(bench, properties=[kit.property("absent", bench.missing()), kit.readable(bench)]))
    await kit.until_reads(11.0)
    await kit.until("the absent one is told", lambda: kit.twin("absent") is not None)
    twin = kit.twin("absent")
    assert twin is not None and twin.quality == "bad" and twin.reason
    assert kit.state() == "online"


async def two_devices_are_independent(kit: Kit) -> None:
    good, dead = await kit.bench(), await kit.bench(started=False)
    good.show(11.0)
    await kit.engine(kit.device(good), kit.device(dead, "two"))
    await kit.until_reads(11.0)
    await kit.until("two is offline", lambda: kit.state("two") == "offline")
    before = len(kit.seen())
    await kit.until("one goes on", lambda: len(kit.seen()) > before + 5)
    await dead.start()
    dead.show(22.0)
    await kit.until_reads(22.0, "two")
    assert kit.twin() is not None and kit.state("one") == "online"


async def a_value_out_of_range_is_uncertain(kit: Kit) -> None:
    bench = await kit.bench()
    bench.show(99.5)
    await kit.engine(kit.device(bench, properties=[kit.readable(bench, minimum="0", maximum="80", unit="C")]))
    await kit.until("read", lambda: kit.twin() is not None)
    twin = kit.twin()
    assert twin is not None and (twin.value, twin.quality) == (99.5, "uncertain")
    assert twin.reason == "99.5 C is above the maximum of 80 C"


async def a_desired_value_out_of_range_is_not_written(kit: Kit) -> None:
    bench = await kit.bench()
    await kit.engine(kit.device(bench, properties=[kit.writable(bench, desired="25.5", maximum="40")]))
    await kit.until("written", lambda: (t := kit.twin("writable")) is not None and t.desired == "25.5")
    kit.daemon.set_devices(kit.device(bench, properties=[kit.writable(bench, desired="99", maximum="40")], rev=2))
    await kit.until("refused", lambda: (t := kit.twin("writable")) is not None and "99 is above the maximum" in t.reason)
    twin = kit.twin("writable")
    assert twin is not None and (twin.value, twin.desired) == (25.5, "25.5"), "the device keeps what it had"


async def a_removed_device_is_let_go(kit: Kit) -> None:
    bench = await kit.bench()
    await kit.engine(kit.device(bench))
    await kit.until("read", lambda: len(kit.seen()) > 2)
    kit.daemon.set_devices()
    other = await kit.bench()
    kit.daemon.set_devices(kit.device(other, "two"))
    await kit.until("two reads", lambda: len(kit.seen(device="two")) > 0)
    count = len(kit.seen())
    await kit.until("two goes on", lambda: len(kit.seen(device="two")) > 5)
    assert len(kit.seen()) == count, "a removed device is not read any more"


async def a_driver_can_be_closed_in_any_state(kit: Kit) -> None:
    bench = await kit.bench()
    driver = kit.make_driver()
    config = type(driver).device_config.model_validate(bench.config())
    spec = PropertySpec("readable", "DOUBLE", type(driver).visitor_config.model_validate(bench.readable()))
    await driver.close()
    for _ in range(2):
        await driver.connect(Device("default", "one", config))
        reading = asyncio.create_task(_read(driver, spec))
        await asyncio.sleep(0)
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading
        await driver.close()
        await driver.close()
    try:
        await driver.read([spec])
    except DeviceUnreachable:
        return
    raise AssertionError("a closed driver still reads")


async def _read(driver: Driver, spec: PropertySpec) -> None:
    await driver.read([spec])


Case = Callable[[Kit], Awaitable[None]]
CASES: tuple[Case, ...] = (
    reads_what_the_device_shows,
    writes_and_reads_back,
    writes_again_what_the_device_forgot,
    comes_when_the_device_comes,
    survives_a_cut_connection,
    survives_a_restart_of_the_device,
    says_which_property_is_configured_badly,
    says_which_device_is_configured_badly,
    one_missing_property_costs_only_itself,
    two_devices_are_independent,
    a_value_out_of_range_is_uncertain,
    a_desired_value_out_of_range_is_not_written,
    a_removed_device_is_let_go,
    a_driver_can_be_closed_in_any_state,
)


# --- running them ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Result:
    """``error`` is "" when the case passed."""

    name: str
    error: str


async def check(case: Case, make_driver: Callable[[], Driver], make_bench: Callable[[], Bench]) -> None:
    """One case; raises AssertionError (or whatever the driver threw)."""
    async with AsyncExitStack() as stack:
        await case(Kit(make_driver, make_bench, stack))


async def run(make_driver: Callable[[], Driver], make_bench: Callable[[], Bench]) -> list[Result]:
    """All cases, one after the other, none hides another."""
    results = []
    for case in CASES:
        name = getattr(case, "__name__", str(case))
        try:
            await check(case, make_driver, make_bench)
        except Exception as e:  # whatever a driver throws is its result
            results.append(Result(name, f"{type(e).__name__}: {e}"))
        else:
            results.append(Result(name, ""))
    return results


@asynccontextmanager
async def _running(work: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
