"""Objects of a type, mostly well-formed and sometimes not: what a generator, a typo or an attacker would send."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

from bus.kube import typed

DEPTH_MAX = 7
NASTY_TEXTS = (
    *("", " ", ".", "..", "/", "%", "a/b", "-", "0", "null", "*", "*.x", "x" * 64, "x" * 254, "a,b", "a=b", "a in (b)"),
    *("\x00", "\n", "é", "日本", "\U0001f600", "'\"\\", "{{ .x }}", "$(HOME)", "../../etc/passwd", "<script>", "1e9", "-1"),
    *("100m", "1Gi", "1.5", "25%", "101%", "10.0.0.1", "::1", "10.0.0.0/8", "2026-01-01T00:00:00Z", "9999-99-99T99:99:99Z"),
    *(
        "kubernetes",
        "foregroundDeletion",
        "orphan",
        "example.com/x",
        "Always",
        "Never",
        "TCP",
        "ClusterIP",
        "None",
        "(a+)+$",
    ),
)
NASTY_NUMBERS = (0, 1, -1, 2, 80, 65535, 65536, 1 << 31, -(1 << 31), (1 << 63) - 1, 1 << 63, 1 << 70, 0.5, -0.0, 1e300)
NASTY: tuple[Any, ...] = (None, True, False, [], {}, [[]], [None], {"": None}, {"a": {"b": {"c": []}}}, [1, "a", {}])
NAMES = ("a", "b", "web", "x-1", "kube-system", "default")


class Maker:
    """Values from one seed."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def text(self) -> str:
        return self.rng.choice(NASTY_TEXTS if self.rng.random() < 0.5 else NAMES)

    def anything(self) -> Any:
        kind = self.rng.random()
        if kind < 0.4:
            return self.text()
        return self.rng.choice(NASTY_NUMBERS) if kind < 0.7 else copy.deepcopy(self.rng.choice(NASTY))

    def of(self, node: dict[str, Any], depth: int = 0, wrong: float = 0.03) -> Any:
        """A value of a type; with probability ``wrong`` each part of it is anything."""
        node = typed.types().resolve(node)
        if self.rng.random() < wrong:
            return self.anything()
        kind = node.get("type")
        if kind == "object" or "properties" in node:
            return self._object(node, depth, wrong)
        if kind == "array":
            count = 0 if depth > DEPTH_MAX else self.rng.choice((0, 1, 1, 2))
            return [self.of(node["items"], depth + 1, wrong) for _ in range(count)]
        if kind == "string":
            return self._string(node)
        if kind in ("integer", "number"):
            return self.rng.choice(NASTY_NUMBERS[:8]) if self.rng.random() < 0.8 else self.rng.choice(NASTY_NUMBERS)
        if kind == "boolean":
            return self.rng.random() < 0.5
        return self.anything()

    def _string(self, node: dict[str, Any]) -> str:
        form, good = node.get("format"), self.rng.random() < 0.7
        if good and form == "quantity":
            return self.rng.choice(("1", "100m", "1Gi", "0", "-1", "1e3"))
        if good and form in ("date-time", "micro-time"):
            return "2026-01-01T00:00:00Z"
        if good and form == "byte":
            return "YQ=="
        return str(self.rng.choice(node["enum"])) if good and node.get("enum") else self.text()

    def _object(self, node: dict[str, Any], depth: int, wrong: float) -> Any:
        fields, more = node.get("properties") or {}, node.get("additionalProperties")
        out: dict[str, Any] = {}
        if isinstance(more, dict):
            return {self.text(): self.of(more, depth + 1, wrong) for _ in range(self.rng.choice((0, 1, 2)))}
        needed = set(node.get("required") or ())
        chance = 0.5 if depth < 3 else 0.25 if depth < DEPTH_MAX else 0.0
        for name, field in fields.items():
            if name in needed or self.rng.random() < chance:
                out[name] = self.of(field, depth + 1, wrong)
        if self.rng.random() < wrong:
            out[self.text()] = self.anything()
        return out

    def broken(self, text: str) -> str:
        """A text with a few characters changed, doubled or gone."""
        letters = list(text)
        for _ in range(self.rng.randint(1, 3)):
            at = self.rng.randrange(len(letters)) if letters else 0
            match self.rng.randrange(4):
                case 0:
                    del letters[at : at + self.rng.randint(1, 9)]
                case 1:
                    letters.insert(at, self.rng.choice('{}[]",:\\\x00 \n0e-'))
                case 2:
                    letters[at:at] = letters[at : at + 20]
                case _:
                    letters[at:at] = list(json.dumps(self.anything()))
        return "".join(letters)
