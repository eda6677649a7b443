"""The edge daemon: the parts of a node, wired together, in the order in which they may start.

    identity   who we are (from `skerry edge join`)
    store      the replica and the outbox on disk; a damaged one is set aside, and the replica is synced again
    leaf       the node's own bus, supervised; it outlives the daemon, so telemetry goes on while we restart
    pods       what runs; fed from the replica as it is on disk before anything is asked of the cloud
    twins      devices and mappers
    link       proves that the cloud can be reached; tells replica and outbox
    node api   logs, commands and ports of pods, for who asks the cloud

Nothing below depends on the cloud being there.  A part that fails takes the daemon down with it, and systemd starts it anew:
containers and leaf go on meanwhile, and are adopted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import structlog
from pydantic import BaseModel

from bus import connect, fold, link, log, outbox, replica, stamp, tasks
from bus.hub import leaf, supervise, uplink
from bus.identity import join
from bus.stores import base
from bus.stores import check as store_check
from bus.stores.lmdb_store import LmdbStore
from edge import fence, memory, sd_notify, state, told
from edge.containers.settings import RuntimeSettings
from edge.core.twins import Report as TwinTold
from edge.effects import PodsRim
from edge.node_api.serve import NodeApi
from edge.node_status import NodeStatus
from edge.twins import STATE_PREFIX, TwinsRim
from schemas import codec, event, node_status, pod_tokens, reports, subjects, sync
from schemas.joining import NodeIdentity

logger = structlog.get_logger(__name__)

ALL = "all"
STORE_OPEN_RETRY_S = 5.0
DEVICES = "devices.kubeedge.io"
WATCHDOG_S = 10.0
NODE_LOOK_S = 60.0  # pressure, addresses and sizes of the machine are looked at this often
DIRECT_RTT_S = 900.0  # beats prove the link; this finds the dead connection under them, when nothing else has
ENGINE_WAIT_US = 5_000_000  # a node is not called unready before its engine had this long to answer


@dataclass(frozen=True, slots=True)
class Settings:
    """``data_dir`` holds identity, store, leaf and volumes.  Times in seconds."""

    data_dir: Path
    link_mode: Literal["leaf", "direct"] = "leaf"
    beat_s: float = link.BEAT_S
    leaf_port: int = leaf.PORT_DEFAULT
    leaf_urls: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    store_key: Path | None = None  # a file; then the store is sealed with it (bus/stores/sealed.py)
    store_key_in: Literal["file", "tpm"] | None = None  # how that file keeps it from now on; None: as it does
    store_key_pcrs: str = ""  # which PCRs of the TPM must not change, ``sha256:7``


def open_store(
    path: Path, key_file: Path | None = None, kept: Literal["file", "tpm"] | None = None, pcrs: str = ""
) -> base.Store:
    """The node's store, sealed when there is a key.  A damaged one is moved aside (one is kept, for a look): losing it costs
    a resync, no container.  Raises BadStoreKey, TpmError: that is no damage."""
    key = _store_key(key_file, kept, pcrs)
    try:
        store_check.check(path)
        store = _opened(path, key)
        try:
            read_all(store)
        except base.StoreCorrupt:
            store.close()
            raise
        return store
    except base.StoreCorrupt as e:
        aside = path.with_name(path.name + ".damaged")
        logger.error("store.damaged", error=str(e), moved_to=str(aside))
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
        return _opened(path, key)


def _store_key(key_file: Path | None, kept: Literal["file", "tpm"] | None, pcrs: str) -> bytes | None:
    if key_file is None:
        return None
    from bus.stores import sealed

    return sealed.load_key(key_file, make=True, kept=kept, pcrs=pcrs)


def _opened(path: Path, key: bytes | None) -> base.Store:
    from bus.stores import sealed

    store = LmdbStore(path)
    try:
        if key is not None:
            return sealed.SealedStore(store, key)
        if sealed.is_sealed(store):
            raise sealed.BadStoreKey(f"{path} is sealed: name its key file (--store-key)")
    except BaseException:
        store.close()
        raise
    return store


def read_all(store: base.Store) -> None:
    """Whether what is in the store can be understood: a sound tree may hold damaged bytes.  Raises StoreCorrupt."""
    for _, cursor in store.items("cursors"):
        fold.Cursor.from_bytes(cursor)
    for key, value in store.items("objects"):
        try:
            codec.decode_event(fold.split_value(value)[1])
        except codec.UnknownVersion:
            continue  # from the future: kept as it is
        except codec.DecodeError as e:
            raise base.StoreCorrupt(f"the object {key[:160]!r} is damaged: {e}") from e
    outbox.check(store)


class Daemon:
    """Everything about a running node; ``run`` until cancelled."""

    def __init__(
        self,
        settings: Settings,
        identity: NodeIdentity,
        store: base.Store,
        connection: connect.Connection,
        leaf_server: supervise.NatsServer | None = None,
        leaf_system: connect.ConnectSettings | None = None,
    ) -> None:
        node = identity.node
        self.settings, self.node, self.store, self.connection = settings, node, store, connection
        self.started_us = self.link_since_us = stamp.now_us()
        self._troubles: dict[str, str] = {}  # who could not write the store -> why
        self._leaf = leaf_server
        self.box = outbox.Outbox(store)
        self.state = state.NodeState(
            node, identity.shards, store, self.box, on_trouble=lambda t: self._on_trouble("state", t)
        )
        self.pods = PodsRim(
            node=node,
            data_dir=settings.data_dir / "pods",
            runtime=RuntimeSettings(hub=identity.hub),  # nodes of one name but of two hubs may share an engine
            report=self._report,
            ready_changed=self.report_node,
        )
        self.twins: TwinsRim | None = None
        if settings.link_mode == "leaf":  # without a bus of its own a node has no mappers
            self.twins = TwinsRim(node, connection, dict(self.state.items(STATE_PREFIX)), self._commit_twins)
        self.replica = replica.Replica(
            node,
            [node, ALL],
            store,
            on_change=self._changed,
            on_synced=self._synced,
            on_trouble=lambda t: self._on_trouble("replica", t),
        )
        self.link = link.Link(
            connection,
            node,
            self._beat,
            on_up=self._link_up,
            on_down=self._link_down,
            on_answer=self._marked,
            beat_s=settings.beat_s,
        )
        self.uplink: uplink.Uplink | None = None
        if leaf_system is not None:
            # What was told while the link was dead is lost: a new one is as good as another connection.
            self.uplink = uplink.Uplink(lambda: self.leaf_pid, leaf_system, on_dropped=lambda: self.link.nudge(renewed=True))
        self.renewer = join.Renewer(
            settings.data_dir, connection, linked=lambda: self.link.state == "up", on_trust=self._trust_changed
        )
        self._node_changed = asyncio.Event()
        self._say_again = False
        # Short: 8 characters in every beat are 2 kB a day.
        self._run, self._boot = secrets.token_urlsafe(6), stamp.boot_id()[:8]
        self._node_status = NodeStatus(node, settings.data_dir, settings.labels)

    async def run(self) -> None:
        facts = self.replica.facts()
        for fact in facts:
            if fact.event is not None:
                self._give(fact.event, fact.seq, loaded=True)
        if self.twins is not None:
            self.twins.objects_loaded()
        if self.replica.complete:
            self.pods.replica_complete()
        logger.info("edge.started", node=self.node, objects=len(facts), outbox=self.box.pending)
        hub = log.Log(self.connection)
        way = fence.Fence(hub, self.link)
        await self.replica.attach(self.connection)
        if self.settings.link_mode == "leaf":
            await self.connection.subscribe(node_status.LOCAL_NODE_STATUS, self._answer_status)
        await self.connection.subscribe(subjects.command(self.node, "beat"), self._asked)
        self.connection.on_change(self.link.nudge)
        if self.uplink is not None:
            self.connection.on_doubt(self.uplink.doubt)
        try:
            async with asyncio.TaskGroup() as parts:
                for name, part in (
                    ("pods", self.pods.run()),
                    ("replica", self.replica.run()),
                    ("outbox", self.box.run(way, way)),
                    ("link", self.link.run()),
                    ("node api", NodeApi(self.connection, self.node, self.pods).run()),
                    ("node", self._reporting()),
                    ("watchdog", self._watchdog()),
                    ("memory", memory.keep_small()),
                    ("renewer", self.renewer.run()),
                ):
                    parts.create_task(part, name=name)
                if self.uplink is not None:
                    parts.create_task(self.uplink.run(), name="uplink")
                if self.twins is not None:
                    parts.create_task(self.twins.run(), name="twins")
                sd_notify.notify("READY=1")
        finally:
            self.state.close()
            await hub.close()

    @property
    def leaf_pid(self) -> int | None:
        return None if self._leaf is None else self._leaf.pid

    # --- what the parts tell each other

    def _changed(self, changes: list[replica.Applied]) -> None:
        for change in changes:
            if change.fact.event is not None:
                self._give(change.fact.event, change.fact.seq, loaded=False)

    def _give(self, ev: event.Event, seq: int, *, loaded: bool) -> None:
        """One object to the part that lives from it."""
        if ev.group == DEVICES:
            if self.twins is not None:
                self.twins.object_applied(ev, seq)
        elif ev.group in ("", pod_tokens.GROUP) and ev.resource != "nodes":
            self.pods.object_applied(ev, seq, loaded=loaded)

    def _synced(self) -> None:
        logger.info("replica.synced", **{s: c.seq for s, c in self.replica.cursors().items()})
        self.pods.replica_complete()
        self._told_to()
        sd_notify.notify(f"STATUS=in sync, {self.store.count('objects')} objects")

    def _mark(self) -> bytes:
        return sync.epochs_mark([c.epoch for c in self.replica.cursors().values()])

    def _marked(self, mark: bytes) -> None:
        """The cloud says of which epochs our cursors must be (cloud/epochs.py), and when a clone spoke for us."""
        if mark.startswith(reports.AGAIN):
            mark = mark.removeprefix(reports.AGAIN)
            self._say_all("another daemon spoke as this node")
        if self.replica.synced and mark and mark != self._mark():
            logger.warning("replica.epoch_changed", node=self.node)
            self.replica.link_up()
        else:
            self._told_to()

    def _told_to(self) -> None:
        if self.replica.synced:
            told.told_to(self.state, self._mark(), self._say_all)

    def _say_all(self, why: str) -> None:
        logger.info("reports.again", node=self.node, reason=why)
        self.pods.report_all()
        if self.twins is not None:
            self.twins.report_all()
        self._say_again = True
        self.report_node()

    async def _asked(self, msg: connect.Message) -> None:
        """The cloud wants a beat (the hub told of our link, or we were silent for long), or to hear everything again."""
        if msg.data == reports.AGAIN:
            self._say_all("the log has no longer what we said")
        if msg.data == reports.RENEW:
            self.renewer.now()
        self.link.nudge(renewed=msg.data == reports.RENEWED)

    async def _trust_changed(self) -> None:
        """The leaf has read whom to trust when it started."""
        if self._leaf is not None:
            try:
                await self._leaf.reload()
            except supervise.ServerError as e:  # it reads it when it is started again
                logger.warning("leaf.not_reloaded", reason=str(e))

    def _link_up(self) -> None:
        self.link_since_us = stamp.now_us()
        self.replica.link_up()
        self.box.link_up()

    def _link_down(self) -> None:
        self.link_since_us = stamp.now_us()
        self.replica.link_down()
        sd_notify.notify("STATUS=the cloud can't be reached; going on by what was synced last")

    @property
    def trouble(self) -> str:
        """Why the store can't be written, "" when it can."""
        return next((t for t in self._troubles.values() if t), "")

    def _on_trouble(self, who: str, text: str) -> None:
        before = self.trouble
        self._troubles[who] = text
        if self.trouble != before:
            logger.log(40 if self.trouble else 20, "store.trouble", reason=self.trouble or "over")
            self.report_node()

    def _report(
        self, kind: str, namespace: str, name: str, payload: BaseModel, cause: str | None, trace: str | None
    ) -> None:
        self.state.commit({}, [state.Report(kind, namespace, name, payload, cause, trace)])

    def _commit_twins(self, state_puts: Mapping[bytes, bytes | None], reports: Sequence[TwinTold]) -> None:
        said = [state.Report("twin", r.namespace, r.name, r.report, r.cause, r.trace) for r in reports]
        self.state.commit_now(state_puts, said)

    # --- what the node says of itself

    def _beat(self) -> reports.Beat:
        heads = {s: c.seq for s, c in self.replica.cursors().items()}
        return reports.Beat(boot=self._boot, time=stamp.now_us(), heads=heads, outbox=self.box.pending, run=self._run)

    def report_node(self) -> None:
        """The node's own report is looked at again soon."""
        self._node_changed.set()

    async def _reporting(self) -> None:
        """Says what the node is when that changed: at start, when the engine or the store comes or goes, and by a look."""
        said: reports.NodeReport | None = None
        while True:
            self._node_changed.clear()
            ready, reason = self.pods.runtime_ready
            report = self._node_status.report(
                ready, reason, self.pods.engine, self.trouble, volumes=self.pods.volumes_in_use()
            )
            if (report != said or self._say_again) and (
                ready or said is not None or stamp.now_us() - self.started_us > ENGINE_WAIT_US
            ):
                said, self._say_again = report, False
                self._report("node", "", "", report, None, None)
                self.pods.node_facts(self._node_status.facts())
            wait = NODE_LOOK_S if said is not None else 0.5
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._node_changed.wait()

    async def _watchdog(self) -> None:
        """systemd restarts us when the loop is stuck (WatchdogSec=)."""
        while True:
            sd_notify.notify("WATCHDOG=1")
            await asyncio.sleep(WATCHDOG_S)

    async def _answer_status(self, msg: connect.Message) -> None:
        with contextlib.suppress(base.StoreError, connect.NotConnected):
            await self.connection.publish(msg.reply, codec.encode(self.status()))

    def status(self) -> node_status.DaemonStatus:
        scopes = {}
        for scope, cursor in self.replica.cursors().items():
            held = self.replica.held(scope)
            scopes[scope] = node_status.ScopeStatus(
                epoch=cursor.epoch, cursor=cursor.seq, objects=held.objects, bytes=held.bytes
            )
        s = self.replica.stats
        ready, reason = self.pods.runtime_ready
        return node_status.DaemonStatus(
            node=self.node,
            version=stamp.VERSION,
            pid=os.getpid(),
            started=self.started_us,
            link=self.link.state,
            fenced=self.link.fenced,
            link_since=self.link_since_us,
            link_mode=self.settings.link_mode,
            leaf_pid=self.leaf_pid,
            replica=node_status.ReplicaStatus(
                synced=self.replica.synced,
                complete=self.replica.complete,
                scopes=scopes,
                live_events=s.live_events,
                live_bytes=s.live_bytes,
                catch_ups=s.answers,
                page_events=s.page_events,
                page_bytes=s.page_bytes,
                resets=s.resets,
                refused=s.refused,
                last_refused=s.last_refused,
                trouble=self.trouble,
            ),
            outbox_pending=self.box.pending,
            outbox_sent=self.box.sent,
            outbox_overtaken=self.box.overtaken,
            runtime_ready=ready,
            runtime_reason=reason,
        )


