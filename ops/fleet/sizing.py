"""`python -m ops.fleet sizing`: the tables of the sizing page, in both languages, from the recorded runs.

A figure on the page is one of a recorded row, so none can be out of date or made up; a run that is not recorded yet has no
column.  To add one: `./just fleet ... --out docs/measurements/<name>.jsonl`, its line in RUNS, and this command.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[2] / "docs"
MEASUREMENTS = DOCS / "measurements"
PAGES = {"en": DOCS / "SIZING.md", "zh": DOCS / "SIZING.zh.md"}
NONE = "–"
BAR_US = 200.0  # one block of the plot

Rows = dict[str, dict[str, Any]]  # of one run, by bench
Text = dict[str, str]  # by language


@dataclass(frozen=True, slots=True)
class Run:
    """A recorded file, the column that it is, and the command that made it."""

    file: str
    title: Text
    command: str


@dataclass(frozen=True, slots=True)
class Measure:
    """One row of a table: ``of`` takes a figure from a run's rows (None: it has none), ``unit`` goes behind it."""

    name: Text
    of: Callable[[Rows], float | int | str | None]
    unit: str = ""


def _(en: str, zh: str) -> Text:
    return {"en": en, "zh": zh}


def field(bench: str, *path: str) -> Callable[[Rows], Any]:
    def of(rows: Rows) -> Any:
        found: Any = rows.get(bench, {})
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        return found

    return of


def link_kb(rows: Rows) -> float | None:
    row = rows.get("connect", {})
    return row.get("link_kb", row.get("link_kb_a_node"))


def cpu_us(part: str) -> Callable[[Rows], float | None]:
    """CPU of a part for one change, from the phase with a change for one node at a time."""

    def of(rows: Rows) -> float | None:
        spent, changes = field("one", "used", part, "cpu_s")(rows), field("one", "changes")(rows)
        return None if spent is None or not changes else round(spent / changes * 1e6)

    return of


def whole_us(rows: Rows) -> float | None:
    """Hub, dispatcher and nodes: what a change costs on its way."""
    parts = [cpu_us(p)(rows) for p in ("hub", "dispatcher", "nodes")]
    return None if parts[0] is None else sum(p or 0 for p in parts)


def how(rows: Rows) -> str | None:
    """What must be known of a run to read its figures."""
    row = rows.get("connect")
    if row is None:
        return None
    words = [f"{row.get('servers', 1)}", "TLS" if row.get("tls", True) else "no TLS"]
    words += [f"GOGC={row['gogc']}"] if row.get("gogc") else []
    return ", ".join(words)


RUNS = (
    Run("fleet-1000.jsonl", _("1,000 nodes", "1,000 个节点"), "./just fleet --nodes 1000 --seconds 30"),
    Run("fleet-2000.jsonl", _("2,000 nodes", "2,000 个节点"), "./just fleet --nodes 2000 --seconds 30"),
    Run(
        "fleet-1000-five-servers.jsonl",
        _("1,000 nodes, five servers", "1,000 个节点，五台服务器"),
        "./just fleet --nodes 1000 --via meta --no-reports --servers 5 --only storm",
    ),
    Run(
        "fleet-5000.jsonl",
        _("5,000 nodes", "5,000 个节点"),
        "./just fleet --nodes 5000 --via meta --no-reports --only connect --gogc 50",
    ),
    Run("fleet-10000.jsonl", _("10,000 nodes", "10,000 个节点"), "./just fleet --nodes 10000 --seconds 60"),
    Run(
        "fleet-100000.jsonl",
        _("100,000 nodes", "100,000 个节点"),
        "./just fleet --nodes 100000 --shared 80000 --per-connection 20 --via meta --no-reports --plain --gogc 40"
        " --seconds 20 --only steady,one,all",
    ),
)
_CONNECT = "--only connect --via meta --no-reports"
LINKS = tuple(
    Run(
        f"{kind}-{n}.jsonl",
        _(f"{n:,} {en} links", f"{n:,} 条 {zh} 链路"),
        f"./just fleet --nodes {n} {_CONNECT}{option}",
    )
    for n in (1000, 5000)
    for kind, en, zh, option in (("links", "client", "客户端", ""), ("leafs", "leaf", "leaf", " --leafs"))
)
ALONE = (
    Run(
        "reconnect-10000.jsonl",
        _("10,000 unchanged objects", "10,000 个未变对象"),
        "./just fleet --nodes 1 --via meta --reconnect 10000",
    ),
)
DISPATCHER = tuple(
    Run(f"dispatcher-{n}.jsonl", _(f"{n:,} nodes", f"{n:,} 个节点"), f"./just fleet --nodes {n} --throughput")
    for n in (1000, 10_000)
)

