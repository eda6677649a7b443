"""A cluster's API server as far as a kubelet sees it: it finds a pod's node, connects to that node's kubelet with its client
certificate, and copies bytes both ways after an upgrade.

Source: kubernetes, pkg/registry/core/pod/strategy.go (LogLocation, streamLocation), apimachinery's UpgradeAwareHandler."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Mapping
from urllib.parse import urlencode

import aiohttp
from aiohttp import web

from bus.kube import errors
from bus.kube.http.context import Connect
from bus.kube.registry import Registry
from bus.kube.targets import Target
from cloud.node_api import rawstream
from tests.contract.kubelet.certificates import Identity

FLAGS = {"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"}
PREFERRED = ("Hostname", "InternalDNS", "InternalIP", "ExternalDNS", "ExternalIP")  # kube-apiserver's default
HOP = ("host", "authorization", "content-length")
COPY_BYTES = 64 << 10


class Front:
    def __init__(self, api: Registry, identity: Identity) -> None:
        self._api = api
        self._tls = ssl.create_default_context()  # as without --kubelet-certificate-authority
        self._tls.check_hostname, self._tls.verify_mode = False, ssl.CERT_NONE
        self._tls.load_cert_chain(identity.cert, identity.key)
        self.upgraded: list[str] = []  # the protocol of each

    def handlers(self) -> Mapping[str, Connect]:
        return {"pods/log": self.log, "pods/exec": self.stream, "pods/attach": self.stream, "pods/portforward": self.stream}

    async def _kubelet(self, target: Target) -> tuple[str, int, str]:
        """(address, port, the only container's name)."""
        pod = await self._api.get("", "pods", target.namespace, target.name)
        if not pod["spec"].get("nodeName"):
            raise errors.bad_request(f"pod {target.name} does not have a host assigned")
        node = await self._api.get("", "nodes", "", pod["spec"]["nodeName"])
        addresses = {a["type"]: a["address"] for a in node["status"]["addresses"]}
        address = next(addresses[kind] for kind in PREFERRED if kind in addresses)
        return address, node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"], pod["spec"]["containers"][0]["name"]

    async def log(self, request: web.Request, target: Target, actor: str) -> web.StreamResponse:
        address, port, container = await self._kubelet(target)
        container = request.query.get("container") or container
        query = {k: v for k, v in request.query.items() if k != "container"}
        url = f"https://{address}:{port}/containerLogs/{target.namespace}/{target.name}/{container}"
        connector = aiohttp.TCPConnector(ssl=self._tls, force_close=True)
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http, http.get(url, params=query) as r:
            if r.status != 200:
                raise errors.StatusError(r.status, "", await r.text())
            response = web.StreamResponse(headers={"Content-Type": r.headers["Content-Type"]})
            await response.prepare(request)
            try:
                async for chunk in r.content.iter_any():
                    await response.write(chunk)
            except aiohttp.ClientPayloadError:
                assert request.transport is not None
                request.transport.abort()
        return response

    async def stream(self, request: web.Request, target: Target, actor: str) -> web.StreamResponse:
        address, port, container = await self._kubelet(target)
        path, query = (
            f"/portForward/{target.namespace}/{target.name}",
            [("ports", p) for p in request.query.getall("ports", [])],
        )
        if target.subresource != "portforward":
            path = f"/{target.subresource}/{target.namespace}/{target.name}/{request.query.get('container') or container}"
            query = [(to, "1") for of, to in FLAGS.items() if request.query.get(of) in ("1", "true")]
            query += [("command", word) for word in request.query.getall("command", [])]
        reader, writer = await asyncio.open_connection(address, port, ssl=self._tls)
        try:
            head = [f"{request.method} {path}?{urlencode(query)} HTTP/1.1", f"Host: {address}:{port}"]
            head += [f"{k}: {v}" for k, v in request.headers.items() if k.lower() not in HOP]
            writer.write("\r\n".join([*head, "", ""]).encode())
            answer = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.split(": ", 1) for line in answer[1:] if line)
            code = int(answer[0].split()[1])
            if code != 101:
                body = await reader.readexactly(int(headers.get("Content-Length", "0")))
                return web.Response(status=code, body=body, content_type="text/plain")
            self.upgraded.append(headers.get("X-Stream-Protocol-Version") or headers.get("Sec-WebSocket-Protocol", ""))
            client = await rawstream.take(request, headers)
            await _copy(client, reader, writer)
            return client
        finally:
            writer.close()
            with contextlib.suppress(OSError, ssl.SSLError):
                await writer.wait_closed()


async def _copy(client: rawstream.RawStream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    async def up() -> None:
        with contextlib.suppress(OSError):
            while (data := await client.receive()) is not None:
                writer.write(data)
                await writer.drain()

    async def down() -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(COPY_BYTES):
                await client.send(data)

    both = [asyncio.create_task(up()), asyncio.create_task(down())]
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in both:
            task.cancel()
        await asyncio.gather(*both, return_exceptions=True)
        await client.close()
