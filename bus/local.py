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

from bus.connect import Connection, NotConnected

log = structlog.get_logger(__name__)

RETRY_S = 0.5  # when subscribing failed: the connection broke in that moment


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
    if not connection.connected:
        raise BusUnavailable(f"telling {subject}: there is no connection to the node's bus")
    try:
        await connection.client.publish(subject, payload)
    except (NatsError, OSError) as e:
        raise BusUnavailable(f"telling {subject}: {type(e).__name__}: {e}") from e


@asynccontextmanager
async def listening(
    connection: Connection, handlers: dict[str, Handler], *, again: Callable[[], None] | None = None
) -> AsyncIterator[None]:
    """Answers these subjects while in the context, over lost and renewed connections.

    ``again`` is called after each (re)connection: what was told meanwhile is lost.  A handler that raises is a bug of its
    owner and logged as one; the asker gets no answer."""
    changed = asyncio.Event()
    connection.on_change(lambda _up: changed.set())
    task = asyncio.create_task(_listen(connection, handlers, changed, again), name="bus.local.listen")
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _listen(
    connection: Connection, handlers: dict[str, Handler], changed: asyncio.Event, again: Callable[[], None] | None
) -> None:
    """Subscribes, again whenever there is another client (the same one keeps its subscriptions)."""
    held: Client | None = None
    subscriptions: list[Subscription] = []
    try:
        while True:
            changed.clear()
            if connection.connected:
                client = connection.client
                try:
                    if client is not held:
                        await _end(subscriptions)
                        for subject, handler in handlers.items():
                            subscriptions.append(await client.subscribe(subject, cb=_callback(connection, handler)))
                        held = client
                except (NatsError, OSError) as e:
                    log.warning("bus.listen_failed", subjects=sorted(handlers), error=f"{type(e).__name__}: {e}")
                    await asyncio.sleep(RETRY_S)
                    continue
                if again is not None:
                    again()
            await changed.wait()
    finally:
        await _end(subscriptions)


async def _end(subscriptions: list[Subscription]) -> None:
    while subscriptions:
        with suppress(NatsError, OSError):  # the client is closed: its subscriptions went with it
            await subscriptions.pop().unsubscribe()


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