FLEET_MEASURES = (
    Measure(_("servers of the hub, client links, collector", "hub 服务器数、客户端链路、回收器"), how),
    Measure(_("connections", "连接数"), field("connect", "connections")),
    Measure(_("objects", "对象数"), field("same", "converged")),
    Measure(_("load, objects a second as far as META", "加载：每秒写到 META 的对象数"), field("load", "objects_s")),
    Measure(_("all connect and sync", "全部连接并同步"), field("connect", "all_s"), "s"),
    Measure(
        _("the hub's memory afterwards, for a node", "之后 hub 每个节点的内存"), field("connect", "hub_kb_a_node"), "kB"
    ),
    Measure(_("what a link made it grow", "每条链路使其增长"), link_kb, "kB"),
    Measure(_("of that in use after a collection", "其中回收后仍在用"), field("connect", "link_live_kb"), "kB"),
    Measure(_("as the kernel sees it when that is given back", "归还之后内核所见"), field("connect", "link_rest_kb"), "kB"),
    Measure(
        _("idle, bytes a node a day, TLS and packets included", "空闲：每节点每天字节数，含 TLS 和包头"),
        field("steady", "wire_bytes_a_node_a_day"),
    ),
    Measure(_("changes a second, each for one node", "每秒变更数，每次只涉及一个节点"), field("one", "asked_s")),
    Measure(_("to applied at the node, p50", "到节点生效，p50"), field("one", "p50_ms"), "ms"),
    Measure(_("p99", "p99"), field("one", "p99_ms"), "ms"),
    Measure(_("p99.9", "p99.9"), field("one", "p999_ms"), "ms"),
    Measure(_("one change for all, the last has it", "一次面向全部的变更，最后一个收到"), field("all", "all_s"), "s"),
    Measure(_("the hub restarts, all in sync again", "hub 重启后全部重新同步"), field("storm", "all_s"), "s"),
    Measure(
        _("all away while a share of the objects changed: share", "全部离线期间变更的对象比例"), field("catch_up", "share")
    ),
    Measure(_("in sync again", "恢复同步"), field("catch_up", "all_s"), "s"),
    Measure(_("bytes on the wire a node", "每节点线路字节数"), field("catch_up", "wire_bytes_a_node")),
    Measure(_("the hub's memory at the end", "最后 hub 的内存"), field("catch_up", "used", "hub", "rss_mb"), "MB"),
    Measure(_("the nodes' memory, all together", "全部节点的内存"), field("catch_up", "used", "nodes", "rss_mb"), "MB"),
)
LINK_MEASURES = (
    Measure(_("servers of the hub, client links, collector", "hub 服务器数、客户端链路、回收器"), how),
    Measure(_("all connect and sync", "全部连接并同步"), field("connect", "all_s"), "s"),
    Measure(_("what a link made the hub grow", "每条链路使 hub 增长"), link_kb, "kB"),
    Measure(_("of that in use after a collection", "其中回收后仍在用"), field("connect", "link_live_kb"), "kB"),
    Measure(_("as the kernel sees it when that is given back", "归还之后内核所见"), field("connect", "link_rest_kb"), "kB"),
)
ALONE_MEASURES = (
    Measure(_("one reconnect, until in sync again", "一次重连到重新同步"), field("reconnect", "ms"), "ms"),
    Measure(_("the slowest of nine", "九次中最慢"), field("reconnect", "max_ms"), "ms"),
    Measure(_("bytes on the wire, TLS and packets included", "线路字节数，含 TLS 和包头"), field("reconnect", "wire_bytes")),
    Measure(_("objects sent again", "重发的对象"), field("reconnect", "events")),
)
DISPATCHER_MEASURES = (
    Measure(_("objects of a node", "每个节点的对象数"), field("dispatcher_one", "objects")),
    Measure(
        _("changes for one node each: events a second of one core", "每次涉及一个节点的变更：单核每秒事件数"),
        field("dispatcher_one", "events_s_core"),
    ),
    Measure(_("CPU of an event", "每个事件的 CPU"), field("dispatcher_one", "cpu_us"), "us"),
    Measure(
        _("written a second beside hub and writer", "与 hub 和写入方共用机器时每秒写入"), field("dispatcher_one", "events_s")
    ),
    Measure(
        _("changes for all nodes: events a second of one core", "涉及全部节点的变更：单核每秒事件数"),
        field("dispatcher_all", "events_s_core"),
    ),
    Measure(_("CPU of such an event", "此类事件的 CPU"), field("dispatcher_all", "cpu_us"), "us"),
    Measure(_("written a second", "每秒写入"), field("dispatcher_all", "events_s")),
    Measure(_("the dispatcher's memory", "分发器的内存"), field("dispatcher_all", "used", "dispatcher", "rss_mb"), "MB"),
)
COST = (
    Measure(_("hub", "hub"), cpu_us("hub"), "us"),
    Measure(_("dispatcher", "分发器"), cpu_us("dispatcher"), "us"),
    Measure(_("nodes", "节点"), cpu_us("nodes"), "us"),
    Measure(_("together", "合计"), whole_us, "us"),
)
HEADS = {"what": _("what", "项目"), "nodes": _("nodes", "节点数")}


