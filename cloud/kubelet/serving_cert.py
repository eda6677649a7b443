"""The kubelets' serving certificate, asked of the cluster, so that its API server can check it
(``--kubelet-certificate-authority``), as a kubelet with ``serverTLSBootstrap`` asks.

One endpoint serves every edge node, so it is one certificate: for the address that Node objects name.  Nobody signs it
without an approval, which is an administrator's (``kubectl certificate approve``) or, if it was so decided at the
installation, our own.  Until it is there the hub's own certificate is served, and a new one is asked for before the old one
ends.  Key and certificate are kept in the hub's folder, so a restart asks for nothing.
Source: Kubernetes documentation, "Certificates and Certificate Signing Requests"; "Kubelet TLS bootstrapping"; kubelet's
certificate manager (a new one after 70 to 90 % of the old one's life).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import random
import ssl
import time
from pathlib import Path
from typing import Any, Literal

import structlog

from bus.identity import csr, keys
from bus.kube.errors import StatusError
from cloud.bridge.client import Client
from cloud.bridge.client import Path as Collection

logger = structlog.get_logger(__name__)

How = Literal["none", "request", "approve"]

REQUESTS = Collection("certificates.k8s.io", "v1", "certificatesigningrequests")
SIGNER = "kubernetes.io/kubelet-serving"
USAGES = ("digital signature", "server auth")  # an elliptic-curve key enciphers no key
COMMON, ORGANIZATION = "system:node:skerry-kubelets", "system:nodes"  # the signer takes no other organization
LOOK_S, LOOK_S_MAX = 1.0, 10.0  # for an approval, which may take a person
RETRY_S = 30.0  # after a refusal of the cluster
DENIED_S = 3600.0  # who denied it is not asked again at once
RENEW_AT = (0.7, 0.9)  # of a certificate's life
RENEW_S_MIN = 10.0
SLEEP_S_MAX = 6 * 3600.0  # clocks are set, machines sleep


class _Over(Exception):
    """The request leads to no certificate: another is made after ``wait_s``."""

    def __init__(self, why: str, wait_s: float) -> None:
        super().__init__(why)
        self.wait_s = wait_s


class ServingCertificate:
    """``kept`` before serving, ``run`` until cancelled.  ``folder`` keeps key and certificate."""

    def __init__(self, client: Client, context: ssl.SSLContext, folder: Path, address: str, how: How) -> None:
        self._client, self._context, self._address, self._how = client, context, address, how
        of = hashlib.sha256(address.encode()).hexdigest()[:12]  # replicas have a file each
        self._cert, self._key = folder / f"kubelet-{of}.pem", folder / f"kubelet-{of}.key"
        self._next_key = folder / f"kubelet-{of}.next"
        self._renew_s = 0.0  # seconds of the epoch

    def kept(self) -> bool:
        """Whether there is one from before, which is then served."""
        try:
            chain, key = self._cert.read_text(), self._key.read_text()
            issued = csr.check(chain, key, [self._address])
            if issued.until_s <= time.time():
                return False
            self._context.load_cert_chain(self._cert, self._key)
        except (OSError, ValueError):
            return False
        self._renew_s = renew_at(issued)
        return True

    async def run(self) -> None:
        while True:
            wait_s = self._renew_s - time.time()
            if wait_s > 0:
                await asyncio.sleep(min(wait_s, SLEEP_S_MAX))
                continue
            try:
                await self._renew()
            except _Over as e:
                logger.error("kubelet.certificate.refused", reason=str(e))
                self._next_key.unlink(missing_ok=True)
                await asyncio.sleep(e.wait_s)
            except (StatusError, OSError) as e:
                reason = f"{e.code} {e.message}" if isinstance(e, StatusError) else str(e)
                logger.warning("kubelet.certificate.failed", reason=reason)
                await asyncio.sleep(RETRY_S * random.uniform(0.5, 1.0))

    async def _renew(self) -> None:
        """Raises _Over, StatusError."""
        key = self._pending_key()
        name = f"skerry-kubelet-{csr.fingerprint(key)[:16]}"
        chain = await self._ask(name, key)
        try:
            issued = csr.check(chain, key, [self._address])
        except csr.BadCertificate as e:
            raise _Over(f"{name}: {e}", DENIED_S) from e
        keys.write_private(self._key, key)
        self._cert.write_text(chain)
        self._context.load_cert_chain(self._cert, self._key)
        self._next_key.unlink(missing_ok=True)
        self._renew_s = max(renew_at(issued), time.time() + RENEW_S_MIN)
        logger.info("kubelet.certificate", request=name, address=self._address, days=round(_days(issued), 1))

    def _pending_key(self) -> str:
        """The one of a request that is under way, or a new one."""
        try:
            key = self._next_key.read_text()
            csr.fingerprint(key)
        except (OSError, ValueError):
            key = csr.new_key()
            keys.write_private(self._next_key, key)
        return key

    async def _ask(self, name: str, key: str) -> str:
        """The chain, when it is signed.  Raises _Over, StatusError."""
        body, said, wait_s = signing_request(name, key, self._address), False, LOOK_S
        while True:
            try:
                found = await self._client.get(REQUESTS, name)
            except StatusError as e:
                if e.code != 404:  # cleaned up by the cluster: unsigned ones after a day
                    raise
                found = await self._created(name, body)
            chain = signed(found)
            if chain:
                return chain
            if not approved(found):
                if self._how == "approve":
                    await self._approve(name, found)
                elif not said:
                    said = True
                    logger.warning("kubelet.certificate.waits", hint=f"kubectl certificate approve {name}")
            await asyncio.sleep(wait_s)
            wait_s = min(LOOK_S_MAX, wait_s * 1.5)

    async def _created(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            return await self._client.create(REQUESTS, body)
        except StatusError as e:
            if e.code != 409:
                raise
            return await self._client.get(REQUESTS, name)

    async def _approve(self, name: str, found: dict[str, Any]) -> None:
        said = {"type": "Approved", "status": "True", "reason": "SkerryApproved", "message": "the installation decided so"}
        conditions = [*_conditions(found), said]
        body = {**found, "status": {**(found.get("status") or {}), "conditions": conditions}}
        try:
            await self._client.update(REQUESTS, name, body, subresource="approval")
        except StatusError as e:
            if e.code not in (404, 409):
                raise  # else it has changed: the next look tells


def signing_request(name: str, key: str, address: str) -> dict[str, Any]:
    pem = csr.request(key, COMMON, ORGANIZATION, address)
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": {"signerName": SIGNER, "usages": list(USAGES), "request": base64.b64encode(pem.encode()).decode()},
    }


def _conditions(found: dict[str, Any]) -> list[dict[str, Any]]:
    listed = (found.get("status") or {}).get("conditions")
    return [c for c in listed if isinstance(c, dict)] if isinstance(listed, list) else []


def approved(found: dict[str, Any]) -> bool:
    """Raises _Over for one that is denied, or that the signer can't sign."""
    kinds = {str(c.get("type")): str(c.get("message") or c.get("reason") or "") for c in _conditions(found)}
    for kind in ("Denied", "Failed"):
        if kind in kinds:
            raise _Over(f"{found['metadata']['name']}: {kind}: {kinds[kind]}", DENIED_S)
    return "Approved" in kinds


def signed(found: dict[str, Any]) -> str:
    """The chain in PEM, "" when there is none yet."""
    text = (found.get("status") or {}).get("certificate")
    try:
        return base64.b64decode(text, validate=True).decode("ascii") if isinstance(text, str) and text else ""
    except (binascii.Error, ValueError) as e:
        raise _Over(f"{found['metadata']['name']}: its certificate is no base64: {e}", DENIED_S) from e


def renew_at(issued: csr.Issued) -> float:
    """Seconds of the epoch."""
    return issued.since_s + (issued.until_s - issued.since_s) * random.uniform(*RENEW_AT)


def _days(issued: csr.Issued) -> float:
    return (issued.until_s - issued.since_s) / 86400
