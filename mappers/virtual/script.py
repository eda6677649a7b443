"""What a virtual device does, as written in its manifest.  Counts, not chance: the same script gives the same story.

    protocol:
      protocolName: virtual
      configData:
        connect: {refuse: 3, delayMs: 200}      # the first three connections are refused, each takes 0.2 s
        disconnectAfter: 50                     # every connection breaks after 50 reads
        slow: {every: 10, delayMs: 3000}        # each tenth read takes three seconds
    properties:
      - name: temperature
        visitors:
          protocolName: virtual
          configData:
            ramp: {from: 20, to: 30, step: 0.5} # or  value: 21.5   or  sequence: [1, 2, "broken", 4]
            wrongType: {every: 7}               # each seventh reading is a text
            fail: {every: 9, reason: no sensor} # each ninth reading is refused
            write: {refuse: 2, reason: locked}  # the first two writes are refused

A written value is what is read from then on.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

DELAY_MS_MAX = 600_000  # a script that sleeps longer is a mistake
SEQUENCE_MAX = 10_000
WRONG = "not a number"

Scalar = bool | int | float | str
Count = Annotated[int, Field(ge=0)]
Delay = Annotated[int, Field(ge=0, le=DELAY_MS_MAX)]


class Script(BaseModel):
    # A typo in a script would silently test nothing: unknown fields are refused.
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class Connecting(Script):
    refuse: Count = 0
    delay_ms: Delay = 0


class Slow(Script):
    every: Annotated[int, Field(ge=1)] = 1
    delay_ms: Delay = 1000


class DeviceScript(Script):
    connect: Connecting = Connecting()
    disconnect_after: Count = Field(default=0, description="reads of one connection; 0: never")
    slow: Slow | None = None
    world: str = Field(default="", description="a name under which a test in the same process drives the device")


class Ramp(Script):
    start: float = Field(default=0.0, alias="from")
    end: float = Field(default=100.0, alias="to")
    step: float = 1.0

    @model_validator(mode="after")
    def _moves(self) -> Ramp:
        if self.step == 0 or (self.end - self.start) * self.step < 0:
            raise ValueError(f"a ramp from {self.start:g} to {self.end:g} is never walked with a step of {self.step:g}")
        return self


class Every(Script):
    every: Annotated[int, Field(ge=1)] = 1
    reason: str = "scripted"


class Refuse(Script):
    refuse: Count = 0
    reason: str = "scripted"


class PropertyScript(Script):
    """One source of readings: ``value`` (the default), ``sequence`` or ``ramp``."""

    value: Scalar = 0
    sequence: Annotated[list[Scalar], Field(max_length=SEQUENCE_MAX)] = Field(default_factory=list)
    ramp: Ramp | None = None
    missing: bool = Field(default=False, description="the device doesn't have this property")
    wrong_type: Every | None = None
    fail: Every | None = None
    write: Refuse = Refuse()

    @model_validator(mode="before")
    @classmethod
    def _one_source(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and sum(key in raw for key in ("value", "sequence", "ramp")) > 1:
            raise ValueError("only one of value, sequence and ramp can be the source of readings")
        return raw

    def reading(self, n: int) -> Scalar:
        """The ``n``-th reading, from 0."""
        if self.wrong_type and (n + 1) % self.wrong_type.every == 0:
            return WRONG
        if self.sequence:
            return self.sequence[n % len(self.sequence)]
        if self.ramp:
            steps = int((self.ramp.end - self.ramp.start) / self.ramp.step) + 1
            return self.ramp.start + n % steps * self.ramp.step
        return self.value
