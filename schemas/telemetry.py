"""One sample of a device property, as it travels on ``telemetry.<node>.<device>.<property>`` (msgpack)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Value = bool | int | float | str | bytes
Quality = Literal["good", "uncertain", "bad"]  # OPC UA Part 8, 7.2: the three severities


class Sample(BaseModel):
    """``seq`` counts the samples of one property from 1 without gaps within one ``boot`` of the mapper, so a reader can
    prove that nothing was lost or doubled.  ``time`` is wall time in microseconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    value: Value | None
    quality: Quality = "good"
    reason: str = Field(default="", description="why the quality is not good")
    time: Annotated[int, Field(ge=0)]
    seq: Annotated[int, Field(ge=1)]
    boot: str = Field(description="one run of the mapper")
