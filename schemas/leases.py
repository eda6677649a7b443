"""Who leads a role of the cloud: the last record of ``lease.<role>`` in LEASES."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class LeaseRecord(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    holder: str = Field(description="one life of one process; '' when it was given back")
    about: str = Field(default="", description="host and pid, for people")