# --- starting and ending ------------------------------------------------------------------------------------------------


async def run(settings: Settings) -> None:
    """Until cancelled.  Raises join.NotJoined, leaf.LeafError, supervise.ServerError, base.StoreError.

    The leaf goes on after us: telemetry is kept while the daemon restarts.  ``stop_leaf`` ends it."""
    identity = join.load(settings.data_dir)
    store = await _patient_store(settings)
    server: supervise.NatsServer | None = None
    leaf_system: connect.ConnectSettings | None = None
    connection: connect.Connection | None = None
    try:
        if settings.link_mode == "leaf":
            node_leaf = leaf.prepare(
                leaf.LeafSettings(settings.data_dir, port=settings.leaf_port, hub_urls=settings.leaf_urls)
            )
            server = node_leaf.server()
            leaf_system = node_leaf.system(f"edge {identity.node}: uplink")
            await server.start()
            connection = await connect.connect(node_leaf.daemon(f"edge {identity.node}"))
            await leaf.ensure_leaf_streams(log.Log(connection), identity.node)
            # Whom to trust may have changed, and we have ended before the server was told.  Not earlier: one that reads its
            # configuration again may drop a connection that was just made, which the daemon stands and a start doesn't.
            if server.adopted and server.outdated(join.ca_path(settings.data_dir), join.creds_path(settings.data_dir)):
                await server.reload()
        else:
            connection = await _direct(settings, identity)
        await Daemon(settings, identity, store, connection, server, leaf_system).run()
    finally:
        sd_notify.notify("STOPPING=1")
        if connection is not None:
            await connection.close()
        if server is not None:
            await server.release()
        store.close()


