"""What can go wrong between us and a container engine, in our own words."""

from __future__ import annotations


class RuntimeFailure(Exception):
    """An operation failed.  ``reason`` is the CamelCase word for a container's status, ``str()`` says what was tried."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class RuntimeUnavailable(RuntimeFailure):
    """The engine itself doesn't answer; nothing is known about the operation's end."""

    def __init__(self, message: str) -> None:
        super().__init__("RuntimeUnavailable", message)
