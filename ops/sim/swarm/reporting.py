"""The reports worker's rim in the simulation: beats, REPORT and CLUSTER in, writes to the API out."""

from __future__ import annotations

from collections.abc import Callable

from bus import log
from cloud.core import report_words as words
from cloud.core.reports import Reports
from cloud.core.writes import Write
from ops.sim.swarm import api
from ops.sim.swarm.hub import Hub
from ops.sim.swarm.schedule import S, Schedule
from ops.sim.swarm.wire import Wire
from ops.sim.swarm.worker import Worker

TICK_US = 1 * S


class ReportsWorker(Worker):
    def __init__(
        self, schedule: Schedule, hub: Hub, wire: Wire, the_api: api.Api, make: Callable[[], Reports] = Reports
    ) -> None:
        super().__init__("reports", schedule, hub, wire)
        self._api, self._make = the_api, make
        self.core = make()
        self.complaints: list[str] = []
        self._to_load = 0

    def begin(self) -> None:
        self.core = self._make()
        streams = [n for n in self.hub.streams if n.startswith("REPORT-")]
        self._to_load = 1 + len(streams)
        self.follow("CLUSTER", self._api_event, self._loaded)
        for name in streams:
            self.follow(name, self._reported, self._loaded)

    def beat(self, node: str) -> None:
        if self.running:
            self.later(1, lambda: self._tell(words.BeatSeen(node, self.schedule.now_us)))

    def _loaded(self) -> None:
        self._to_load -= 1
        if self._to_load == 0:
            self._tell(words.Loaded(self.schedule.now_us))
            self._tick()

    def _tick(self) -> None:
        self._tell(words.Tick(self.schedule.now_us))
        self.later(TICK_US, self._tick)

    def _api_event(self, r: log.Recorded, _: bool) -> None:
        """As the API's lists and watches tell it: what was gone before the start isn't told, but for Nodes."""
        ev = r.event()
        if ev.data is None and self._to_load and ev.resource != "nodes":
            return
        self._tell(words.ApiEvent(r.seq, ev.key, ev.data, r.time_us))

    def _reported(self, r: log.Recorded, _: bool) -> None:
        self._tell(words.Reported(r.seq, r.event(), r.time_us))

    def _tell(self, stimulus: words.Stimulus) -> None:
        for i in self.core.handle(stimulus):
            match i:
                case Write():
                    self._write(i)
                case words.Complain():
                    self.complaints.append(f"{i.about}: {i.reason}")

    def _write(self, w: Write) -> None:
        def done(answer: int | log.LogError) -> None:
            match answer:
                case api.Conflict():
                    self._tell(words.WriteConflict(w.key))
                case log.LogError():
                    self._tell(words.WriteFailed(w.key))
                case rev:
                    self._tell(words.Written(w.key, rev))

        self.ask(lambda: self._api.write(w.verb, w.key, w.object, w.rev, w.uid, w.cause, w.trace), done, write=True)
