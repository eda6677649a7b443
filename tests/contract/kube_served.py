"""A served API and the real kubectl against it, for the contract tests of this room."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import os
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bus.identity import api_keys
from bus.kube import cache, memory, registry, server, upkeep
from bus.kube.auth import users
from bus.kube.http.context import Connect
from bus.kube.storage import Origin
from bus.kube.targets import Write
from cloud.standalone import rules

KUBECTL = str(Path(sys.executable).parent / "kubectl")
TOKEN = "a-token-for-tests"
WAIT_S = 30  # for a process on a busy machine


@dataclass
class Ran:
    code: int
    out: str
    err: str


@dataclass
class Served:
    api: registry.Registry
    storage: memory.MemoryStorage
    url: str
    ca: Path
    kubeconfig: Path
    environment: dict[str, str] = field(default_factory=dict)
    kubectl: str = KUBECTL

    async def start(self, *args: str, program: str = "") -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            program or self.kubectl, *args, stdin=pipe, stdout=pipe, stderr=pipe, env=self.environment
        )

    async def run(self, *args: str, stdin: str = "") -> Ran:
        process = await self.start(*args)
        async with asyncio.timeout(WAIT_S):
            out, err = await process.communicate(stdin.encode())
        return Ran(process.returncode or 0, out.decode(), err.decode())

    async def ok(self, *args: str, stdin: str = "") -> str:
        """What kubectl said; it must have worked, and had no warnings."""
        ran = await self.run(*args, stdin=stdin)
        assert ran.code == 0, f"kubectl {' '.join(args)}: {ran.out}{ran.err}"
        return ran.out

    async def apply(self, *objects: Any) -> str:
        return await self.ok("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))

    def how(self) -> Write:
        return Write(Origin("test"))


def certificate(folder: Path) -> tuple[Path, Path]:
    """(certificate, key) of 127.0.0.1, its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test api")])
    now = datetime.datetime.now(datetime.UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_path, key_path = folder / "api.crt", folder / "api.key"
    cert_path.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    pem, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    key_path.write_bytes(key.private_bytes(serialization.Encoding.PEM, pem, plain))
    return cert_path, key_path


def authenticate(headers: Mapping[str, str]) -> users.User | None:
    return users.authenticated("tester", (users.MASTERS,)) if headers.get("Authorization") == f"Bearer {TOKEN}" else None


@asynccontextmanager
async def served(
    folder: Path,
    *,
    rights: bool = False,
    connect: Callable[[registry.Registry], Mapping[str, Connect]] | None = None,
    authenticate: server.Authenticate = authenticate,
) -> AsyncIterator[Served]:
    """Over TLS, with a token, as users have it; with ``rights``, roles and bindings are asked as the cloud asks them.
    ``connect`` makes what serves subresources that live elsewhere."""
    folder.mkdir(exist_ok=True)
    storage = memory.MemoryStorage(cache.WatchCache(bookmark_s=0.2))
    issuer = rules.make_issuer(storage, api_keys.lone()) if rights else None
    api = rules.make_registry(storage, issuer=issuer) if rights else registry.Registry(storage)
    await upkeep.bootstrap(api, Origin("test"))
    cert, key = certificate(folder)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(cert, key)
    if rights:
        await rules.keep_policy(api)
    options = {"connect": connect(api)} if connect is not None else {}
    app = (rules if rights else server).make_app(api, authenticate=authenticate, **options)
    running = await server.serve(app, "127.0.0.1", 0, tls)
    url = f"https://127.0.0.1:{running.port}"
    kubeconfig = folder / "kubeconfig"
    cluster = {"server": url, "certificate-authority": str(cert)}
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "t", "cluster": cluster}],
                "users": [{"name": "t", "user": {"token": TOKEN}}],
                "contexts": [{"name": "t", "context": {"cluster": "t", "user": "t"}}],
                "current-context": "t",
            }
        )
    )
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "KUBECONFIG": str(kubeconfig)}
    try:
        yield Served(api, storage, url, cert, kubeconfig, environment)
    finally:
        await running.stop()
