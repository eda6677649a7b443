"""``python -m ops.cli`` is ``skerry``."""

from ops.cli import entry

entry()
