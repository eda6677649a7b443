"""The Kubernetes API over HTTP: one handler that finds out what a request means, and refuses what it must.

No web framework's routing: a path is parsed once (``http/paths.py``), so that everything unknown gets the Status that
clients of the real API expect.  A client never sees a traceback, only a Status; the log has the rest.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog
from aiohttp import web

from bus.kube import catalog, errors, names
from bus.kube.admission.asked import CONNECT
from bus.kube.auth import impersonation, requests, users
from bus.kube.auth.reviews import Reviews
from bus.kube.auth.users import Authorizer, User
from bus.kube.catalog import Resource, Version
from bus.kube.errors import StatusError
from bus.kube.http import (
    answers,
    connecting,
    discovery,
    fairness,
    health,
    metrics,
    negotiation,
    openapi,
    paths,
    reading,
    watching,
    writing,
)
from bus.kube.http.context import Connect, Context, Limits, Server, Virtual
from bus.kube.registry import Registry
from bus.kube.storage import Origin
from bus.kube.targets import Target, Write

Authenticate = Callable[[Mapping[str, str]], User | None]
EVERYBODY = users.authenticated("anonymous")  # where nobody is asked who they are
SOURCE = "skerry"
_CHANGED = ("status", "scale", "resize", "ephemeralcontainers", "finalize", "approval")  # subresources that nobody creates
SHUTDOWN_S = 5.0  # for requests under way when the server ends; watches end at once
LINE_BYTES_MAX = 32 << 10  # request line and headers: long selectors, long tokens

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _State:
    """What a request needs beside what the handlers share."""

    server: Server
    authenticate: Authenticate | None
    ready: Callable[[], bool]
    types: openapi.Documents
    turns: fairness.Turns
    metrics: metrics.Metrics = field(default_factory=metrics.Metrics)
    watches: set[asyncio.Task[Any]] = field(default_factory=set)


_STATE = web.AppKey("state", _State)
_ADDRESS = web.RequestKey("address", paths.Address)  # of the request, for the metrics
_VERB = web.RequestKey("verb", str)


def make_app(
    registry: Registry,
    *,
    authenticate: Authenticate | None = None,
    authorizer: Authorizer | None = None,
    reviews: Reviews | None = None,
    ready: Callable[[], bool] = lambda: True,
    limits: Limits | None = None,
    connect: Mapping[str, Connect] | None = None,
    virtual: Iterable[Virtual] = (),
) -> web.Application:
    """The API as an aiohttp application.

    ``authenticate`` gives the user of a request's headers, None refuses it (401); without it everybody is "anonymous".
    ``authorizer`` says what they may do, ``reviews`` answers who asks that; without them everybody may do everything.
    ``ready`` answers /readyz.  ``connect`` serves subresources that are not of this room, by "<resource>/<subresource>":
    ``{"pods/log": handler}``.  ``virtual``: kinds that are stored nowhere."""
    http = {"max_line_size": LINE_BYTES_MAX, "max_field_size": LINE_BYTES_MAX, "auto_decompress": False}
    app = web.Application(client_max_size=0, handler_args=http)
    limits = limits or Limits()
    app[_STATE] = _State(
        Server(
            registry,
            limits,
            connect or {},
            authorizer,
            reviews,
            virtual={(v.resource.group, v.resource.resource): v for v in virtual},
        ),
        authenticate,
        ready,
        openapi.Documents(registry.catalog),
        fairness.Turns(limits.requests_at_once, limits.requests_waiting, limits.users_waiting),
    )
    app[watching.ENCODED] = watching.EncodedChanges()
    app.router.add_route("*", r"/{path:[\s\S]*}", _handle)  # a line break in a path is a path too
    app.on_shutdown.append(_end_watches)
    return app


class Running:
    """A server that listens; ``port`` is the real one when 0 was asked for."""

    def __init__(self, runner: web.AppRunner, port: int) -> None:
        self._runner = runner
        self.port = port

    async def stop(self) -> None:
        """Ends watches at once, gives other requests SHUTDOWN_S, and leaves no connection behind."""
        server = self._runner.server
        open_now = [c.transport for c in server.connections if c.transport is not None] if server else []
        await self._runner.cleanup()
        for transport in open_now:  # closing TLS waits for the peer, which may never answer
            transport.abort()
        await asyncio.sleep(0)


async def serve(app: web.Application, host: str, port: int, tls: ssl.SSLContext | None = None) -> Running:
    """Raises OSError when the address is taken."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        await _BoundedSite(runner, host, port, ssl_context=tls, most=app[_STATE].server.limits.connections_max).start()
    except OSError:
        await runner.cleanup()
        raise
    return Running(runner, runner.addresses[0][1])


