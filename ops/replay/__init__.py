"""The replay debugger: what happened, why, and what a node knew.

The parts that decide (``entries``, ``story``, ``slices``) are pure functions of what was read from the log; ``reading`` does
the reading, ``render`` the text.  ``ops/cli/replay.py`` puts them behind commands.
"""
