"""A webhook over TLS that answers as a case of a conversation says, and remembers what it was asked.

A case's ``hooks`` is ``{path: answer}``.  An answer is put together for each request::

    {"response": {"allowed": true}}      the review back, with the uid of the request; "patch" may be given as a list
    {"response": ..., "as": {...}}       with the top-level fields (apiVersion, kind) said here
    {"convert": {"v2": {"host": "address"}}}  objects of a ConversionReview, with fields of the spec renamed on the way to v2
                                         (and back to any other version)
    {"status": 500, "text": "..."}       whatever HTTP can say
    {"hang": true}                       no answer at all

``{name}`` in what is recorded stands for the address of this server and its certificate.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import ipaddress
import json
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HANG_S = 120
NAMES = ("localhost", "hooks.default.svc")


class Double:
    """``heard``: the bodies of the requests, in their order; ``hooks`` may be replaced at any time."""

    def __init__(self, url: str, certificate: bytes) -> None:
        self.url = url
        self.bundle = base64.b64encode(certificate).decode()
        self.hooks: dict[str, Any] = {}
        self.heard: list[Any] = []
        self._hanging: set[asyncio.Task[Any]] = set()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        asked = json.loads(await request.read())
        self.heard.append({"path": request.path, "query": dict(request.query), "review": asked})
        said = self.hooks.get(request.path)
        if said is None:
            return web.Response(status=404, text="no such hook")
        if said.get("hang"):
            await self._hang()
        if "status" in said or "text" in said:
            return web.Response(status=said.get("status", 200), text=said.get("text", ""))
        if "convert" in said:
            return web.json_response(converted(asked, said["convert"]))
        return web.json_response(reviewed(asked, said))

    async def _hang(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._hanging.add(task)
        try:
            await asyncio.sleep(HANG_S)
        finally:
            self._hanging.discard(task)

    def release(self) -> None:
        for task in list(self._hanging):
            task.cancel()


def reviewed(asked: Any, said: Any) -> Any:
    response = {"uid": asked["request"]["uid"], **said["response"]}
    if isinstance(response.get("patch"), list):
        response["patch"] = base64.b64encode(json.dumps(response["patch"]).encode()).decode()
    return {"apiVersion": asked["apiVersion"], "kind": asked["kind"], "response": response, **said.get("as", {})}


def converted(asked: Any, renamed: dict[str, dict[str, str]]) -> Any:
    """The ConversionReview back: each version calls the fields of the specification by its own names."""
    wanted = asked["request"]["desiredAPIVersion"]
    objects = [_convert(o, wanted, renamed) for o in asked["request"]["objects"]]
    response = {"uid": asked["request"]["uid"], "convertedObjects": objects, "result": {"status": "Success"}}
    return {"apiVersion": asked["apiVersion"], "kind": asked["kind"], "response": response}


def _convert(obj: Any, wanted: str, renamed: dict[str, dict[str, str]]) -> Any:
    common = {new: old for old, new in renamed.get(obj["apiVersion"].rpartition("/")[2], {}).items()}
    own = renamed.get(wanted.rpartition("/")[2], {})
    spec = {common.get(k, k): v for k, v in (obj.get("spec") or {}).items()}
    out = {**obj, "apiVersion": wanted}
    return {**out, "spec": {own.get(k, k): v for k, v in spec.items()}} if "spec" in obj else out


def certificate() -> tuple[bytes, bytes]:
    """(certificate, key) in PEM, its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "webhooks")])
    now = datetime.datetime.now(datetime.UTC)
    names: list[x509.GeneralName] = [x509.DNSName(n) for n in NAMES]
    names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    return made.public_bytes(serialization.Encoding.PEM), pem


@asynccontextmanager
async def running() -> AsyncIterator[Double]:
    cert, key = certificate()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "crt").write_bytes(cert)
        (Path(folder) / "key").write_bytes(key)
        tls.load_cert_chain(Path(folder) / "crt", Path(folder) / "key")
    app = web.Application(client_max_size=16 << 20)
    double = Double("", cert)
    app.router.add_route("*", "/{path:.*}", double.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        double.url = f"https://127.0.0.1:{runner.addresses[0][1]}"
        yield double
    finally:
        double.release()
        await runner.cleanup()