async def _direct(settings: Settings, identity: NodeIdentity) -> connect.Connection:
    """As soon as the hub is there.  What expired meanwhile, or whom to trust, is renewed."""
    direct = connect.ConnectSettings(
        tuple(identity.urls),
        f"edge {identity.node}",
        credentials=join.direct_creds_path(settings.data_dir),
        ca=join.ca_path(settings.data_dir),
        inbox=subjects.inbox(identity.node),
        wait_s=None,
        rtt_every_s=DIRECT_RTT_S,
    )
    renewer = join.Renewer(settings.data_dir, linked=lambda: False)
    renewing = asyncio.create_task(renewer.run(), name="renewer")
    try:
        return await connect.connect(direct)
    finally:
        await tasks.end(renewing)


async def _patient_store(s: Settings) -> base.Store:
    """A disk that is full now may have room later; what runs on the node goes on meanwhile."""
    while True:
        try:
            return open_store(s.data_dir / "store", s.store_key, s.store_key_in, s.store_key_pcrs)
        except base.StoreFull as e:
            logger.error("store.full", error=str(e))
            sd_notify.notify(f"STATUS=waiting for disk space: {e}")
        except OSError as e:
            logger.error("store.unusable", error=str(e))
            sd_notify.notify(f"STATUS=the store can't be used: {e}")
        await asyncio.sleep(STORE_OPEN_RETRY_S)
