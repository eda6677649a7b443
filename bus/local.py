"""Questions and answers on a node's own bus, so that daemon and mappers need not know the NATS client.

Requests here are never stored: an asker that gets no answer asks again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from bus.publisher import Connected

log = structlog.get_logger(__name__)

CHECK_S = 0.5  # how soon a listener moves to a new client after the link was made anew


class BusUnavailable(Exception):
    """Nobody answered in time, or there is no connection.  Whether the question arrived is unknown."""


Handler = Callable[[str, bytes], Awaitable[bytes | None]]  # subject, payload -> the answer, or None for no answer


async def ask(connection: Connected, subject: str, payload: bytes, timeout_s: float) -> bytes:
    """One question.  Raises BusUnavailable."""
    client = connection.client
    if not client.is_connected:
        raise BusUnavailable(f"asking {subject}: there is no connection to the node's bus")
    try:
        answer = await client.request(subject, payload, timeout=timeout_s)
    except (NatsError, OSError) as e:
        raise BusUnavailable(f"asking {subject}: {type(e).__name__}: {e}") from e
    return answer.data


async def tell(connection: Connected, subject: str, payload: bytes = b"") -> None:
    """One message to whoever listens; may get lost.  Raises BusUnavailable."""
    client = connection.client
    if not client.is_connected:
        raise BusUnavailable(f"telling {subject}: there is no connection to the node's bus")
    try:
        await client.publish(subject, payload)
    except (NatsError, OSError) as e:
        raise BusUnavailable(f"telling {subject}: {type(e).__name__}: {e}") from e


@asynccontextmanager
async def listening(
    connection: Connected, handlers: dict[str, Handler], *, again: Callable[[], None] | None = None
) -> AsyncIterator[None]:
    """Answers these subjects while in the context, over lost and renewed connections.

    ``again`` is called after each (re)connection: what was told meanwhile is lost.  A handler that raises is a bug of its
    owner and logged as one; the asker gets no answer."""
    task = asyncio.create_task(_listen(connection, handlers, again), name="bus.local.listen")
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _listen(connection: Connected, handlers: dict[str, Handler], again: Callable[[], None] | None) -> None:
    held: Client | None = None
    reconnects = 0
    subscriptions: list[Subscription] = []
    try:
        while True:
            client = connection.client
            if client.is_connected and (client is not held or client.stats["reconnects"] != reconnects):
                try:
                    if client is not held:
                        await _end(subscriptions)
                        subscriptions = await _begin(client, handlers)
                except (NatsError, OSError) as e:
                    log.warning("bus.listen_failed", subjects=sorted(handlers), error=f"{type(e).__name__}: {e}")
                else:
                    held, reconnects = client, client.stats["reconnects"]
                    if again is not None:
                        again()
            await asyncio.sleep(CHECK_S)
    finally:
        await _end(subscriptions)


async def _begin(client: Client, handlers: dict[str, Handler]) -> list[Subscription]:
    return [await client.subscribe(subject, cb=_callback(client, handler)) for subject, handler in handlers.items()]


async def _end(subscriptions: list[Subscription]) -> None:
    for subscription in subscriptions:
        with suppress(NatsError, OSError):  # the client is closed: its subscriptions went with it
            await subscription.unsubscribe()


def _callback(client: Client, handler: Handler) -> Callable[[Msg], Awaitable[None]]:
    async def on_message(msg: Msg) -> None:
        try:
            answer = await handler(msg.subject, msg.data)
        except Exception:  # a handler's bug must not end the subscription for everyone else
            log.exception("bus.handler_failed", subject=msg.subject)
            return
        if answer is not None and msg.reply:
            with suppress(NatsError, OSError):  # the asker will ask again
                await client.publish(msg.reply, answer)

    return on_message
