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


def rendered(text: str, rows: Sequence[Row], language: str) -> str:
    """The page with its table written anew.  Raises CardError when the marks are not there."""
    found = re.sub(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}\n{table(rows, language)}\n{END}", text, flags=re.DOTALL)
    if BEGIN not in text or END not in text:
        raise scorecard.CardError(f"the page has no {BEGIN} and {END}")
    return found


def write(card: Path) -> None:
    rows = scorecard.read(card)
    for language, name in PAGES.items():
        path = DOCS / name
        path.write_text(rendered(path.read_text(), rows, language))
