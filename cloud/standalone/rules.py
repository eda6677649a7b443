"""The standalone API as the cloud serves it: which admission its writes pass, and who may do what."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import structlog
from aiohttp import web

from bus.kube import registry, server
from bus.kube.admission.base import Plugin
from bus.kube.auth import policy
from bus.kube.auth.escalation import Escalation
from bus.kube.auth.rbac import Rbac
from bus.kube.auth.reviews import Reviews
from bus.kube.errors import StatusError
from bus.kube.storage import Origin, Reader

POLICY_ORIGIN = Origin("system:rbac-defaults")
RETRY_S, RETRY_S_MAX = 0.1, 5.0  # of the first content, while the hub is away

logger = structlog.get_logger(__name__)


def plugins(api: registry.Registry) -> Sequence[Plugin]:
    """In their order."""
    return (Escalation(Rbac(api.reader)),)


def make_registry(storage: Reader, **options: Any) -> registry.Registry:
    """For the API, and for every component that writes through its rules: all of them pass the same admission."""
    return registry.Registry(storage, admission=plugins, **options)


def make_app(api: registry.Registry, *, authenticate: server.Authenticate, **options: Any) -> web.Application:
    """``bus.kube.server.make_app`` with role-based access control."""
    rbac = Rbac(api.reader)
    return server.make_app(api, authenticate=authenticate, authorizer=rbac, reviews=Reviews(rbac), **options)


async def keep_policy(api: registry.Registry) -> None:
    """Until the default roles and bindings are whole; a hub that is away is waited for."""
    wait_s, said = RETRY_S, False
    while True:
        try:
            await policy.reconcile(api, POLICY_ORIGIN)
            return
        except StatusError as e:
            if not said:
                logger.warning("rbac.waiting", reason=str(e))
                said = True
        await asyncio.sleep(wait_s)
        wait_s = min(2 * wait_s, RETRY_S_MAX)
