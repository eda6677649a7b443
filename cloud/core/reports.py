"""What the edges report, into the API: the decisions.

It holds two folds, what the nodes said last (REPORT, and the beats of their links) and what the API shows, and
writes where they differ.  Each object is settled on its own, one write in flight for each: a write that is lost, refused
for a conflict or overtaken is found again by comparing, never by a queue that could be lost with the process.

What users see of a cut link:

* the Node's conditions become Unknown, reason LinkLost, message ``unknown since <time>``, and it is tainted
  ``node.kubernetes.io/unreachable:NoSchedule``;
* its pods keep their phase; their Ready condition becomes Unknown.  Nothing is evicted, however long it lasts;
* its devices keep the state that was reported last; ``lastOnlineTime`` says how old that is.

A node speaks only for what is its own: pods bound to it, devices placed on it, itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cloud.core import attempts, kubelets, links, status
from cloud.core import report_folds as folds
from cloud.core.report_folds import DEVICES
from cloud.core.report_words import (
    ApiEvent,
    BeatSeen,
    Complain,
    DoorsShut,
    Duplicate,
    Instruction,
    LinkDown,
    Loaded,
    Reported,
    Stimulus,
    Tick,
    WriteConflict,
    WriteFailed,
    WriteRefused,
    Written,
)
from cloud.core.writes import Write
from schemas import codec, reports, times
from schemas.subjects import ObjectKey

# A silent node: a beat comes every 300 s (bus/link.py, at most 10 % later), and for the last 30 s of this it is asked for
# one, three times.  A link that ends with a word is lost after some 10 s (cloud/hints.py); Kubernetes waits for 50 s.
GRACE_US = 360 * times.US_PER_S
EVENT_TTL_US = 3600 * times.US_PER_S  # Kubernetes keeps Events for an hour (--event-ttl)
# New Events that a node may tell: each is an object, and a tombstone after.  Clients of Kubernetes let themselves tell 25 of
# an object at once and one in five minutes (client-go, tools/record, EventSourceObjectSpamFilter); a node has some objects.
EVENTS_AT_ONCE = 500
EVENT_EVERY_US = 10 * times.US_PER_S
WRITES_IN_FLIGHT_MAX = 64  # an API write is one append and one read back; beyond this they only wait in the hub
CONFLICT_US = 5 * times.US_PER_S  # the API tells of the other write within milliseconds; this is the safety net
GONE_UNMATCHED_MAX = 4096  # reports that a pod is gone whose pod isn't known (yet): the oldest are forgotten

FOLDED = frozenset({("", "nodes"), ("", "pods"), ("", "events"), (DEVICES, "devices"), (DEVICES, "devicestatuses")})


class Reports:
    """``handle`` is the only mutator.  ``grace_us``: how long a link may be silent before it counts as lost.  ``kubelet``:
    what Nodes say of theirs, where it is served in the cloud; else they say what they say themselves."""

    def __init__(self, grace_us: int = GRACE_US, kubelet: kubelets.Kubelet | None = None) -> None:
        self._kubelets = kubelets.Ports(kubelet) if kubelet is not None else None
        self._loaded = False
        self._now_us = 0
        self._links = links.Links(grace_us)
        self._objects: dict[ObjectKey, folds.Known] = {}
        self._pods_on: dict[str, dict[ObjectKey, None]] = {}
        self._devices_on: dict[str, dict[ObjectKey, str]] = {}  # with the name of the model of each
        self._nodes: dict[str, folds.Said[reports.NodeReport]] = {}
        self._pods: dict[tuple[str, ObjectKey], folds.Said[reports.PodReport]] = {}
        self._gone: dict[tuple[str, ObjectKey], folds.Said[reports.PodReport]] = {}
        self._twins: dict[tuple[str, ObjectKey], folds.Said[reports.TwinReport]] = {}
        self._twins_on: dict[str, dict[ObjectKey, None]] = {}  # statuses of the devices that are on a node now
        self._events: dict[ObjectKey, folds.Said[reports.EventReport]] = {}
        self._told: dict[str, int] = {}  # node -> until when its share of new Events is spent, were there one each time
        # node -> what is said of it under a condition of the cloud's own; "" that it is over
        self._marks: dict[str, dict[str, str]] = {mark: {} for mark in status.MARKS}
        # When a Node was deleted, by the log's clock: only a later report registers it again.  One that is told after the
        # deletion was is later, whatever the clocks say.
        self._buried: dict[str, int] = {}
        self._writes = attempts.Attempts(WRITES_IN_FLIGHT_MAX, self._lane_of)
        self._out: list[Instruction] = []

    @property
    def idle(self) -> bool:
        """Nothing in flight and nothing owed."""
        return self._loaded and self._writes.idle

    def link_unknown(self, node: str) -> str | None:
        return self._links.unknown(node)

    def spoken_for(self, node: str, boot: str) -> bool:
        """Whether another machine than the one that was booted as ``boot`` (or the beginning of it) said something that
        counts: of the node, its pods or its devices."""
        said: list[folds.Said[Any] | None] = [self._nodes.get(node)]
        said += [self._pods.get((node, key)) for key in self._pods_on.get(node, ())]
        said += [self._twins.get((node, key)) for key in self._twins_on.get(node, ())]
        return bool(boot) and any(s is not None and s.event.boot and not s.event.boot.startswith(boot) for s in said)

    # --- the one mutator -------------------------------------------------------------------------------------------

    def handle(self, stimulus: Stimulus) -> list[Instruction]:
        handler: Callable[[Any], None] = self._HANDLERS[type(stimulus)].__get__(self)
        handler(stimulus)
        while (key := self._writes.next()) is not None:
            write = self._owed(key)
            if write is not None:
                self._writes.begin(key, write.rev)
                self._out.append(write)
        out, self._out = self._out, []
        return out

    def _api_event(self, s: ApiEvent) -> None:
        key = s.key
        if (key.group, key.resource) not in FOLDED:
            return
        old = self._objects.get(key)
        if old is not None and s.rev <= old.rev:
            return  # told twice
        if s.object is not None and not folds.shaped(s.object):
            self._out.append(Complain(s.rev, str(key), "metadata, spec or status is not a map"))
            return
        if old is not None and key.resource == "pods":
            self._pods_on.get(old.node, {}).pop(key, None)
        if old is not None and key.resource == "devices":
            self._twins_on.get(old.node, {}).pop(folds.status_of(key), None)
        if key.resource == "devices":
            self._place_device(key, old, s.object)
        if key.resource == "nodes" and self._kubelets is not None:
            self._kubelets.seen(key.name, s.object)
        if s.object is None:
            self._objects.pop(key, None)
            self._removed(key, old, s.time_us)
        else:
            known = self._objects[key] = folds.Known(s.rev, s.object)
            self._changed(key, known)
        if self._writes.shown(key, s.rev) and self._loaded:
            self._settle(key)

    def _place_device(self, key: ObjectKey, old: folds.Known | None, obj: dict[str, Any] | None) -> None:
        """A node offers the devices that are bound to it, by their model."""
        now = folds.Known(0, obj) if obj is not None else None
        for known in (old, now):
            if known is not None and known.node:
                self._devices_on.setdefault(known.node, {}).pop(key, None)
                if self._loaded:
                    self._settle(folds.node(known.node))
        if now is not None and now.node:
            model = now.object.get("spec", {}).get("deviceModelRef")
            self._devices_on[now.node][key] = str(model.get("name") or "") if isinstance(model, dict) else ""

    def _changed(self, key: ObjectKey, known: folds.Known) -> None:
        match key.resource:
            case "pods" if known.node:
                self._pods_on.setdefault(known.node, {})[key] = None
            case "nodes":
                self._buried.pop(key.name, None)
                if self._loaded and not self._links.knows(key.name) and folds.is_edge(known):
                    self._links.seen(key.name, self._now_us)  # its grace begins now
            case "devices":
                if known.node:
                    self._twins_on.setdefault(known.node, {})[folds.status_of(key)] = None
                self._settle(folds.status_of(key))

    def _removed(self, key: ObjectKey, old: folds.Known | None, time_us: int) -> None:
        match key.resource:
            case "pods" if old is not None:
                for said in (self._pods, self._gone):
                    if (mine := said.get((old.node, key))) is not None and mine.report.uid == old.uid:
                        del said[old.node, key]
            case "nodes":
                self._links.forget(key.name)
                self._buried[key.name] = time_us
                if (last := self._nodes.get(key.name)) is not None and last.time_us <= time_us:
                    del self._nodes[key.name]

    def _reported(self, s: Reported) -> None:
        ev = s.event
        if self._loaded and self._links.unknown(ev.scope) is None and self._links.knows(ev.scope):
            self._links.seen(ev.scope, self._now_us)  # but only a beat revives a link: a report may have waited on the way
        reader = self._READERS.get(ev.resource)
        if reader is None:
            self._out.append(Complain(s.seq, f"{ev.scope} {ev.resource}", "not a kind of report that is known here"))
            return
        try:
            reader.__get__(self)(s)
        except codec.DecodeError as e:
            self._out.append(Complain(s.seq, f"{ev.scope} {ev.resource} {ev.namespace}/{ev.name}", str(e)))

    def _node_report(self, s: Reported) -> None:
        said = folds.said(reports.NodeReport, s)
        if self._loaded or said.time_us > self._buried.get(said.node, -1):
            self._nodes[said.node] = said
            self._settle(folds.node(said.node))

    def _pod_report(self, s: Reported) -> None:
        said = folds.said(reports.PodReport, s)
        key = ObjectKey("", "pods", s.event.namespace, s.event.name)
        at = (said.node, key)
        self._pods.pop(at, None)
        self._gone.pop(at, None)
        known = self._objects.get(key)
        if said.report.status is None and (known is None or known.uid != said.report.uid):
            self._gone[at] = said
            if len(self._gone) > GONE_UNMATCHED_MAX:
                del self._gone[next(iter(self._gone))]
        else:
            self._pods[at] = said
        self._settle(key)

    def _twin_report(self, s: Reported) -> None:
        said = folds.said(reports.TwinReport, s)
        key = ObjectKey(DEVICES, "devicestatuses", s.event.namespace, s.event.name)
        self._twins[said.node, key] = said
        self._settle(key)

    def _event_report(self, s: Reported) -> None:
        said = folds.said(reports.EventReport, s)
        key = status.event_key(said.node, f"{s.event.namespace}/{s.event.name}", said.report)
        if self._loaded and key not in self._events and key not in self._objects:
            told = self._told.get(said.node, 0)
            if told > said.time_us + EVENT_EVERY_US:
                told = 0  # the log's clock was set back
            spent = max(told, said.time_us - EVENTS_AT_ONCE * EVENT_EVERY_US)
            if spent >= said.time_us:
                self._out.append(Complain(s.seq, f"{said.node} event", "tells more Events than a node may"))
                return
            self._told[said.node] = spent + EVENT_EVERY_US
        self._events[key] = said
        self._settle(key)

    def _load_done(self, s: Loaded) -> None:
        """A node that was Unknown stays so until it is heard; any other has its grace from now."""
        self._loaded, self._now_us = True, s.now_us
        for key, known in self._objects.items():
            if key.resource == "nodes" and (folds.is_edge(known) or key.name in self._nodes):
                for mark, told in self._marks.items():
                    if message := status.marked(known.object, mark):
                        told.setdefault(key.name, message)
                since = status.unknown_since(known.object)
                if since is not None:
                    self._links.remember_lost(key.name, since)
                else:
                    self._links.seen(key.name, s.now_us)
        for key in [*map(folds.node, self._nodes), *self._objects, *(k for _, k in self._twins), *self._events]:
            self._settle(key)

    def _tick(self, s: Tick) -> None:
        self._now_us = max(self._now_us, s.now_us)
        if self._loaded:
            for node in self._links.expire(self._now_us):
                self._settle_node(node)
        self._writes.tick(self._now_us)

    def _beat(self, s: BeatSeen) -> None:
        self._now_us = max(self._now_us, s.now_us)
        if self._loaded:
            self._alive(s.node)

    def _link_down(self, s: LinkDown) -> None:
        self._now_us = max(self._now_us, s.now_us)
        if self._loaded and self._links.knows(s.node) and self._links.lost(s.node, self._now_us):
            self._settle_node(s.node)

    def _duplicate(self, s: Duplicate) -> None:
        self._now_us = max(self._now_us, s.now_us)
        self._mark(status.DUPLICATE, s.node, s.message)

    def _doors_shut(self, s: DoorsShut) -> None:
        self._now_us = max(self._now_us, s.now_us)
        for node in [*self._marks[status.FLOODING], *s.nodes]:
            self._mark(status.FLOODING, node, s.nodes.get(node, ""))

    def _mark(self, mark: str, node: str, message: str) -> None:
        told = self._marks[mark]
        if message != told.get(node, ""):
            told[node] = message
            self._settle(folds.node(node))

    def _written(self, s: Written) -> None:
        self._writes.done(s.key, s.rev, self._now_us)

    def _conflict(self, s: WriteConflict) -> None:
        self._writes.conflict(s.key, self._now_us + CONFLICT_US)

    def _failed(self, s: WriteFailed) -> None:
        self._writes.failed(s.key, self._now_us)

    def _refused(self, s: WriteRefused) -> None:
        self._writes.refused(s.key)

    _HANDLERS: dict[type, Callable[..., None]] = {  # noqa: RUF012 - one table for the class, never changed
        ApiEvent: _api_event,
        Reported: _reported,
        Loaded: _load_done,
        BeatSeen: _beat,
        LinkDown: _link_down,
        Duplicate: _duplicate,
        DoorsShut: _doors_shut,
        Tick: _tick,
        Written: _written,
        WriteConflict: _conflict,
        WriteFailed: _failed,
        WriteRefused: _refused,
    }
    _READERS: dict[str, Callable[..., None]] = {  # noqa: RUF012 - as above
        "node": _node_report,
        "pod": _pod_report,
        "twin": _twin_report,
        "event": _event_report,
    }

    # --- links -----------------------------------------------------------------------------------------------------

    def _alive(self, node: str) -> None:
        """Only nodes that the API or a report knows: a beat alone makes no node."""
        if (self._links.knows(node) or node in self._nodes) and self._links.seen(node, self._now_us):
            self._settle_node(node)

    def _settle_node(self, node: str) -> None:
        self._settle(folds.node(node))
        for key in self._pods_on.get(node, ()):
            self._settle(key)

    # --- what is owed ----------------------------------------------------------------------------------------------

    def _lane_of(self, key: ObjectKey) -> str:
        """Whose writes an object waits among: its node's."""
        match key.resource:
            case "nodes":
                return key.name
            case "events":
                return said.node if (said := self._events.get(key)) is not None else ""
            case "devicestatuses":
                known = self._objects.get(ObjectKey(DEVICES, "devices", key.namespace, key.name))
            case _:
                known = self._objects.get(key)
        return known.node if known is not None else ""

    def _settle(self, key: ObjectKey) -> None:
        if self._loaded:
            self._writes.want(key)

    def _owed(self, key: ObjectKey) -> Write | None:
        """The one write that brings an object nearer to what was reported; None when there is nothing to do."""
        match key.resource:
            case "nodes":
                return self._owed_node(key)
            case "pods":
                return self._owed_pod(key)
            case "devicestatuses":
                return self._owed_twin(key)
            case "events":
                return self._owed_event(key)
        return None

    def _owed_node(self, key: ObjectKey) -> Write | None:
        said, known = self._nodes.get(key.name), self._objects.get(key)
        report, unknown = (said.report if said else None), self._links.unknown(key.name)
        cause = said.event if said and unknown is None else None
        if known is None:
            if report is None:
                return None
            whole = status.node_status(
                status.node_main(status.new_node(key.name), report, unknown), report, unknown, self._now_us
            )
            if self._kubelets is not None:
                whole = self._kubelets.present(key.name, whole)
            return folds.write("create", key, whole, None, cause)
        if report is None and not folds.is_edge(known):
            return None
        with_status = status.node_status(known.object, report, unknown, self._now_us)
        with_status = status.with_devices(with_status, self._devices_on.get(key.name, {}).values())
        for mark, told in self._marks.items():
            if key.name in told:
                with_status = status.with_mark(with_status, mark, told[key.name], self._now_us)
        if self._kubelets is not None:
            with_status = self._kubelets.present(key.name, with_status)
        # First what the node says, then the taints that follow from it: a node lifecycle controller, a cluster's own too,
        # takes away a taint that the status doesn't explain yet.
        told_status = folds.write("status", key, with_status, known, cause)
        return told_status or folds.write("update", key, status.node_main(known.object, report, unknown), known, cause)

    def _owed_pod(self, key: ObjectKey) -> Write | None:
        known = self._objects.get(key)
        if known is None or not known.node:
            return None
        at = (known.node, key)
        said = self._pods.get(at) or self._gone.get(at)
        if said is not None and said.report.uid != known.uid:
            said = None
        unknown = self._links.unknown(known.node)
        if said is not None and said.report.status is None:
            deleting = "deletionTimestamp" in known.object["metadata"]
            if not deleting:
                return None
            cause = said.event
            return Write("delete", key, None, known.rev, known.uid, cause.id, cause.trace, grace_s=0)
        new = status.pod_status(known.object, said.report.status if said else None, unknown, self._now_us)
        return folds.write("status", key, new, known, said.event if said and unknown is None else None)

    def _owed_twin(self, key: ObjectKey) -> Write | None:
        device = self._objects.get(ObjectKey(DEVICES, "devices", key.namespace, key.name))
        if device is None:
            return None
        said = self._twins.get((device.node, key))
        if said is None or said.report.uid != device.uid:
            return None
        known = self._objects.get(key)
        new = status.device_status(known.object if known else None, device.object, said.report, said.time_us)
        return folds.write("update" if known else "create", key, new, known, said.event)

    def _owed_event(self, key: ObjectKey) -> Write | None:
        """Told once: an Event that the API has, or that is older than Events are kept, is not owed any more."""
        said = self._events.get(key)
        if said is None:
            return None
        known = self._objects.get(key)
        new = status.api_event(known.object if known else None, key, said.node, said.report)
        write = folds.write("update" if known else "create", key, new, known, said.event)
        if write is None or self._now_us - said.time_us > EVENT_TTL_US:
            del self._events[key]
            return None
        return write
