"""What can be set about the engine, with unit, default and the reason for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """All in seconds unless the name says otherwise."""

    connect_timeout_s: float = 10.0  # slower than any device on a LAN; a driver may give up earlier
    call_timeout_s: float = 10.0  # one read or write, all retries of the driver included
    close_timeout_s: float = 2.0  # a device that doesn't let go must not hold up a change of its manifest
    reconnect_first_s: float = 0.5
    reconnect_cap_s: float = 60.0  # a repaired device is back within a minute
    write_tries: int = 5  # then the reason is reported, until the desired value changes or the device reconnects
    write_first_s: float = 1.0
    write_cap_s: float = 30.0
    readback_tries: int = 4  # some devices show a new set-point only after their own cycle
    readback_wait_s: float = 0.25
    list_first_s: float = 0.2
    list_cap_s: float = 5.0  # the daemon restarts in a few seconds
    refresh_s: float = 60.0  # change notices are not stored: one that was lost is made up for by then
    bus_timeout_s: float = 5.0  # the daemon answers after an fsync
    heartbeat_s: float = 10.0  # schemas.devices.HEARTBEAT_MS
    flush_s: float = 3.0  # at the end: for samples that are still on their way
