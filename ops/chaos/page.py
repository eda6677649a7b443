"""docs/CHAOS.md and docs/CHAOS.zh.md: their tables are written from a recorded card, between two marks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from ops.chaos import faults, scorecard
from ops.chaos.scorecard import Row

DOCS = Path(__file__).resolve().parents[2] / "docs"
CARD = DOCS / "measurements" / "chaos.json"
BEGIN, END = "<!-- card: begin -->", "<!-- card: end -->"
PAGES = {"en": "CHAOS.md", "zh": "CHAOS.zh.md"}
HEADS: Mapping[str, Sequence[str]] = {
    "en": ("row", "fault", *scorecard.COLUMNS, "KubeEdge no.", "commit"),
    "zh": ("行", "故障", "容器未动", "离线写入", "API 写入", "丢失", "重复", "重连字节", "同步秒数", "收敛秒数", "差异",
           "KubeEdge 编号", "提交"),
}  # fmt: skip


SUMMARIES: Mapping[str, str] = {
    "en": (
        "{good} of {rows} rows without a lost or doubled event, a difference or a touched container. After a link was\n"
        "whole again a node was in sync within {longest:.2f} s at most, {middle:.2f} s in the median of {healed} rows."
    ),
    "zh": (
        "{rows} 行中有 {good} 行没有丢失或重复的事件、没有差异、没有被动过的容器。\n"
        "链路恢复后，节点最迟 {longest:.2f} 秒同步，{healed} 行的中位数为 {middle:.2f} 秒。"
    ),
}


def titles() -> dict[str, dict[str, str]]:
    return {f.key: {"en": f.title, "zh": f.zh} for f in faults.FAULTS}


def table(rows: Sequence[Row], language: str) -> str:
    heads = HEADS[language]
    out = [f"| {' | '.join(heads)} |", f"|{'|'.join(['---', '---', *['---:'] * len(scorecard.COLUMNS), '---', '---'])}|"]
    known = titles()
    for r in rows:
        title = known.get(r.fault, {}).get(language, r.title)
        mark = "" if r.ok else " **FAILED**" if language == "en" else " **失败**"
        out.append(f"| `{r.fault}` | {title}{mark} | {' | '.join(scorecard.words(r))} | "
                   f"{', '.join(map(str, r.kubeedge))} | {r.commit} |")  # fmt: skip
    return "\n".join(out)


def summary(rows: Sequence[Row], language: str) -> str:
    """In words: how many rows are good, and how soon a node is in sync after its link healed."""
    good, healed = sum(r.ok for r in rows), sorted(r.seconds_in_sync for r in rows if r.seconds_in_sync is not None)
    middle, longest = (healed[len(healed) // 2], healed[-1]) if healed else (0.0, 0.0)
    return SUMMARIES[language].format(good=good, rows=len(rows), longest=longest, middle=middle, healed=len(healed))


def rendered(text: str, rows: Sequence[Row], language: str) -> str:
    """The page with its table written anew.  Raises CardError when the marks are not there."""
    block = f"{BEGIN}\n{summary(rows, language)}\n\n{table(rows, language)}\n{END}"
    found = re.sub(f"{BEGIN}.*?{END}", lambda _: block, text, flags=re.DOTALL)
    if BEGIN not in text or END not in text:
        raise scorecard.CardError(f"the page has no {BEGIN} and {END}")
    return found


def write(card: Path) -> None:
    rows = scorecard.read(card)
    for language, name in PAGES.items():
        path = DOCS / name
        path.write_text(rendered(path.read_text(), rows, language))
