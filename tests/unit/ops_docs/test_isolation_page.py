"""Each attack on the isolation page is shown by tests that exist, the page leaves none of the suite out, and its figures are
those of the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from bus import follower, outbox
from bus.identity import permissions
from cloud import joining
from cloud.core import gates
from schemas import reports

ROOT = Path(__file__).resolve().parents[3]
PAGES = ("docs/ISOLATION.md", "docs/ISOLATION.zh.md")
# Files that hold attacks and nothing else.
SUITE = [
    ROOT / "tests" / "contract" / "isolation" / f"test_{name}.py"
    for name in ("compromised_node", "hostile_leaf", "report_floods", "revocations")
]


def rows(page: str) -> list[str]:
    lines = (ROOT / page).read_text().splitlines()
    return [line for line in lines if line.startswith("| ") and "::" in line]


def defined_in(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {n.name for n in tree.body if isinstance(n, functions) and n.name.startswith("test_")}


def named(row: str) -> list[tuple[Path, str]]:
    out = []
    for file, test in re.findall(r"`([\w/.]+)::(\w+)`", row):
        folder = ROOT / "tests" if file.startswith("unit/") else ROOT / "tests" / "contract"
        out.append((folder / file, test))
    return out


@pytest.mark.parametrize("page", PAGES)
def test_each_attack_is_shown_by_tests_that_exist(page: str) -> None:
    assert len(rows(page)) > 20
    for row in rows(page):
        assert named(row), row
        for file, test in named(row):
            assert file.is_file(), row
            assert test in defined_in(file), row


def test_the_page_leaves_nothing_of_the_suite_out() -> None:
    on_page = {test for row in rows(PAGES[0]) for _, test in named(row)}
    assert {t for f in SUITE for t in defined_in(f)} - on_page == set()


def test_both_languages_name_the_same_tests_in_the_same_rows() -> None:
    english, chinese = ([named(row) for row in rows(page)] for page in PAGES)
    assert english == chinese


@pytest.mark.parametrize("page", PAGES)
def test_the_figures_are_those_of_the_code(page: str) -> None:
    text = (ROOT / page).read_text()
    limits = gates.Limits()
    said = [
        f"{limits.messages_at_once:,.0f}", f"{limits.bytes_at_once / (1 << 20):.0f} MB", f"{limits.messages_a_s:.0f} ",
        f"{limits.bytes_a_s / 1024:.0f} kB", f"{limits.shut_s:.0f} s", f"{outbox.EVENTS_MAX:,}",
        f"{reports.REPORT_BYTES_MAX >> 10} kB", f"{follower.FOLLOW_BYTES >> 20} MB", f"{joining.JWT_S_DEFAULT // 3600} ",
        f"{permissions.NODE_SUBS_MAX} ", f"{permissions.NODE_PAYLOAD_MAX >> 10} kB",
    ]  # fmt: skip
    assert [figure for figure in said if figure not in text] == []
    assert (limits.shut_s_max, limits.forgiven_s, outbox.EVENTS_MAX * 2) == (3600, 86_400, limits.messages_at_once)
