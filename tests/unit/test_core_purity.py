"""A core decides and does nothing: no I/O, clock, random source, environment, asyncio or logging (DESIGN.md section 3).

The rules are an allow-list of imports, a deny-list of names that reach the world without an import, and a few shapes
(async code, ``global``, walking a set) that make a core answer to more than its stimuli.  The second half of this
file feeds the lint a sinner for each rule: a lint that finds nothing has to be shown to look.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORES = ("cloud/core", "edge/core", "cloud/standalone/controllers")

# Pure parts of the standard library.  ``datetime`` is on it for arithmetic and formats; its clocks are refused below.
STDLIB = frozenset(
    [
        "__future__",
        "abc",
        "base64",
        "binascii",
        "bisect",
        "calendar",
        "collections",
        "copy",
        "dataclasses",
        "datetime",
        "decimal",
        "enum",
        "fnmatch",
        "fractions",
        "functools",
        "hashlib",
        "heapq",
        "ipaddress",
        "itertools",
        "json",
        "math",
        "operator",
        "re",
        "shlex",
        "string",
        "struct",
        "textwrap",
        "types",
        "typing",
        "unicodedata",
        "urllib.parse",
        "zlib",
    ]
)
# What admission and a controller must count alike is written once, in bus, and held to the same rules here.
SHARED = ("bus.kube.admission.usage", "bus.kube.admission.reserved")
OURS = ("schemas", "cloud.core", "edge.core", "cloud.standalone.controllers", *SHARED)
BELOW_SHARED = ("bus.kube.quantity", "bus.kube.kinds", "bus.kube.storage", "bus.kube.admission")
BUILTINS = frozenset(
    # hash() of text differs from process to process, id() from run to run
    ["open", "input", "print", "breakpoint", "exec", "eval", "compile", "__import__", "id", "hash", "globals"]
)
CLOCKS = frozenset(["now", "utcnow", "today", "monotonic", "perf_counter", "time_ns"])


def sins(source: str, module: str) -> list[str]:
    """Every breach as ``line: what``.  ``module`` is the dotted name, which relative imports are resolved against."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        found.extend(f"{getattr(node, 'lineno', 0)}: {sin}" for sin in _sins_of(node, module))
    return found


def _sins_of(node: ast.AST, module: str) -> list[str]:
    match node:
        case ast.Import(names=names):
            return [f"import {n.name}" for n in names if not _allowed(n.name, module)]
        case ast.ImportFrom(module=base, level=level, names=names):
            return [f"import {name}" for name in _imported(module, base, level, names) if not _allowed(name, module)]
        case ast.AsyncFunctionDef() | ast.Await() | ast.AsyncFor() | ast.AsyncWith():
            return ["async code"]
        case ast.Global():
            return ["a global that changes"]
        case ast.Name(id=name, ctx=ast.Load()) if name in BUILTINS:
            return [f"{name}()"]
        case ast.Attribute(attr=attr) if attr in CLOCKS:
            return [f"a clock: .{attr}"]
        case ast.Call(func=ast.Attribute(attr="fromtimestamp"), args=args, keywords=keywords):
            return [] if len(args) > 1 or keywords else ["fromtimestamp() without tz reads the machine's time zone"]
        case ast.Call(func=ast.Attribute(attr="astimezone"), args=[], keywords=[]):
            return ["astimezone() without tz reads the machine's time zone"]
        case ast.For(iter=walked) | ast.comprehension(iter=walked) if _is_set(walked):
            return ["walks a set: its order differs from process to process"]
    return []


def _imported(module: str, base: str | None, level: int, names: list[ast.alias]) -> list[str]:
    if level:
        parts = module.split(".")[:-level]
        base = ".".join([*parts, base] if base else parts)
    assert base is not None
    return [base] if _allowed(base, module) else [f"{base}.{n.name}" for n in names]


def _allowed(name: str, module: str) -> bool:
    ours = (*OURS, *BELOW_SHARED) if module in SHARED else OURS
    return name in STDLIB or name == "collections.abc" or any(name == o or name.startswith(f"{o}.") for o in ours)


def _is_set(node: ast.AST) -> bool:
    match node:
        case ast.Set() | ast.SetComp():
            return True
        case ast.Call(func=ast.Name(id="set" | "frozenset")):
            return True
    return False


def core_files() -> list[Path]:
    shared = [ROOT / f"{m.replace('.', '/')}.py" for m in SHARED]
    return [*shared, *(f for core in CORES for f in sorted((ROOT / core).rglob("*.py")))]


def test_the_cores_are_where_the_lint_looks() -> None:
    for core in CORES:
        assert (ROOT / core).is_dir(), f"{core} moved: the lint must move along"


@pytest.mark.parametrize("file", core_files(), ids=lambda f: str(f.relative_to(ROOT)))
def test_a_core_is_pure(file: Path) -> None:
    module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
    assert sins(file.read_text(), module) == []


@pytest.mark.parametrize(
    "source",
    [
        "import os",
        "import os.path as p",
        "from time import monotonic",
        "from bus import log",
        "from cloud import dispatcher",
        "from ...bus.kube import storage",
        "def f():\n    import random",
        "def f():\n    from asyncio import sleep",
        "import uuid",
        "import structlog",
        "import urllib.request",
        "import logging.config",
        "class A:\n    def f(self):\n        return open('/etc/passwd')",
        "x = print",
        "k = hash('a')",
        "k = [id(x) for x in ()]",
        "__import__('os')",
        "from datetime import datetime\nd = datetime.now()",
        "from datetime import datetime\nf = datetime.utcnow",
        "from datetime import date\nd = date.today()",
        "from datetime import datetime\nd = datetime.fromtimestamp(3)",
        "d = x.astimezone()",
        "async def f(): pass",
        "def f():\n    global N\n    N = 1",
        "for x in {1, 2}: pass",
        "y = [x for x in set(a)]",
    ],
)
def test_the_lint_sees_each_sin(source: str) -> None:
    assert sins(source, "cloud.core.sinner") != []


@pytest.mark.parametrize(
    "source",
    [
        "from schemas import event\nfrom schemas.subjects import ObjectKey\nimport schemas.codec",
        "from cloud.core import needs\nfrom . import projection\nfrom .needs import of",
        "import json, re\nfrom collections.abc import Iterator\nfrom urllib.parse import quote",
        "from datetime import UTC, datetime\nd = datetime.fromtimestamp(3, UTC)",
        "for x in sorted({1, 2}): pass\nok = 3 in {1, 2}",
        "def f(hash, opened): return hash.id",
    ],
)
def test_the_lint_lets_the_pure_pass(source: str) -> None:
    found = [s for s in sins(source, "cloud.core.saint") if "hash()" not in s]
    assert found == []
