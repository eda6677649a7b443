"""Every phase of the fleet benchmarks, short, on twenty nodes: each tells its row, and one that fails ends nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ops.fleet import bench, lab, throughput
from ops.fleet.fleet import FleetError
from ops.fleet.plan import Plan
from ops.lab.show import Show

pytestmark = pytest.mark.contract

NODES = 20
FIGURES = {
    "load": {"in_meta_s", "objects_s"},
    "connecting": {"connected_s", "all_s"},
    "connect": {"all_s", "link_kb", "link_live_kb", "wire_bytes_a_node", "reported_s"},
    "one": {"p50_ms", "p99_ms", "p999_ms"},
    "all": {"all_s"},
    "storm": {"server_back_s", "all_s", "wire_bytes_a_node"},
    "catch_up": {"all_s", "wire_bytes_a_node"},
    "reconnect": {"ms", "wire_bytes"},
}


class OnePhaseFails(bench.Bench):
    async def steady(self) -> None:
        raise FleetError("this one fails")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab, "QUIET_S", 0.5)
    monkeypatch.setattr(bench, "ANSWERED_S", 0.3)


async def test_each_phase_tells_its_row_and_the_nodes_hold_what_the_log_says(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    plan = Plan(
        nodes=NODES, objects=4, changes=50, seconds=1.0, share=0.5, workers=1, plain=True, gogc=50, alone=300,
        only=frozenset(FIGURES) - {"load", "connecting"} | {"steady"},
    )  # fmt: skip
    async with lab.running(tmp_path / "fleet", plain=plan.plain, gogc=plan.gogc) as setting:
        made = OnePhaseFails(setting, plan, Show(), rows.append)
        await made.run()
    by = {r["bench"]: r for r in rows}
    assert [(r["bench"], r["failed"]) for r in rows if "failed" in r] == [("steady", "this one fails")]
    for name, figures in FIGURES.items():
        assert figures <= by[name].keys(), name
    assert [r["after"] for r in rows if r["bench"] == "same"] == ["connect", "storm", "catch_up"]
    assert (by["one"]["told"], by["one"]["changes"]) == (50, 50)
    assert (by["connect"]["nodes"], by["connect"]["connections"], by["connect"]["tls"]) == (NODES, NODES, False)
    assert by["connect"]["gogc"] == 50 and by["connect"]["link_live_kb"] > 10
    assert by["reconnect"]["events"] == 0, "unchanged objects are not sent again"
    assert 0 < by["reconnect"]["wire_bytes"] < 100_000


async def test_a_day_at_rest_is_put_together_and_leaf_links_are_measured(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    plan = Plan(nodes=5, objects=2, via="meta", seconds=0.5, workers=1, leafs=True, only=frozenset({"steady"}))
    async with lab.running(tmp_path / "fleet") as setting:
        made = bench.Bench(setting, plan, Show(), rows.append)
        await made.run()
    by = {r["bench"]: r for r in rows}
    assert not made.failed, [r for r in rows if "failed" in r]
    assert (by["connect"]["link"], by["connect"]["tls"]) == ("leaf", True)
    steady = by["steady"]
    assert all(steady[f"{what}_bytes"] > 50 for what in ("beat", "ping", "refresh"))
    assert steady["wire_bytes_a_node_a_day"] > steady["beat_bytes"] * 86_400 / steady["beat_every_s"]


async def test_the_dispatcher_alone_is_measured_by_the_events_that_it_writes(tmp_path: Path) -> None:
    async with lab.running(tmp_path / "fleet") as setting:
        rows = await throughput.measure(setting, Show(), NODES, 4, 50)
    one, every = rows
    assert (one["bench"], one["changes"], one["events"]) == ("dispatcher_one", 50, 50)
    assert (every["bench"], every["changes"], every["events"]) == ("dispatcher_all", 2, 2 * NODES)
    assert all(r["events_s"] > 0 and r["used"]["dispatcher"]["rss_mb"] > 10 for r in rows)
