"""The kubelets' endpoint, from its settings to its end."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import structlog

from bus import stamp
from bus.connect import Connection
from bus.hub import init
from bus.kube.storage import Reader
from cloud.bridge.client import Client
from cloud.kubelet import auth, ports, server, serving_cert
from cloud.kubelet.settings import BadSettings, Settings

logger = structlog.get_logger(__name__)


@asynccontextmanager
async def serving(
    settings: Settings, hub: init.Hub, core: Connection, reader: Reader, client: Client, tasks: asyncio.TaskGroup
) -> AsyncIterator[int]:
    """The port for all nodes.  Raises BadSettings, OSError."""
    context = tls(settings, hub, settings.reached_at)
    made = ports.Ports(settings, reader)
    door = auth.Doorkeeper(client)
    kubelet = server.Kubelet(core, reader, door, now_us=stamp.now_us, node_of_port=made.node_of)
    try:
        await made.start(kubelet.app(), context)
    except OSError as e:
        raise BadSettings(
            f"the kubelets' endpoint can't listen on {settings.listen_host}:{settings.listen_port}: {e}"
        ) from e
    running = [tasks.create_task(made.run(), name="kubelet.ports")]
    if settings.client_ca is None:
        running.append(tasks.create_task(auth.keep_ca(client, context), name="kubelet.client_ca"))
    if settings.csr != "none":
        own = serving_cert.ServingCertificate(client, context, hub.dir / "tls", settings.reached_at, settings.csr)
        own.kept()
        running.append(tasks.create_task(own.run(), name="kubelet.certificate"))
    await kubelet.start()
    logger.info("kubelet.serving", address=settings.reached_at, port=made.port, own_ports=len(settings.ports))
    try:
        yield made.port
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await kubelet.stop()
        await made.stop()


def tls(settings: Settings, hub: init.Hub, *hosts: str) -> ssl.SSLContext:
    """Asks for a client certificate and takes none for an answer: tokens open the door too.  Raises BadSettings."""
    names: Sequence[str] = sorted({*hosts, "localhost", "127.0.0.1"})
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.verify_mode = ssl.CERT_OPTIONAL
    what = "the hub's own certificate"
    try:
        if settings.cert is not None and settings.key is not None:
            what = f"{settings.cert} and {settings.key}"
            cert, key = settings.cert, settings.key
        else:
            cert, key = init.issue_server_cert(hub, "kubelet", names)
        context.load_cert_chain(cert, key)
        if settings.client_ca is not None:
            what = str(settings.client_ca)
            context.load_verify_locations(cafile=settings.client_ca)
    except (OSError, ValueError) as e:
        raise BadSettings(f"the kubelets' endpoint can't use {what}: {e}") from e
    return context
