"""The standalone API as the cloud serves it: which admission its writes pass, and who may do what."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import structlog
from aiohttp import web

from bus import stamp
from bus.kube import registry, server
from bus.kube.admission.accounts import ServiceAccounts
from bus.kube.admission.base import Plugin
from bus.kube.admission.expressions import Asker
from bus.kube.admission.hooks import Webhooks
from bus.kube.admission.limits import LimitRanger
from bus.kube.admission.node_restriction import NodeRestriction
from bus.kube.admission.node_taints import NodeTaints
from bus.kube.admission.policies import Policies
from bus.kube.admission.priority import Priority
from bus.kube.admission.quota import Quota
from bus.kube.admission.runtime_class import RuntimeClasses
from bus.kube.admission.tolerations import DefaultTolerations
from bus.kube.auth import policy
from bus.kube.auth.account_tokens import Issuer, Keys
from bus.kube.auth.doors import Doors
from bus.kube.auth.escalation import Escalation
from bus.kube.auth.impersonation import AUTHENTICATION
from bus.kube.auth.node_rights import NodeRights
from bus.kube.auth.rbac import Rbac
from bus.kube.auth.reviews import Reviews
from bus.kube.errors import StatusError
from bus.kube.http.calling import HttpCaller
from bus.kube.storage import Origin, Reader, Storage
from cloud.standalone.pod_tokens import PodTokens

POLICY_ORIGIN = Origin("system:rbac-defaults")
RETRY_S, RETRY_S_MAX = 0.1, 5.0  # of the first content, while the hub is away

logger = structlog.get_logger(__name__)


def plugins(api: registry.Registry) -> Sequence[Plugin]:
    """In their order."""
    reader = api.reader
    tokens = (PodTokens(reader, api.issuer),) if api.issuer is not None and isinstance(reader, Storage) else ()
    filling = (
        LimitRanger(reader),
        ServiceAccounts(reader),
        NodeTaints(),
        Priority(reader),
        DefaultTolerations(),
        RuntimeClasses(reader),
    )
    asker = Asker(reader)
    asked = (
        Policies(reader, api.catalog, asker),
        Webhooks(reader, api.caller, asker) if api.caller is not None else Plugin(),
    )
    return (NodeRestriction(reader), *filling, Escalation(Rbac(reader)), *asked, Quota(api), *tokens)


def make_registry(storage: Reader, **options: Any) -> registry.Registry:
    """For the API, and for every component that writes through its rules: all of them pass the same admission."""
    return registry.Registry(storage, admission=plugins, caller=HttpCaller(storage), **options)


def make_issuer(storage: Reader, keys: Keys, **options: Any) -> Issuer:
    """Of service account tokens; ``keys`` sign them."""
    return Issuer(keys, storage, stamp.now_us, **options)


def make_app(api: registry.Registry, *, authenticate: server.Authenticate, **options: Any) -> web.Application:
    """``bus.kube.server.make_app`` with role-based access control, the rights of nodes, and tokens of service accounts where
    ``api`` has an issuer; ``authenticate`` is asked for every other token."""
    judge, asked = NodeRights(api.reader, Rbac(api.reader)), {}
    if api.issuer is not None:
        doors = Doors(authenticate, api.issuer)
        authenticate = doors.authenticate
        asked = {(AUTHENTICATION, "tokenreviews"): doors.review}
    return server.make_app(api, authenticate=authenticate, authorizer=judge, reviews=Reviews(judge, asked), **options)


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
