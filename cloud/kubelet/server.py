"""The kubelet's API over HTTP, for all nodes of the cluster.

A refusal is plain text, as a kubelet's: the API server hands it on to its user.  Which node is meant is told by the pod's
name, by the port (``ports``), or by the name in the request's Host.
Source: kubernetes, pkg/kubelet/server/server.go (paths, parameters), auth.go (subresources).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from aiohttp import web

from bus.connect import Connection
from bus.kube import errors
from bus.kube.auth.users import User
from bus.kube.errors import StatusError
from bus.kube.storage import Reader
from bus.tunnel import Dialer, TunnelBroken
from cloud.kubelet import figures
from cloud.kubelet.auth import Doorkeeper
from cloud.node_api import commands, locate, logs, portforward, usages
from schemas import tunnel
from schemas.subjects import ObjectKey

logger = structlog.get_logger(__name__)

LINE_BYTES_MAX = 32 << 10  # request line and headers: long commands, long tokens
RUN_BYTES_MAX = 4 << 20  # of the output of /run, which is one answer
TEXT = "text/plain"
PROMETHEUS = "text/plain; version=0.0.4"


class Kubelet:
    """``start`` before serving, ``stop`` before the server stops: its streams end then.

    ``node_of_port``: the node that a port is of, "" for one that is of all."""

    def __init__(
        self,
        connection: Connection,
        reader: Reader,
        door: Doorkeeper,
        *,
        now_us: Callable[[], int],
        node_of_port: Callable[[int], str] = lambda port: "",
    ) -> None:
        self._reader, self._door, self._now_us, self._node_of_port = reader, door, now_us, node_of_port
        self._dialer = Dialer(connection)
        self._usages = usages.Usages(self._dialer, now_us)

    async def start(self) -> None:
        await self._dialer.start()

    async def stop(self) -> None:
        await self._usages.stop()
        await self._dialer.stop()

    def app(self) -> web.Application:
        http = {"max_line_size": LINE_BYTES_MAX, "max_field_size": LINE_BYTES_MAX}
        app = web.Application(client_max_size=0, handler_args=http)
        app.router.add_route("*", "/{path:.*}", self._handle)
        return app

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except StatusError as e:
            headers = {"WWW-Authenticate": "Bearer"} if e.code == 401 else {}
            return web.Response(status=e.code, text=e.message, content_type=TEXT, headers=headers)
        except (ConnectionResetError, web.HTTPException):
            raise
        except Exception as e:  # the one place: the client gets a refusal and the log gets the traceback
            logger.error("kubelet.request_failed", method=request.method, path=request.path[:200], exc_info=e)
            return web.Response(status=500, text="the server has logged what went wrong", content_type=TEXT)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        user = await self._door.who(request)
        parts = [p for p in request.path.split("/") if p]
        match parts:
            case ["healthz", *_]:
                await self._allow(request, user, self._named(request) or "*", "healthz", "proxy")
                return web.Response(text="ok")
            case ["containerLogs", namespace, pod, container]:
                where = await self._place(request, user, namespace, pod)
                return await logs.serve(self._dialer, where, request, container)
            case ["exec" | "attach" as verb, namespace, pod, container]:
                return await self._command(request, user, verb, namespace, pod, "", container)
            case ["exec" | "attach" as verb, namespace, pod, uid, container]:
                return await self._command(request, user, verb, namespace, pod, uid, container)
            case ["run", namespace, pod, container]:
                return await self._run(request, user, namespace, pod, "", container)
            case ["run", namespace, pod, uid, container]:
                return await self._run(request, user, namespace, pod, uid, container)
            case ["portForward", namespace, pod, *uid] if len(uid) <= 1:
                where = await self._place(request, user, namespace, pod, uid[0] if uid else "")
                return await portforward.serve(self._dialer, where, request, user.actor)
            case ["pods"]:
                return await self._pods(request, user)
            case ["stats", "summary"] | ["stats"]:
                at_us, used, node = await self._used(request, user, "stats")
                return web.json_response(figures.summary(node, at_us, used))
            case ["metrics", "resource"]:
                at_us, used, _ = await self._used(request, user, "metrics")
                return web.Response(body=figures.resource(at_us, used).encode(), headers={"Content-Type": PROMETHEUS})
        raise StatusError(404, "NotFound", f"a kubelet in the cloud has no {request.path[:200]}")

    async def _allow(self, request: web.Request, user: User, node: str, *subresources: str) -> None:
        await self._door.require(user, request.method, node, subresources)

    # --- pods

    async def _place(
        self, request: web.Request, user: User, namespace: str, pod: str, uid: str = "", *, methods: tuple[str, ...] = ()
    ) -> locate.Place:
        """Raises StatusError 401, 403, 404, 405."""
        if methods and request.method not in methods:
            raise errors.method_not_allowed("", "pods", request.method)
        stored = self._reader.get(ObjectKey("", "pods", namespace, pod))
        where = locate.of(stored.object) if stored is not None else None
        own = self._node_of_port(_port(request))
        # Who may nothing doesn't learn which pods there are.
        await self._allow(request, user, where.node if where is not None else own or "*", "proxy")
        if where is None or (uid and where.uid != uid) or (own and where.node != own):
            raise StatusError(404, "NotFound", f"pod {namespace}/{pod} does not exist on a node whose kubelet this is")
        return where

    async def _command(
        self, request: web.Request, user: User, verb: str, namespace: str, pod: str, uid: str, container: str
    ) -> web.StreamResponse:
        where = await self._place(request, user, namespace, pod, uid, methods=("GET", "POST"))
        what = commands.asked(request, verb, where.container(container), commands.KUBELET_FLAGS)
        return await commands.serve(self._dialer, where, request, what, user.actor)

    async def _run(
        self, request: web.Request, user: User, namespace: str, pod: str, uid: str, container: str
    ) -> web.StreamResponse:
        """The command of ``cmd``, its output as the answer."""
        where = await self._place(request, user, namespace, pod, uid, methods=("POST",))
        command = request.query.get("cmd", "").split()
        if not command:
            raise errors.bad_request("query parameter cmd: a command is needed")
        what = tunnel.Exec(kind="exec", container=where.container(container), command=command)
        where.must_have_node()
        logger.info("kubelet.run", actor=user.actor, node=where.node, pod=f"{namespace}/{pod}")
        session = await locate.begin(self._dialer, where, what)
        said: list[bytes] = []

        async def listen(channel: int) -> None:
            while (data := await session.receive(channel)) is not None:
                said.append(data)
                if sum(map(len, said)) > RUN_BYTES_MAX:
                    raise StatusError(413, "RequestEntityTooLarge", f"the command says more than {RUN_BYTES_MAX} bytes")

        try:
            await asyncio.gather(listen(tunnel.STDOUT), listen(tunnel.STDERR))
            ended = await session.finished()
        except TunnelBroken as e:
            raise StatusError(503, "ServiceUnavailable", str(e)) from e
        finally:
            await session.close()
        if ended.code or ended.exit_code:
            why = ended.message or f"command terminated with exit code {ended.exit_code}"
            return web.Response(status=500, body=b"".join(said) + b"\n" + why.encode(), content_type=TEXT)
        return web.Response(body=b"".join(said), content_type=TEXT)

    # --- nodes

    def _named(self, request: web.Request) -> str:
        """The node that is meant, "" for none."""
        own = self._node_of_port(_port(request))
        if own:
            return own
        name = request.host.rsplit(":", 1)[0] if not request.host.endswith("]") else ""
        return name if self._reader.get(ObjectKey("", "nodes", "", name)) is not None else ""

    def _node(self, request: web.Request) -> str:
        """Raises StatusError 405, 421."""
        if request.method not in ("GET", "HEAD"):
            raise errors.method_not_allowed("", "nodes", request.method)
        node = self._named(request)
        if not node:
            said = "this port is of all nodes, and the request does not say which: each has its own with --kubelet-ports"
            raise StatusError(421, "MisdirectedRequest", said)
        return node

    async def _pods(self, request: web.Request, user: User) -> web.StreamResponse:
        node = self._node(request)
        await self._allow(request, user, node, "pods", "proxy")
        found = [p.object for p in self._reader.list("", "pods") if (p.object.get("spec") or {}).get("nodeName") == node]
        return web.json_response(figures.pods(found))

    async def _used(self, request: web.Request, user: User, subresource: str) -> tuple[int, Any, str]:
        node = self._node(request)
        await self._allow(request, user, node, subresource)
        answer = (await self._usages.ask([node]))[node]
        if answer is None:
            raise StatusError(503, "ServiceUnavailable", f"node {node} does not tell what it uses: it can't be reached")
        return answer[0], answer[1], node


def _port(request: web.Request) -> int:
    at = request.get_extra_info("sockname")
    return int(at[1]) if isinstance(at, tuple) and len(at) > 1 else 0
