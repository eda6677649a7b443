"""Questions and answers on a node's own bus, so that daemon and mappers need not know the NATS client.

Requests here are never stored: an asker that gets no answer asks again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import structlog
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from bus.connect import Connection, NotConnected

log = structlog.get_logger(__name__)


class BusUnavailable(Exception):
    """Nobody answered in time, or there is no connection.  Whether the question arrived is unknown."""


Handler = Callable[[str, bytes], Awaitable[bytes | None]]  # subject, payload -> the answer, or None for no answer


async def ask(connection: Connection, subject: str, payload: bytes, timeout_s: float) -> bytes:
    """One question.  Raises BusUnavailable."""
    try:
        answer = await connection.request(subject, payload, timeout_s=timeout_s)
    except (NotConnected, NatsError, OSError) as e:
        raise BusUnavailable(f"asking {subject}: {type(e).__name__}: {e}") from e
    return answer.data


async def tell(connection: Connection, subject: str, payload: bytes = b"") -> None:
    """One message to whoever listens; may get lost.  Raises BusUnavailable."""
    try:
        await connection.client.publish(subject, payload)
    except (NotConnected, NatsError, OSError) as e:
        raise BusUnavailable(f"telling {subject}: {type(e).__name__}: {e}") from e


@asynccontextmanager
async def listening(
    connection: Connection, handlers: dict[str, Handler], *, again: Callable[[], None] | None = None
) -> AsyncIterator[None]:
    """Answers these subjects while in the context, over lost and renewed connections.

    ``again`` is called after each reconnection: what was told meanwhile is lost.  A handler that raises is a bug of its
    owner and logged as one; the asker gets no answer."""
    active = True

    def on_change(up: bool) -> None:
        if up and active and again is not None:
            again()

    connection.on_change(on_change)
    async with AsyncExitStack() as stack:
        try:
            for subject, handler in handlers.items():
                subscribed = await connection.subscribe(subject, _callback(connection, handler))
                stack.push_async_callback(subscribed.unsubscribe)
            yield
        finally:
            active = False


def _callback(connection: Connection, handler: Handler) -> Callable[[Msg], Awaitable[None]]:
    async def on_message(msg: Msg) -> None:
        try:
            answer = await handler(msg.subject, msg.data)
        except Exception:  # a handler's bug must not end the subscription for everyone else
            log.exception("bus.handler_failed", subject=msg.subject)
            return
        if answer is not None and msg.reply:
            with suppress(BusUnavailable):  # the asker will ask again
                await tell(connection, msg.reply, answer)

    return on_message
