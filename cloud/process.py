"""The cloud processes: what runs beside a hub.  One process with all parts is the small installation; several, with all or
some parts each, are the large one (the parts share nothing but the log).  api, sync and join serve side by side; what must
not run twice (controllers, reports, the bridge, each shard of the dispatcher) is led by one process (cloud/core/leases.py).

    api          the standalone Kubernetes API, its storage CLUSTER; logs and exec through to the nodes
    controllers  what a cluster would bring: deployments, replica sets, scheduler, garbage collection, namespaces
    dispatcher   CLUSTER -> META, what every scope is owed
    reports      REPORT and beats -> the API's statuses
    sync         answers the catch-up of replicas
    join         lets nodes in, renews their credentials

With a cluster there is a bridge to it in the place of api, controllers and reports (cloud/bridge).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import ssl
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from bus import connect, log, stamp, tunnel
from bus.hub import init, nudger, streams
from bus.identity import api_keys
from bus.kube import registry, server
from bus.kube.auth import account_tokens
from cloud import (
    access_log,
    beats,
    behind,
    epochs,
    fairness,
    gatekeeper,
    hints,
    joining,
    leases,
    reports,
    revoking,
    sharding,
    sync,
    telemetry_sources,
)
from cloud.bridge import bridge, client, credentials, election
from cloud.core import reports as reports_core
from cloud.kubelet import serve as kubelet_serve
from cloud.kubelet import settings as kubelets
from cloud.node_api import usages
from cloud.node_api.serve import NodeApi
from cloud.standalone import access, api_service, pod_tokens, rules, run_controllers, storage, switches
from schemas import identity, subjects
from schemas import reports as node_reports

logger = structlog.get_logger(__name__)

PARTS = ("api", "controllers", "dispatcher", "reports", "sync", "join")
BRIDGE_PARTS = ("bridge", "dispatcher", "sync", "join")
STREAMS_RETRY_S = 1.0
GC_THRESHOLDS = (20_000, 20, 20)  # a thousand events in flight are not garbage; Python's 700 looks at them ten times over


@dataclass(frozen=True, slots=True)
class Settings:
    """``listen`` is ``host:port`` of the API (port 0: any).  ``grace_s``: how long a link may be silent.

    ``cluster`` is the kubeconfig of a cluster to bridge to; ``in_cluster``: the one whose pod we are."""

    hub_dir: Path
    listen_host: str = "127.0.0.1"
    listen_port: int = 6443
    kubeconfig: Path | None = None
    parts: Sequence[str] = ()  # none named: all
    controllers: Sequence[str] = ("*",)  # switches, as cloud/standalone/switches.py reads them
    issuers: Sequence[str] = ()  # of service account tokens; none: the one that every cluster has by default
    grace_s: float = reports_core.GRACE_US / 1e6
    credentials_s: int = joining.JWT_S_DEFAULT  # how long a node's credentials live; it renews them at two thirds of it
    hosts: Sequence[str] = ()
    cluster: Path | None = None
    in_cluster: bool = False
    kubelet: kubelets.Settings | None = None  # with a cluster: where its API server finds the nodes' kubelets

    @property
    def bridged(self) -> bool:
        return self.in_cluster or self.cluster is not None

    @property
    def known_parts(self) -> tuple[str, ...]:
        return BRIDGE_PARTS if self.bridged else PARTS


class CloudProcess:
    """``run`` until cancelled; ``port`` is the API's once ``ready`` is set, ``kubelet_port`` the kubelets'.  Raises
    CredentialsError for a cluster's, BadSettings for the kubelets'.  ``whole``: the operating system's process is nothing
    else, so its garbage collector is ours to set."""

    def __init__(self, settings: Settings, *, whole: bool = False) -> None:
        self._whole = whole
        known = settings.known_parts
        unknown = [p for p in settings.parts if p not in known]
        if unknown:
            raise ValueError(f"unknown parts {unknown}; there are {', '.join(known)}")
        self.settings = settings if settings.parts else replace(settings, parts=known)
        self._controllers = switches.enabled(settings.controllers, run_controllers.CONTROLLERS)
        self._who: credentials.Credentials | None = None
        if "bridge" in self.settings.parts:
            self._who = credentials.load(None if settings.in_cluster else settings.cluster)
        if settings.kubelet is not None:
            settings.kubelet.check()
        self.ready = asyncio.Event()
        self.port = self.kubelet_port = 0

    async def run(self) -> None:
        s = self.settings
        hub = init.load_hub(s.hub_dir)
        if self._whole:
            gc.set_threshold(*GC_THRESHOLDS)
        async with AsyncExitStack() as stack:
            core = await connect.connect(
                connect.ConnectSettings(
                    tuple(hub.urls), f"cloud {'+'.join(s.parts)}", credentials=hub.core_creds, ca=hub.ca_path, wait_s=None
                )
            )
            stack.push_async_callback(core.close)
            store = log.Log(core)
            stack.push_async_callback(store.close)
            await _streams(store, hub)
            async with asyncio.TaskGroup() as parts:
                await self._start(hub, core, store, stack, parts)
                self.ready.set()
                logger.info("cloud.ready", parts=list(s.parts), port=self.port or None)
                # Some parts only listen and have no task here: without this, a process of such parts would serve nothing.
                await asyncio.Event().wait()

    async def _start(
        self, hub: init.Hub, core: connect.Connection, store: log.Log, stack: AsyncExitStack, parts: asyncio.TaskGroup
    ) -> None:
        s = self.settings
        me = stamp.new_id()
        watch = access_log.AccessLog(store)
        parts.create_task(watch.run(), name="access log")
        sys = await self._sys(hub, stack)
        gate = gatekeeper.Gatekeeper(store, hub, sys, tell=watch.tell)
        parts.create_task(gate.run(), name="gatekeeper")
        if "sync" in s.parts:
            flood, spent = watch.on_flood("sync"), gate.spender("sync")
            service = sync.SyncService(core, store, shards=hub.shards, on_flood=flood, on_spent=spent)
            await service.start()
            stack.push_async_callback(service.stop)
        if "join" in s.parts:
            nudging = leases.Campaign(store, "nudger", me)
            parts.create_task(nudging.run(nudger.Nudger(sys, store, hub.file.edge).run), name="nudger")
            sourcing = leases.Campaign(store, "telemetry-sources", me)
            sources = telemetry_sources.TelemetrySources(store)

            async def say_again(node: str) -> None:
                with contextlib.suppress(connect.NotConnected):  # it says everything when it is back
                    await core.publish(subjects.command(node, "beat"), node_reports.AGAIN)

            fair = fairness.Fairness(store, hub.shards, pause=sources.pause, say_again=say_again, tell=watch.tell)

            async def fetch() -> None:
                """Both end together, when another process leads: who is paused is known to one alone."""
                async with asyncio.TaskGroup() as work:
                    work.create_task(sources.run(), name="telemetry sources")
                    work.create_task(fair.run(), name="fairness")

            parts.create_task(sourcing.run(fetch), name="telemetry")
            keeper = revoking.Revoking(store, hub, sys, lambda: [d.public_key for d in gate.shut().values()])
            parts.create_task(leases.Campaign(store, "revocations", me).run(keeper.run), name="revocations")
            joins = joining.JoinService(core, store, hub, sys=sys, jwt_s=s.credentials_s)
            await joins.start()
            stack.push_async_callback(joins.stop)
        if "dispatcher" in s.parts:
            sharded = sharding.ShardedDispatcher(store, hub.shards, me, on_fold=self._fold)
            parts.create_task(sharded.run(), name="dispatcher")
        if "bridge" in s.parts:
            await self._bridge(hub, core, store, me, watch, gate, sys, stack, parts)
        if {"api", "controllers", "reports"} & set(s.parts):
            cluster = storage.ClusterStorage(store)
            await cluster.start()
            stack.push_async_callback(cluster.stop)
            keys = api_keys.Ring(api_keys.seal_of(hub))
            await keys.start(store)
            parts.create_task(keys.run(store), name="api keys")
            issuer = rules.make_issuer(cluster, keys, names=tuple(s.issuers) or (account_tokens.ISSUER,))
            ruled = rules.make_registry(cluster, issuer=issuer)
            if "reports" in s.parts:
                worker = reports.ReportsWorker(
                    store, ruled, hub.shards, grace_s=s.grace_s, on_spent=functools.partial(gate.spend, "report")
                )
                parts.create_task(leases.Campaign(store, "reports", me).run(worker.run), name="reports")
                await self._listen(hub, core, store, watch, worker, worker.loaded.is_set, gate, sys, stack, parts)
            if "controllers" in s.parts:
                leading = leases.Campaign(store, "controllers", me)
                names, root_ca = self._controllers, hub.ca_path.read_text()

                dialer = tunnel.Dialer(core)
                await dialer.start()
                stack.push_async_callback(dialer.stop)
                used = usages.Usages(dialer, ruled.now_us)
                stack.push_async_callback(used.stop)

                async def control() -> None:
                    """Both end together, when another process leads."""
                    running = run_controllers.ControllerRunner(
                        ruled, names, leads=lambda: leading.leads, root_ca=root_ca, usage=used.ask
                    )
                    async with asyncio.TaskGroup() as work:
                        work.create_task(running.run(), name="controllers")
                        work.create_task(pod_tokens.PodTokens(cluster, issuer).run(), name="pod tokens")

                parts.create_task(leading.run(control), name="controllers")
            if "api" in s.parts:
                await self._serve(hub, ruled, core, stack, parts)

    def _fold(self, there: bool) -> None:
        """What was folded stays, and a full collection that looks at it all again finds nothing for seconds: 0.9 s at
        30,000 objects, in which no event is carried.  Counts free it all the same; what they can't when a fold is given up
        is left to the collector again."""
        if self._whole:
            (gc.freeze if there else gc.unfreeze)()

    async def _bridge(
        self,
        hub: init.Hub,
        core: connect.Connection,
        store: log.Log,
        me: str,
        watch: access_log.AccessLog,
        gate: gatekeeper.Gatekeeper,
        sys: connect.Connection,
        stack: AsyncExitStack,
        parts: asyncio.TaskGroup,
    ) -> None:
        s = self.settings
        assert self._who is not None, "the bridge is one of the parts"
        cluster = storage.ClusterStorage(store, component="cloud/bridge")
        await cluster.start()
        stack.push_async_callback(cluster.stop)
        asking = client.Client(self._who)  # for what needs no leader
        stack.push_async_callback(asking.close)
        kubelet = None
        if s.kubelet is not None:
            served = kubelet_serve.serving(s.kubelet, hub, core, cluster, asking, parts)
            self.kubelet_port = await stack.enter_async_context(served)
            kubelet = s.kubelet.kubelet(self.kubelet_port)
        leading = leases.Campaign(store, "bridge", me)
        there = election.Election(asking, hub.file.id, me, where=election.namespace(s.in_cluster))
        over = bridge.Bridge(
            store,
            cluster,
            self._who,
            hub.shards,
            grace_s=s.grace_s,
            leads=lambda: leading.leads and there.leads,
            kubelet=kubelet,
            on_spent=functools.partial(gate.spend, "report"),
        )
        await self._listen(hub, core, store, watch, over, lambda: over.loaded, gate, sys, stack, parts)
        parts.create_task(leading.run(lambda: there.run(over.run)), name="bridge")

    async def _listen(
        self,
        hub: init.Hub,
        core: connect.Connection,
        store: log.Log,
        watch: access_log.AccessLog,
        worker: reports.ReportsWorker | bridge.Bridge,
        loaded: Callable[[], bool],
        gate: gatekeeper.Gatekeeper,
        sys: connect.Connection,
        stack: AsyncExitStack,
        parts: asyncio.TaskGroup,
    ) -> None:
        """Which nodes are there: their beats, and what the hub says of their links."""
        marks = epochs.Epochs(store, hub.shards)
        parts.create_task(marks.run(), name="epochs")

        def on_clone(node: str, message: str) -> None:
            worker.duplicate(node, message)
            if message:
                watch.tell(identity.AUDIT_CLONE, "clone", node, message)

        def on_beat(node: str, beat: node_reports.Beat) -> None:
            worker.beat(node)
            checks.beat(node, beat)

        answers = beats.Beats(
            core,
            on_beat,
            loaded,
            marks.mark,
            on_clone=on_clone,
            on_flood=watch.on_flood("beat"),
            on_spent=gate.spender("beat"),
            spoken_for=worker.spoken_for,
            grace_s=self.settings.grace_s,
        )
        checks = behind.Behind(store, hub.shards, lambda node: answers.ask(node, renewed=True))
        parts.create_task(checks.run(), name="behind")
        await answers.start()
        stack.push_async_callback(answers.stop)
        parts.create_task(answers.run(), name="beats")
        gate.on_doors(worker.doors_shut)
        hinting = hints.Hints(sys, core, store, hub.file.edge, answers, worker.link_down)
        parts.create_task(hinting.run(), name="hints")

    async def _sys(self, hub: init.Hub, stack: AsyncExitStack) -> connect.Connection:
        name = f"cloud {'+'.join(self.settings.parts)}"
        sys = await connect.connect(
            connect.ConnectSettings(tuple(hub.urls), name, credentials=hub.sys_creds, ca=hub.ca_path, wait_s=None)
        )
        stack.push_async_callback(sys.close)
        return sys

    async def _serve(
        self,
        hub: init.Hub,
        api: registry.Registry,
        core: connect.Connection,
        stack: AsyncExitStack,
        parts: asyncio.TaskGroup,
    ) -> None:
        s = self.settings
        parts.create_task(rules.keep_policy(api), name="rbac defaults")
        tokens = access.Tokens(hub.dir / "api-tokens")
        reached = [*s.hosts, *(() if s.listen_host in ("0.0.0.0", "::") else (s.listen_host,)), *hub.file.hosts]
        outside = await api_service.addresses(reached)
        hosts = sorted({*reached, *outside, "localhost", "127.0.0.1", *api_service.NAMES, api_service.ADDRESS})
        cert, key = init.issue_server_cert(hub, "api", hosts)
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(cert, key)
        nodes = NodeApi(core, api)
        app = rules.make_app(
            api,
            authenticate=tokens.authenticate,
            ready=lambda: core.connected,
            connect=nodes.handlers(),
            virtual=nodes.kinds(),
        )
        running = await server.serve(app, s.listen_host, s.listen_port, tls)
        stack.push_async_callback(running.stop)
        await nodes.start()
        stack.push_async_callback(nodes.stop)
        self.port = running.port
        parts.create_task(api_service.publish(api, outside, running.port), name="api service")
        if s.kubeconfig is not None:
            # An address that it listens on alone is the only one that leads to it, whatever the hub's names are.
            listens = () if s.listen_host in ("0.0.0.0", "::") else (s.listen_host,)
            host = next((h for h in (*s.hosts, *listens, *hub.file.hosts) if h), "127.0.0.1")
            url = f"https://{f'[{host}]' if ':' in host else host}:{running.port}"
            access.write_kubeconfig(s.kubeconfig, server=url, ca=hub.ca_path, token=tokens.token_of(access.ADMIN))


async def _streams(store: log.Log, hub: init.Hub) -> None:
    """A hub that is still starting is waited for."""
    said = False
    while True:
        try:
            await streams.ensure_streams(store, shards=hub.shards, limits=streams.limits_of(hub.replicas))
            return
        except log.LogUnavailable as e:
            if not said:
                logger.warning("cloud.waiting_for_hub", reason=str(e))
                said = True
        await asyncio.sleep(STREAMS_RETRY_S)
