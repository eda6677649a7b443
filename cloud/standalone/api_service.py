"""The Service ``kubernetes`` in ``default``: where programs in pods find this API.

In a data centre it is a virtual address that every node routes.  An edge node routes none, and reaches the API, if at all,
at the address that people reach it at: that is named as the service's external address, and the node gives it to pods
(edge/core/env.py).  An API that is only on its own machine's loopback has no such address, and pods are told nothing.
Several servers name all their addresses; pods take the first.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable, Sequence
from typing import Any

import structlog

from bus.kube import registry as registries
from bus.kube.errors import StatusError
from bus.kube.storage import Object, Origin
from schemas.subjects import ObjectKey

logger = structlog.get_logger(__name__)

NAME, NAMESPACE = "kubernetes", "default"
ADDRESS = "10.96.0.1"  # the first of the service network (bus/kube/kinds/services.py), as in every cluster
NAMES = tuple(f"kubernetes{n}" for n in ("", ".default", ".default.svc", ".default.svc.cluster.local"))
ORIGIN = Origin("system:apiserver")
SERVERS_MAX = 8
RETRY_S, RETRY_S_MAX = 0.2, 5.0
SERVICE = ("", "services")
_LABELS = {"component": "apiserver", "provider": "kubernetes"}


async def addresses(hosts: Iterable[str]) -> list[str]:
    """What of the names and addresses of an API leads to it from elsewhere, as addresses."""
    found: list[str] = []
    for host in hosts:
        try:
            infos = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError:
            continue  # a name that only others know
        found += [str(info[4][0]).partition("%")[0] for info in infos]
    return [a for a in dict.fromkeys(found) if _outside(a)]


def _outside(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    return not (ip.is_loopback or ip.is_unspecified or ip.is_link_local or ip.is_multicast)


def merged(spec: Object, mine: Sequence[str], port: int) -> Object:
    """The specification with our addresses in it; those of another port led to servers that are no more."""
    same = [p.get("port") for p in spec.get("ports") or []] == [port]
    others = [a for a in spec.get("externalIPs") or [] if same and a not in mine]
    named = [*mine, *others][:SERVERS_MAX]
    ports = [{"name": "https", "protocol": "TCP", "port": port, "targetPort": port}]
    return {**spec, "ports": ports, **({"externalIPs": named} if named else {})}


async def publish(api: registries.Registry, hosts: Sequence[str], port: int) -> None:
    """Until the service names us; a hub or a namespace that is not there yet is waited for."""
    mine, wait_s, said = await addresses(hosts), RETRY_S, False
    while True:
        try:
            await _publish(api, mine, port)
            return
        except StatusError as e:
            if not said and e.code != 404:  # the namespace is on its way
                logger.warning("api_service.waiting", reason=str(e))
                said = True
        await asyncio.sleep(wait_s)
        wait_s = min(2 * wait_s, RETRY_S_MAX)


async def _publish(api: registries.Registry, mine: Sequence[str], port: int) -> None:
    how = registries.Write(ORIGIN, manager="apiserver")
    if api.reader.get(ObjectKey(*SERVICE, NAMESPACE, NAME)) is None:
        base: Object = {"clusterIP": ADDRESS, "type": "ClusterIP", "sessionAffinity": "None"}
        body: Any = {"metadata": {"name": NAME, "labels": _LABELS}, "spec": merged(base, mine, port)}
        try:
            await api.create(*SERVICE, NAMESPACE, body, how=how)
            return
        except StatusError as e:
            if e.reason != "AlreadyExists":
                raise
    there = await api.get(*SERVICE, NAMESPACE, NAME)
    new = merged(there["spec"], mine, port)
    if new != there["spec"]:
        await api.update(*SERVICE, NAMESPACE, NAME, {**there, "spec": new}, how=how)
