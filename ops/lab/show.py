"""One line a step: a spinner on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.status import Status


class StepFailed(Exception):
    """A check of the demo did not hold; the message says what was expected and what was seen."""


class Line:
    """The line of one step; ``detail`` is what was seen."""

    def __init__(self, status: Status | None, title: str) -> None:
        self._status, self._title = status, title
        self.text = ""

    def detail(self, text: str) -> None:
        self.text = text

    def now(self, text: str) -> None:
        """What is being waited for; seen on a terminal only."""
        if self._status is not None:
            self._status.update(f"{escape(self._title)} [dim]{escape(text)}[/dim]")


class Show:
    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self.steps = 0

    def chapter(self, title: str) -> None:
        self._console.print(f"\n[bold]{escape(title)}[/bold]")

    @contextmanager
    def step(self, title: str) -> Iterator[Line]:
        began = time.monotonic()
        status = self._console.status(escape(title)) if self._console.is_terminal else None
        line = Line(status, title)
        if status is not None:
            status.start()
        try:
            yield line
        except BaseException:
            if status is not None:
                status.stop()
            self._console.print(f"  [red]✗[/red] {escape(title)}")
            raise
        if status is not None:
            status.stop()
        self.steps += 1
        detail = f" [cyan]{escape(line.text)}[/cyan]" if line.text else ""
        self._console.print(f"  [green]✓[/green] {escape(title)}{detail} [dim]{time.monotonic() - began:.1f} s[/dim]")

    def block(self, text: str) -> None:
        """Output of a command, as it was."""
        for row in text.rstrip("\n").split("\n"):
            self._console.print(f"      {escape(row)}", style="dim")

    def say(self, text: str) -> None:
        self._console.print(f"  {escape(text)}")