class _BoundedSite(web.TCPSite):
    """A port that takes no more than ``most`` connections: one more is closed at once, before it costs anything."""

    def __init__(
        self, runner: web.AppRunner, host: str, port: int, *, ssl_context: ssl.SSLContext | None, most: int
    ) -> None:
        super().__init__(runner, host, port, ssl_context=ssl_context)
        self._most = most

    async def start(self) -> None:
        await web.BaseSite.start(self)
        server = self._runner.server
        assert server is not None

        def protocol() -> asyncio.BaseProtocol:
            return server() if len(server.connections) < self._most else _Closed()

        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            protocol, self._host, self._port, ssl=self._ssl_context, backlog=self._backlog
        )


class _Closed(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


async def _end_watches(app: web.Application) -> None:
    for task in list(app[_STATE].watches):
        task.cancel()


async def _handle(request: web.Request) -> web.StreamResponse:
    began = time.perf_counter()
    response = await _refusing(request)
    address = request.get(_ADDRESS)
    verb = request.get(_VERB) or request.method
    group, resource = (address.group, address.resource) if address is not None and response.status != 404 else ("", "")
    request.app[_STATE].metrics.request(verb, group, resource, response.status, time.perf_counter() - began)
    return await answers.compressed(request, response)


async def _refusing(request: web.Request) -> web.StreamResponse:
    try:
        return await _answer(request)
    except StatusError as e:
        return answers.refuse(e)
    except TimeoutError:
        return answers.refuse(StatusError(504, "Timeout", "the request took too long"))
    except (ConnectionResetError, web.HTTPException):
        raise
    except Exception as e:  # the one place: whatever it was, the client gets a Status and the log gets the traceback
        log.error("request failed", method=request.method, path=request.path[:200], exc_info=e)
        return answers.refuse(errors.internal("the server has logged what went wrong"))


async def _answer(request: web.Request) -> web.StreamResponse:
    server, path = request.app[_STATE].server, request.path
    if path == "/version" or health.about(path):
        return _open(request)
    authenticate = request.app[_STATE].authenticate
    user = authenticate(request.headers) if authenticate else EVERYBODY
    if user is None:
        raise errors.unauthorized()
    if server.authorizer is not None:
        user = impersonation.apply(request.headers, user, server.require)
    address = paths.parse(request.raw_path.split("?", 1)[0])
    if address is None:
        server.require(requests.of_path(user, request.method, path))
        return _documents(request, server)
    wanted = requests.of_resource(user, request.method, address, request.query)
    request[_ADDRESS], request[_VERB] = address, wanted.verb.upper()
    server.require(wanted)
    made = server.virtual.get((address.group, address.resource))
    if made is not None and address.version in made.resource.versions:
        res, ver = made.resource, made.resource.versions[address.version]
    else:
        made = None
        res, ver = _served(server, address)
    if address.namespace is not None and not res.namespaced:
        raise errors.no_such_path()
    target = Target(res, ver, address.namespace or "", address.name, address.subresource)
    connect = server.connect.get(f"{address.resource}/{address.subresource}") if address.subresource else None
    if connect is not None and not address.group:
        if address.subresource in requests.STREAMED and request.method == "GET":
            server.require(requests.of_resource(user, "POST", address, request.query))
        if address.subresource in connecting.KINDS and server.registry.reviewing.listening:
            how = Write(Origin(user.actor), user=user)
            said = connecting.options(address.subresource, request.query)
            await server.registry.reviewing.sent(CONNECT, target, connecting.KINDS[address.subresource], said, how)
        return await connect(request, target, user.actor)
    if address.subresource and address.subresource not in ver.subresources and not address.watch:
        raise target.not_found() if res.custom else errors.no_such_path()
    if made is not None:
        return await made.serve(request, target, user.actor)
    output = negotiation.choose(request.headers.get("Accept", ""), watched=request.method == "GET" and not address.name)
    ctx = Context(request, server, address, target, user, output)
    if request.method == "GET" and (address.watch or ctx.flag("watch")) and not address.subresource and res.stored:
        return await _watch(ctx)
    handler = _verb(ctx)
    async with asyncio.timeout(server.limits.request_s):
        if users.MASTERS in user.groups:
            response = await handler(ctx)
        else:
            async with request.app[_STATE].turns.turn(user.name):
                response = await handler(ctx)
    if ver.deprecated and not response.prepared:
        answers.warn(response, [ver.deprecated])
    return response


def _verb(ctx: Context) -> Callable[[Context], Awaitable[web.StreamResponse]]:
    """Raises StatusError 404, 405."""
    address, method, res = ctx.address, ctx.request.method, ctx.target.resource
    if address.rest:
        raise errors.no_such_path()
    if not res.stored:
        return writing.review if method == "POST" and not address.name else _no_verb(ctx)
    if (res.namespaced and address.namespace is None and address.name) or "/" in address.name:
        raise errors.no_such_path()
    bad = names.path_segment(address.name)
    if bad.startswith("may not"):
        raise errors.bad_request(f"Name parameter invalid: {errors.show(address.name)}: {bad}")
    if address.name:
        table = {"GET": reading.get, "PUT": writing.update, "PATCH": writing.patch}
        if not address.subresource:
            table["DELETE"] = writing.delete
        elif address.subresource not in _CHANGED or res.custom:
            table["POST"] = writing.create
    else:
        table = {"GET": reading.listing, "DELETE": writing.delete_collection}
        if not res.namespaced or address.namespace is not None:
            table["POST"] = writing.create
    handler = table.get(method)
    return handler or _no_verb(ctx)


def _no_verb(ctx: Context) -> Callable[[Context], Awaitable[web.StreamResponse]]:
    """Raises StatusError 405."""
    res = ctx.target.resource
    if not res.custom:
        raise errors.no_such_verb()
    raise errors.method_not_allowed(res.group, res.resource, ctx.request[_VERB].lower())


def _served(server: Server, address: paths.Address) -> tuple[Resource, Version]:
    """Raises StatusError 404: a Status from a group of our own, plain text from one that only definitions make."""
    try:
        return server.registry.resource(address.group, address.resource, address.version)
    except StatusError as e:
        raise e if catalog.is_builtin(address.group) else errors.no_page() from e


async def _watch(ctx: Context) -> web.StreamResponse:
    tasks = ctx.request.app[_STATE].watches
    task = asyncio.current_task()
    assert task is not None
    tasks.add(task)
    try:
        return await watching.watch(ctx)
    finally:
        tasks.discard(task)


def _open(request: web.Request) -> web.Response:
    """What the real server answers to anybody."""
    if request.path != "/version":
        return health.answer(request.path, request.query, ready=request.app[_STATE].ready)
    if request.method not in ("GET", "HEAD"):
        raise errors.no_such_verb()
    return answers.respond(discovery.version_info(SOURCE))


def _metrics(request: web.Request) -> web.Response:
    state = request.app[_STATE]
    turns, server = state.turns, state.server
    gauges = (
        ('apiserver_longrunning_requests{verb="WATCH"}', "Watches that are open.", server.watches),
        ("apiserver_current_inflight_requests", "Requests that have a seat.", turns.running),
        ("apiserver_current_inqueue_requests", "Requests that wait for a seat.", turns.waiting),
        ("apiserver_rejected_requests_total", "Requests that were told to come again.", turns.refused),
        ("skerry_api_revision", "The newest revision of the log that this server knows.", server.registry.reader.revision()),
    )
    body = state.metrics.text(gauges).encode()
    return web.Response(body=body, headers={"Content-Type": metrics.CONTENT_TYPE})


def _types(request: web.Request, parts: list[str]) -> web.Response:
    documents = request.app[_STATE].types
    if not parts:
        return answers.respond(documents.index())
    if (parts[0] == "api" and len(parts) == 2) or (parts[0] == "apis" and len(parts) == 3):
        body = documents.document(parts[1] if len(parts) == 3 else "", parts[-1])
        return web.Response(body=body, content_type="application/json")
    raise errors.no_such_path()


def _public(document: Any, kind: str) -> web.Response:
    """What others check tokens by; they may keep it for an hour, as the real server lets them."""
    headers = {"Cache-Control": "public, max-age=3600"}
    return web.Response(body=json.dumps(document).encode(), content_type=kind, headers=headers)


def _of_group(parts: list[str]) -> bool:
    return catalog.is_builtin("" if parts[0] == "api" else parts[1])


def _documents(request: web.Request, server: Server) -> web.Response:
    """What is not a resource: discovery and the types.  Raises StatusError 404, 405."""
    registry, accept = server.registry, request.headers.get("Accept", "")
    parts = request.path.strip("/").split("/")
    if request.method not in ("GET", "HEAD"):
        raise errors.no_such_verb()
    if parts in (["api"], ["apis"]):
        wanted = discovery.aggregated(accept)
        if wanted:
            document = discovery.aggregate(server, core=parts == ["api"], version=wanted, writable=registry.writable)
            response = answers.respond(document)
            kind = f"application/json;g=apidiscovery.k8s.io;v={wanted};as=APIGroupDiscoveryList"
            response.headers["Content-Type"] = kind
            return response
        plain = discovery.api_versions(request.host) if parts == ["api"] else discovery.groups(server)
        return answers.respond(plain)
    if registry.issuer is not None and parts == ["openid", "v1", "jwks"]:
        return _public(registry.issuer.key_set(), "application/jwk-set+json")
    if registry.issuer is not None and parts == [".well-known", "openid-configuration"]:
        return _public(registry.issuer.configuration(request.host), "application/json")
    if parts == ["metrics"]:
        return _metrics(request)
    if parts[:2] == ["openapi", "v3"]:
        return _types(request, parts[2:])
    if parts[0] == "apis" and len(parts) == 2:
        return answers.respond(discovery.group(server, parts[1]))
    if (parts[0] == "api" and len(parts) == 2) or (parts[0] == "apis" and len(parts) == 3):
        group, version = ("", parts[1]) if parts[0] == "api" else (parts[1], parts[2])
        return answers.respond(discovery.resources(server, group, version, writable=registry.writable))
    raise errors.no_such_path() if parts[0] in ("api", "apis") and _of_group(parts) else errors.no_page()
