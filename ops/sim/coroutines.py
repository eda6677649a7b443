"""Coroutines of the code under test, driven by the schedule: what they await is a Wait, what ends it is an event.

The API's rules, its storage and the outbox are written with ``await``.  Here nothing of asyncio runs: a coroutine goes on
until it awaits something that takes time, and is resumed by the event that brings the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import Any

Resume = Callable[[Any], None]  # with the answer, or with an exception to raise


class Wait:
    """``start`` is given what to call, once, when the wait is over."""

    def __init__(self, start: Callable[[Resume], None]) -> None:
        self.start = start

    def __await__(self) -> Generator[Wait, Any, Any]:
        return (yield self)


class Tasks:
    """The coroutines of one life of a process.  ``end`` is kill -9: nothing of them goes on."""

    def __init__(self) -> None:
        self._running: dict[Coroutine[Any, Any, Any], None] = {}

    def spawn(self, coro: Coroutine[Any, Any, Any], done: Callable[[Any], None] = lambda _: None) -> None:
        """``done`` gets the result, or the exception that ended it."""
        self._running[coro] = None
        self._drive(coro, None, done)

    def _drive(self, coro: Coroutine[Any, Any, Any], answer: Any, done: Callable[[Any], None]) -> None:
        if coro not in self._running:
            return
        try:
            wait: Wait = coro.throw(answer) if isinstance(answer, Exception) else coro.send(answer)
        except StopIteration as e:
            self._running.pop(coro, None)
            done(e.value)
            return
        except Exception as e:
            self._running.pop(coro, None)
            done(e)
            return
        wait.start(lambda result: self._drive(coro, result, done))

    def end(self) -> None:
        running, self._running = self._running, {}
        for coro in running:
            coro.close()
