"""Watch: one JSON document a line, until the client goes, the time is up, or the watcher is too slow.

API concepts, "Efficient detection of changes": synthetic ADDED without a resourceVersion, streaming lists
(``sendInitialEvents``), bookmarks, 410 as an ERROR event.  A selector turns changes into what its watcher sees: an object
that begins to match is ADDED, one that stops is DELETED (with its last matching state).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

from aiohttp import web

from bus.kube import errors
from bus.kube.http import answers, reading
from bus.kube.http.context import Context
from bus.kube.printing.columns import Printer
from bus.kube.storage import Change, Expired, Object, Stored
from bus.kube.targets import Filter

ENCODED_MAX = 512  # the newest changes, encoded once for all plain watchers of a kind
INITIAL_END = "k8s.io/initial-events-end"


class EncodedChanges:
    """Lines by (type, revision, version), so that a change costs one encoding however many watch it."""

    def __init__(self) -> None:
        self._lines: OrderedDict[tuple[str, int, str, str], bytes] = OrderedDict()

    def line(self, kind: str, api_version: str, stored: Stored, make: Any) -> bytes:
        key = (kind, stored.rev, api_version, str(stored.key))
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = _line(kind, make())
            if len(self._lines) > ENCODED_MAX:
                self._lines.popitem(last=False)
        return line


ENCODED = web.AppKey("encoded", EncodedChanges)


def _line(kind: str, obj: Object) -> bytes:
    return answers.encode({"type": kind, "object": obj}) + b"\n"


class _Stream:
    """What one watcher sees of the changes."""

    def __init__(self, ctx: Context, wanted: Filter) -> None:
        self._ctx, self._wanted = ctx, wanted
        res, ver = ctx.target.resource, ctx.target.version
        self._res, self._ver, self._registry = res, ver, ctx.server.registry
        self._encoded = ctx.request.app[ENCODED]
        self._printer: Printer | None = reading.printer(ctx) if ctx.output.form == "table" else None
        self._columns_sent = False

    async def prime(self, *stored: Stored | None) -> None:
        """Before they are shown, where a webhook converts them.  Raises StatusError 500."""
        if self._res.conversion is not None:
            objects = [s.object for s in stored if s is not None and self._wanted.matches(s.object)]
            await self._registry.converter.prime(objects, self._res, self._ver.name)

    def added(self, stored: Stored) -> bytes | None:
        return self._event("ADDED", stored) if self._wanted.matches(stored.object) else None

    def change(self, change: Change) -> bytes | None:
        """The line to send, if any."""
        if change.type == "BOOKMARK":
            return self.bookmark(change.rev) if self._ctx.flag("allowWatchBookmarks") else None
        now, old = change.stored, change.old
        assert now is not None
        had = old is not None and self._wanted.matches(old.object)
        has = change.type != "DELETED" and self._wanted.matches(now.object)
        if has:
            return self._event("MODIFIED" if had else "ADDED", now)
        if had and old is not None:  # its last matching state, at the revision of this change
            return self._event("DELETED", replace(old, rev=now.rev))
        return None

    def bookmark(self, rev: int, end_of_list: bool = False) -> bytes:
        meta: Object = {"resourceVersion": str(rev), "creationTimestamp": None}
        if end_of_list:
            meta["annotations"] = {INITIAL_END: "true"}
        if self._printer is not None:
            return _line("BOOKMARK", self._table([], rev, meta))
        if self._ctx.output.form == "partial":
            return _line("BOOKMARK", answers.partial({"metadata": meta}, self._ctx.output.version))
        head = {"kind": self._res.kind, "apiVersion": self._res.api_version(self._ver.name)}
        return _line("BOOKMARK", {**head, "metadata": meta})

    def _event(self, kind: str, stored: Stored) -> bytes:
        def show() -> Object:
            return self._registry.show(self._res, self._ver, stored)

        if self._printer is not None:
            return _line(kind, self._table([show()], stored.rev))
        if self._ctx.output.form == "partial":
            return _line(kind, answers.partial(show(), self._ctx.output.version))
        return self._encoded.line(kind, self._res.api_version(self._ver.name), stored, show)

    def _table(self, objects: list[Object], rev: int, meta: Object | None = None) -> Object:
        """Columns go with the first table only, as the real server does."""
        assert self._printer is not None
        table = self._printer.table(objects, str(rev), columns=not self._columns_sent, version=self._ctx.output.version)
        self._columns_sent = True
        if meta is not None:
            row = {"cells": [""] * self._printer.width, "object": answers.partial({"metadata": meta})}
            table["rows"] = [row]
        return table


async def watch(ctx: Context) -> web.StreamResponse:
    server, res, ver = ctx.server, ctx.target.resource, ctx.target.version
    fields = ctx.query.get("fieldSelector", "")
    if ctx.address.name:  # a watch of one named object
        fields = ",".join(f for f in (fields, f"metadata.name={ctx.address.name}") if f)
    wanted = Filter(res, ver, ctx.query.get("labelSelector", ""), fields)
    ctx.number("limit")  # means nothing to a watch, but it must be a number
    initial, after = await _start(ctx)
    asked = ctx.number("timeoutSeconds", minimum=-1)
    seconds = (0 if asked is not None and asked < 0 else asked) if asked else server.limits.watch_s_default
    if server.watches >= server.limits.watches_max:
        raise errors.too_many(f"this server has its {server.limits.watches_max} watches")
    stream = _Stream(ctx, wanted)
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Cache-Control": "no-cache, private"})
    response.enable_chunked_encoding()
    server.watches += 1
    try:
        async with asyncio.timeout(min(seconds, server.limits.watch_s_max)):
            await response.prepare(ctx.request)
            await _run(ctx, stream, response, initial, after)
    except TimeoutError:
        pass  # its time is up: the client watches on from where it is
    except ConnectionResetError:
        return response
    finally:
        server.watches -= 1
    await response.write_eof()
    return response


async def _start(ctx: Context) -> tuple[bool, int | None]:
    """Whether to begin with what there is, and from which revision to go on (None: from that of the list)."""
    rev, match = ctx.revision(), ctx.query.get("resourceVersionMatch", "")
    listed = "sendInitialEvents" in ctx.query
    causes = []
    if listed and match != "NotOlderThan":
        why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        causes.append(errors.not_permitted("resourceVersionMatch", why))
    if match and not listed:
        why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        causes.append(errors.not_permitted("resourceVersionMatch", why))
    if match not in ("", "NotOlderThan"):
        causes.append(errors.not_supported("resourceVersionMatch", match, ("NotOlderThan",)))
    if ctx.query.get("continue") and (match or (not listed and not rev)):  # who starts anew asks for the same, unsaid
        why = "resourceVersionMatch is forbidden when continue is provided"
        causes.append(errors.not_permitted("resourceVersionMatch", why))
    if causes:
        raise errors.invalid("meta.k8s.io", "ListOptions", "", causes)
    if rev:
        await ctx.server.registry.wait_revision(rev)
    if listed and ctx.flag("sendInitialEvents"):
        return True, None
    if not rev:
        return not listed, None
    return False, rev


async def _run(ctx: Context, stream: _Stream, response: web.StreamResponse, initial: bool, after: int | None) -> None:
    reader, res = ctx.server.registry.reader, ctx.target.resource
    namespace = ctx.address.namespace if res.namespaced else None
    write_s = ctx.server.limits.write_s

    async def send(line: bytes | None) -> None:
        if line is None:
            return
        try:
            async with asyncio.timeout(write_s):
                await response.write(line)
        except TimeoutError as e:
            raise ConnectionResetError(f"the client read nothing for {write_s} s") from e

    start = reader.revision() if after is None else after
    if initial:
        for stored in reader.list(*res.place, namespace):
            await stream.prime(stored)
            await send(stream.added(stored))
        if ctx.flag("sendInitialEvents"):
            await send(stream.bookmark(start, end_of_list=True))
    changes = reader.watch(*res.place, namespace, after=start)
    try:
        async for change in changes:
            await stream.prime(change.stored, change.old)
            await send(stream.change(change))
    except errors.StatusError as e:  # an object that can't be shown: the client begins again
        await send(_line("ERROR", e.as_status()))
    except Expired as e:
        await send(_line("ERROR", errors.expired(f"too old resource version: {e}").as_status()))
    finally:
        if isinstance(changes, AsyncGenerator):  # leaves the fan-out now, not when it is collected
            await changes.aclose()
