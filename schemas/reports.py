"""What a node reports: the ``data`` of REPORT events, and the beat that proves its link.

A report says what is, whole, per subject: the last one counts, so losing intermediate ones loses nothing.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.telemetry import Value

# The largest honest report is a device with a thousand properties, some 150 kB; the status of a pod has at most 12 kB of
# its containers' last words (Kubernetes, "Determine the Reason for Pod Failure").
REPORT_BYTES_MAX = 256 << 10  # an encoded event

Micros = Annotated[int, Field(ge=0)]


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)


class Hop(Model):
    """One step that happened on the node on the way from cause to report, for `skerry replay story`."""

    what: str = Field(description="edge.applied, container.started, twin.written ...")
    time: Micros
    about: str = ""


class NodeReport(Model):
    """Kind ``node``.  ``status`` is a Kubernetes NodeStatus without the Ready condition's link part (the cloud adds it)."""

    status: dict[str, Any] = Field(description="capacity, allocatable, addresses, nodeInfo, conditions, daemonEndpoints")
    labels: dict[str, str] = Field(default_factory=dict)
    ready: bool
    reason: str = Field(default="", description="why not ready, CamelCase, e.g. ContainerRuntimeDown")
    message: str = ""
    boot: str
    hops: list[Hop] = Field(default_factory=list)


class PodReport(Model):
    """Kind ``pod``.  ``status`` is a Kubernetes PodStatus; None says that the pod is gone from the node."""

    uid: str
    status: dict[str, Any] | None
    hops: list[Hop] = Field(default_factory=list)


class TwinValue(Model):
    property: str
    value: Value | None
    desired: str | None = Field(default=None, description="the desired value that was last written to the device")
    time: Micros
    quality: Literal["good", "uncertain", "bad"] = "good"
    reason: str = ""


class TwinReport(Model):
    """Kind ``twin``: the reported twin of one device, whole."""

    uid: str
    state: Literal["online", "offline", "unknown"]
    message: str = ""
    twins: list[TwinValue]
    hops: list[Hop] = Field(default_factory=list)


class EventReport(Model):
    """Kind ``event``: a Kubernetes Event about a pod or the node (Scheduled, Pulled, BackOff, Unhealthy ...)."""

    involved: dict[str, Any]
    type: Literal["Normal", "Warning"]
    reason: str
    message: str
    count: Annotated[int, Field(ge=1)] = 1
    first: Micros
    last: Micros


class Beat(Model):
    """``beat.<node>``: the sign of life of the link, not stored.  ``heads`` is the replica's cursor per scope."""

    boot: str
    time: Micros
    heads: dict[str, int] = Field(default_factory=dict)
    outbox: int = Field(default=0, description="reports not yet acknowledged")
    run: str = Field(default="", max_length=64, description="of this process: two that beat in turns are a cloned node")


RENEWED = b"renewed"  # the cloud asks for a beat (``cmd.<node>.beat``): the link was away, something may have been missed
RENEW = b"renew"  # as such a question: the node should fetch its credentials now, and what it should trust with them
# Begins the answer to a beat: another daemon spoke as this node, say everything again.  Alone, as the cloud's
# question for a beat: what the node said is no longer in the log (cloud/fairness.py).
AGAIN = b"again:"
FENCED = b"fenced"  # answer to a beat: another daemon holds this identity
