"""What a fenced daemon may not do: report in the name of a node that another daemon is (cloud/clones.py).

Its reports stay in the outbox.  What runs on the machine goes on; the operator decides which of the two is the node.
"""

from __future__ import annotations

from collections.abc import Sequence

from bus import link, log


class Fence:
    """The log as the outbox sees it."""

    def __init__(self, hub: log.Log, link_: link.Link) -> None:
        self._hub, self._link = hub, link_

    async def append_bytes(self, subject: str, payload: bytes, msg_id: str) -> int:
        """Raises LogUnavailable while the link is fenced, else what the log raises."""
        if self._link.fenced:
            raise log.LogUnavailable("another daemon holds this node's identity")
        return await self._hub.append_bytes(subject, payload, msg_id)

    async def append_run(self, subject: str, run: Sequence[tuple[bytes, str]]) -> None:
        """The same for several at once."""
        if self._link.fenced:
            raise log.LogUnavailable("another daemon holds this node's identity")
        await self._hub.append_run(subject, run)
