"""What the documents tell people to type exists, in both languages, and their links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import click
import pytest

from ops import cli

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTS = [
    "README.md",
    "README.zh.md",
    "CONTRIBUTING.md",
    "docs/ARCHITECTURE.md",
    "docs/ARCHITECTURE.zh.md",
    "docs/SIZING.md",
    "docs/SIZING.zh.md",
    "docs/CHAOS.md",
    "docs/CHAOS.zh.md",
    "docs/CLUSTER.md",
    "docs/CLUSTER.zh.md",
    "docs/ISOLATION.md",
    "docs/ISOLATION.zh.md",
    "docs/API.md",
    "docs/API.zh.md",
]
PAIRS = [
    ("README.md", "README.zh.md"),
    ("docs/ARCHITECTURE.md", "docs/ARCHITECTURE.zh.md"),
    ("docs/SIZING.md", "docs/SIZING.zh.md"),
    ("docs/CHAOS.md", "docs/CHAOS.zh.md"),
    ("docs/CLUSTER.md", "docs/CLUSTER.zh.md"),
    ("docs/ISOLATION.md", "docs/ISOLATION.zh.md"),
    ("docs/API.md", "docs/API.zh.md"),
]
RECIPES = set(re.findall(r"^([a-z][a-z-]*)(?: \*args)?:", (ROOT / "justfile").read_text(), re.MULTILINE))


def commands(document: str) -> list[list[str]]:
    """Every line of the fenced ``sh`` blocks, split into words."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines() if line.strip()]


TYPED = [(d, " ".join(c)) for d in DOCUMENTS for c in commands(d)]


@pytest.mark.parametrize(("document", "line"), TYPED)
def test_what_is_typed_exists(document: str, line: str) -> None:
    words = shlex.split(line)
    if words[0] == "./just":
        assert words[1] in {*RECIPES, "--list"}
    elif words[0] == "skerry":
        _check_skerry(words[1:])
    elif words[0] == "/opt/skerry/bin/pip" and "-r" in words:
        assert (ROOT / words[words.index("-r") + 1]).is_file()
    else:
        files = [ROOT / w for w in words if w.startswith("ops/")]
        assert all(f.exists() for f in files), line
        assert words[0] in {"python3", "/opt/skerry/bin/pip", "ln", "kubectl", "helm"}, f"{document}: nobody checks {line!r}"


def _check_skerry(words: list[str]) -> None:
    """Parses the line as the command itself would, without running it."""
    command: click.Command = cli.cli
    ctx = click.Context(command, info_name="skerry")
    while isinstance(command, click.Group):
        name, *words = words
        found = command.get_command(ctx, name)
        assert found is not None, name
        command = found
        ctx = click.Context(command, parent=ctx, info_name=name)
    command.make_context(ctx.info_name, words, parent=ctx.parent)  # raises UsageError for what it does not take


@pytest.mark.parametrize(("english", "chinese"), PAIRS)
def test_both_languages_say_the_same(english: str, chinese: str) -> None:
    assert commands(english) == commands(chinese)
    texts = [(ROOT / d).read_text() for d in (english, chinese)]
    headings = [re.findall(r"^(#+) ", t, re.MULTILINE) for t in texts]
    assert headings[0] == headings[1]
    rows = [len(re.findall(r"^[|-] ?", t, re.MULTILINE)) for t in texts]
    assert rows[0] == rows[1]
    streams = [re.findall(r"`([A-Z]+(?:-[<*n>]+)?)`", t) for t in texts]
    assert sorted(streams[0]) == sorted(streams[1])
    assert len(re.findall(r"[\u4e00-\u9fff]", texts[1])) > 300


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", (ROOT / document).read_text()):
        if not target.startswith("https://"):
            assert (ROOT / document).parent.joinpath(target.partition("#")[0]).exists(), target


def test_every_recipe_has_a_line_that_explains_it() -> None:
    lines = (ROOT / "justfile").read_text().splitlines()
    for i, line in enumerate(lines):
        if re.match(r"^[a-z][a-z-]*(?: \*args)?:(?!=)", line) and "[private]" not in lines[i - 1]:
            assert lines[i - 1].startswith("# "), line
    assert {"demo", "down", "test", "lint", "sim", "golden", "bench", "docs"} <= RECIPES


@pytest.mark.parametrize("module", sorted(set(re.findall(r"python -m ([\w.]+)", (ROOT / "justfile").read_text()))))
def test_every_recipe_runs_a_module_that_is_there(module: str) -> None:
    found = importlib.util.find_spec(module)
    assert found is not None
    assert found.submodule_search_locations is None or importlib.util.find_spec(f"{module}.__main__") is not None