def read(run: Run, folder: Path = MEASUREMENTS) -> Rows | None:
    """The last row of each bench; None when the run is not recorded."""
    path = folder / run.file
    if not path.exists():
        return None
    rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    return {row["bench"]: row for row in rows if "failed" not in row}


def cell(measure: Measure, rows: Rows) -> str:
    found = measure.of(rows)
    if found is None:
        return NONE
    text = f"{found:,}" if isinstance(found, int) else f"{found:,g}" if isinstance(found, float) else found
    return f"{text} {measure.unit}".strip()


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def matrix(language: str, runs: Sequence[Run], measures: Sequence[Measure], folder: Path) -> str:
    """Measures down, runs across; runs that are not recorded are left out, and measures that none of them has."""
    there = [(run, rows) for run in runs if (rows := read(run, folder)) is not None]
    if not there:
        return NONE
    lines = [_line([HEADS["what"][language], *(run.title[language] for run, _ in there)]), "|---" * (len(there) + 1) + "|"]
    for m in measures:
        cells = [cell(m, rows) for _, rows in there]
        if set(cells) != {NONE}:
            lines.append(_line([m.name[language], *cells]))
    lines.append(_line([{"en": "recorded in", "zh": "记录于"}[language], *(f"`{run.file}`" for run, _ in there)]))
    return "\n".join(lines)


def curve(language: str, runs: Sequence[Run], folder: Path) -> str:
    """CPU for one change, by how many nodes there are, as figures and as bars."""
    lines = [_line([HEADS["nodes"][language], *(m.name[language] for m in COST), ""]), "|---" * (len(COST) + 2) + "|"]
    for run in runs:
        rows = read(run, folder)
        if rows is not None and (whole := whole_us(rows)) is not None:
            bar = "█" * max(1, round(whole / BAR_US))
            lines.append(_line([f"{rows['one']['nodes']:,}", *(cell(m, rows) for m in COST), bar]))
    return "\n".join(lines)


def commands(runs: Sequence[Run], folder: Path) -> str:
    made = [f"{r.command} --out docs/measurements/{r.file}" for r in runs if (folder / r.file).exists()]
    return "\n".join(["```sh", *made, "```"])


def sections(language: str, folder: Path = MEASUREMENTS) -> dict[str, str]:
    return {
        "fleet": matrix(language, RUNS, FLEET_MEASURES, folder),
        "curve": curve(language, RUNS, folder),
        "links": matrix(language, LINKS, LINK_MEASURES, folder),
        "alone": matrix(language, ALONE, ALONE_MEASURES, folder),
        "dispatcher": matrix(language, DISPATCHER, DISPATCHER_MEASURES, folder),
        "commands": commands((*RUNS, *LINKS, *ALONE, *DISPATCHER), folder),
    }


def rendered(text: str, language: str, folder: Path = MEASUREMENTS) -> str:
    """The page with its marked sections made anew.  Raises ValueError for a section that the page has not, or has twice."""
    for name, body in sections(language, folder).items():
        marks = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if len(marks.findall(text)) != 1:
            raise ValueError(f"the page must have one section <!-- {name} --> ... <!-- /{name} -->")
        text = marks.sub(lambda m, body=body: f"{m[1]}{body}\n{m[2]}", text)  # type: ignore[misc]
    return text


def main() -> int:
    for language, page in PAGES.items():
        page.write_text(rendered(page.read_text(), language))
    return 0
