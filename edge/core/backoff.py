"""How long a crashed container waits, and how a failed effect is tried again.

The waiting time before an attempt is written on the container itself (a label), so a restarted daemon goes on where the
dead one was.  Source of the figures: Kubernetes, "Pod Lifecycle", container restart policy: at once, then 10 s doubling
up to 5 min, forgotten after 10 min of running.
"""

from __future__ import annotations

from edge.core.settings import PodSettings

NEVER_CRASHED = -1


def next_crash_delay_ms(previous_delay_ms: int, ran_us: int, settings: PodSettings) -> int:
    """Delay before the next attempt; ``previous_delay_ms`` preceded this one (NEVER_CRASHED for the first)."""
    if previous_delay_ms == NEVER_CRASHED or ran_us >= settings.crash_reset_ms * 1000:
        return 0
    if previous_delay_ms == 0:
        return settings.crash_base_ms
    return min(previous_delay_ms * 2, settings.crash_max_ms)


def doubling_ms(failures: int, base_ms: int, max_ms: int) -> int:
    """Delay after so many failures in a row (1 is the first)."""
    return min(base_ms << min(max(failures, 1) - 1, 20), max_ms)
