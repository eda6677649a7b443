"""Reads what the debugger looks at: a stream and its history as one, in order, each sequence once.

HISTORY-X is a mirror of X with the same sequences; it has every version for some weeks, X has the last versions for ever,
and a mirror may lag a little.  Together they are the most that is known.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

from bus import fold, log
from bus.stores import base, lmdb_store, sealed
from ops.replay.entries import BadQuestion, Entry
from ops.replay.slices import Line
from schemas import codec, subjects

RECORDS_MAX = 1_000_000  # one question's worth: about 2 GB of memory; narrow the question instead
STORE_KEY = "SKERRY_STORE_KEY"  # as for `skerry edge run`
STORE_TRIES_MAX = 20  # a daemon commits some times a second at most; a quiet moment comes at once


class ReadError(Exception):
    """The log or a store can't be read as asked; the message says what to do."""


class Reader:
    def __init__(self, store: log.Log, shards: int) -> None:
        self._log, self._shards = store, shards

    def streams(self) -> list[str]:
        shards = range(self._shards)
        return ["CLUSTER", *(f"META-{n}" for n in shards), *(f"REPORT-{n}" for n in shards), "IDENTITY", "AUDIT"]

    async def epoch(self, stream: str) -> str:
        return (await self._log.info(stream)).epoch

    async def history_first(self, stream: str) -> int:
        """From which sequence on every version is known; 1: all there ever was."""
        info = await self._info(f"HISTORY-{stream}")
        return info.first_seq if info is not None and info.messages else (await self._log.info(stream)).last_seq + 1

    async def _info(self, stream: str) -> log.StreamInfo | None:
        try:
            return await self._log.info(stream)
        except log.LogUnavailable:
            raise
        except log.LogError:
            return None

    async def read(
        self, stream: str, filters: Sequence[str] = (), *, since_us: int = 0, up_to: int | None = None
    ) -> list[log.Recorded]:
        """Everything known of a stream under the filters, stored at ``since_us`` or later; [] without such a stream."""
        found: dict[int, log.Recorded] = {}
        for name in (stream, f"HISTORY-{stream}"):
            info = await self._info(name)
            if info is None or info.messages == 0:
                continue
            after = await self._before(name, info, since_us) if since_us else info.first_seq - 1
            for r in await self._all(name, list(filters), after, up_to, RECORDS_MAX - len(found)):
                if r.time_us >= since_us:
                    found.setdefault(r.seq, log.Recorded(stream, r.seq, r.subject, r.time_us, r.payload, r.headers))
        return [found[seq] for seq in sorted(found)]

    async def _all(
        self, stream: str, filters: list[str], after: int, up_to: int | None, records_max: int
    ) -> list[log.Recorded]:
        out: list[log.Recorded] = []
        async with aclosing(self._log.follow(stream, filters or None, after=after)) as batches:
            async for batch in batches:
                out += [r for r in batch.records if up_to is None or r.seq <= up_to]
                if len(out) > records_max:
                    raise ReadError(f"{stream}: more than {RECORDS_MAX} records: narrow the question (--since, an object)")
                past = up_to is not None and batch.records and batch.records[-1].seq >= up_to
                if batch.pending == 0 or past:
                    break
        return out

    async def _before(self, stream: str, info: log.StreamInfo, since_us: int) -> int:
        """A sequence before the first record stored at ``since_us``, by bisection: some twenty requests, not a scan."""
        low, high = info.first_seq, info.last_seq + 1
        while low < high:
            middle = (low + high) // 2
            record = await self._log.get(stream, middle)
            if record is not None and record.time_us >= since_us:
                high = middle
            elif record is not None:
                low = middle + 1
            else:
                # A hole (an overtaken version): its neighbours decide; without any, the earlier half keeps us safe.
                near = await self._neighbour(stream, middle + 1, high)
                if near is not None and near.time_us < since_us:
                    low = near.seq + 1
                else:
                    high = middle
        return low - 1

    async def _neighbour(self, stream: str, low: int, high: int, looks: int = 8) -> log.Recorded | None:
        for seq in range(low, min(high, low + looks)):
            if (record := await self._log.get(stream, seq)) is not None:
                return record
        return None

    async def entries(self, streams: Sequence[str], filters: Sequence[str] = (), *, since_us: int = 0) -> list[Entry]:
        """Entries of several streams in order of storing."""
        out = [entry_of(r) for s in streams for r in await self.read(s, filters, since_us=since_us)]
        return sorted(out, key=lambda e: (e.stored_us, e.stream, e.seq))

    async def slice_lines(self, scope: str, *, up_to: int | None = None) -> tuple[str, list[log.Recorded]]:
        """(META stream, records) of one scope."""
        stream = f"META-{subjects.shard_of(scope, self._shards)}"
        return stream, await self.read(stream, [subjects.meta_scope(scope, self._shards)], up_to=up_to)


def entry_of(record: log.Recorded) -> Entry:
    try:
        ev = record.event()
    except codec.DecodeError as e:
        return Entry(record.stream, record.seq, record.subject, record.time_us, None, str(e))
    return Entry(record.stream, record.seq, record.subject, record.time_us, ev)


def lines_of(records: Sequence[log.Recorded]) -> list[Line]:
    return [Line(r.seq, r.subject, r.payload) for r in records]


def _opened(folder: Path) -> base.Store:
    """Its values in plain text, with the key that $SKERRY_STORE_KEY names when they are sealed."""
    store = lmdb_store.LmdbStore(folder, read_only=True)
    if not sealed.is_sealed(store):
        return store
    try:
        key_file = os.environ.get(STORE_KEY)
        if not key_file:
            raise sealed.BadStoreKey(f"{folder} is sealed: name its key file in ${STORE_KEY}")
        return sealed.SealedStore(store, sealed.load_key(Path(key_file)))
    except BaseException:
        store.close()
        raise


def read_replica(folder: Path) -> tuple[dict[str, fold.Cursor], dict[bytes, bytes]]:
    """(cursor by scope, objects) of a node's store at one instant, while its daemon may be writing.

    Raises ReadError when there is no store or it is damaged."""
    if not (folder / "data.mdb").exists():
        raise ReadError(f"{folder} holds no replica: name the data folder of the node (--data)")
    try:
        store = _opened(folder)
    except base.StoreError as e:
        raise ReadError(str(e)) from e
    try:
        for _ in range(STORE_TRIES_MAX):
            before = dict(store.items("cursors"))
            held = dict(store.items("objects"))
            if dict(store.items("cursors")) == before:
                return {k.decode(): fold.Cursor.from_bytes(v) for k, v in before.items()}, held
    except base.StoreError as e:
        raise ReadError(str(e)) from e
    finally:
        store.close()
    raise ReadError(f"{folder} is written so often that no quiet moment was found; try again")


def need_node(scopes: Sequence[str], node: str) -> None:
    """Raises BadQuestion when a store is not of this node."""
    if node not in scopes:
        has = ", ".join(sorted(scopes)) or "(none)"
        raise BadQuestion(f"this is the store of another node: it has the scopes {has}, not {node}")
