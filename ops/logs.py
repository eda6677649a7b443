"""What our processes say while they run: key-values for people on a terminal, JSON lines for machines; never a secret.

$SKERRY_LOG is ``json`` or ``text`` (default: by whether standard error is a terminal), $SKERRY_LOG_LEVEL is ``debug``,
``info`` (default), ``warning`` or ``error``.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import MutableMapping
from typing import Any

# structlog draws tracebacks with rich when rich can be imported: 5 MB in a daemon that never shows one on a terminal.
if "rich" not in sys.modules:
    sys.modules["rich"] = None  # type: ignore[assignment]  # the import system's own way to say "not there"
    import structlog

    del sys.modules["rich"]
else:
    import structlog

HIDDEN = "(hidden)"
VALUE_CHARS_MAX = 2000  # one line of log must not carry an object
_SECRET_NAMES = re.compile(r"(?i)(^|_)(seed|secret|password|passwd|token|jwt|authorization|private_key)s?$")
_SECRET_VALUES = re.compile(
    r"\bS[UAOCNX][A-Z2-7]{56}\b"  # nkey seeds
    r"|\beyJ[\w-]{10,}\.[\w-]+\.[\w-]+"  # JWTs
    r"|\bskerry1\.[\w-]+"  # join tokens
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?-----END [A-Z ]*PRIVATE KEY-----"
)


def hide_secrets(_logger: object, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """By name and by shape: whoever logs a thing is not trusted to know what is in it."""
    for name, value in line.items():
        line[name] = HIDDEN if _SECRET_NAMES.search(name) and value else _clean(value)
    return line


def _clean(value: object) -> object:
    if isinstance(value, bool | int | float | None):
        return value
    named = hasattr(value, "_fields")  # a tuple with a name (an object's key) says itself how it reads
    if isinstance(value, list | tuple) and not named and all(isinstance(v, str | int | float) for v in value):
        return [_clean(v) for v in value]
    return _SECRET_VALUES.sub(HIDDEN, str(value))[:VALUE_CHARS_MAX]


def configure(*, json: bool | None = None, level: str | None = None) -> None:
    """Sets structlog and the standard library's logging up, once per process, to standard error."""
    wanted = os.environ.get("SKERRY_LOG", "")
    as_json = json if json is not None else wanted == "json" or (wanted != "text" and not sys.stderr.isatty())
    number = logging.getLevelNamesMapping().get(
        (level or os.environ.get("SKERRY_LOG_LEVEL") or "info").upper(), logging.INFO
    )
    renderer: Any = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if as_json
        else structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info if as_json else _keep,
            hide_secrets if as_json else _hide_but_keep_exceptions,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=max(number, logging.WARNING), stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")


def _keep(_logger: object, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return line


def _hide_but_keep_exceptions(logger: object, method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    exc_info = line.pop("exc_info", None)
    hide_secrets(logger, method, line)
    if exc_info is not None:
        line["exc_info"] = exc_info
    return line
