"""The kubelets' certificate: what is asked for, when it is used, and what ends a request.

The cluster here keeps requests as an API server does and signs them with a CA of its own, once they are approved; against
real ones it runs in tests/contract/any_cluster."""

from __future__ import annotations

import asyncio
import base64
import datetime
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bus.identity import csr
from bus.kube.errors import StatusError
from cloud.kubelet import serving_cert
from cloud.kubelet.serving_cert import ServingCertificate

ADDRESS = "10.0.0.7"


class Signer:
    """Requests by name; ``life_s`` of what is signed."""

    def __init__(self) -> None:
        self.held: dict[str, dict[str, Any]] = {}
        self.created, self.life_s = 0, 3600.0
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])

    async def get(self, path: Any, name: str) -> dict[str, Any]:
        await asyncio.sleep(0)
        if name not in self.held:
            raise StatusError(404, "NotFound", name)
        return self.held[name]

    async def create(self, path: Any, obj: dict[str, Any]) -> dict[str, Any]:
        self.created += 1
        return self.held.setdefault(obj["metadata"]["name"], {**obj, "status": {}})

    async def update(self, path: Any, name: str, obj: dict[str, Any], *, subresource: str) -> dict[str, Any]:
        assert subresource == "approval"
        self.held[name] = obj
        self.sign(name)
        return obj

    def sign(self, name: str, key: ec.EllipticCurvePublicKey | None = None) -> None:
        asked = x509.load_pem_x509_csr(base64.b64decode(self.held[name]["spec"]["request"]))
        now = datetime.datetime.now(datetime.UTC)
        of = key or asked.public_key()
        assert isinstance(of, ec.EllipticCurvePublicKey)
        made = (
            x509.CertificateBuilder()
            .subject_name(asked.subject)
            .issuer_name(self._name)
            .public_key(of)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + datetime.timedelta(seconds=self.life_s))
            .add_extension(asked.extensions.get_extension_for_class(x509.SubjectAlternativeName).value, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        pem = base64.b64encode(made.public_bytes(serialization.Encoding.PEM)).decode()
        status = {"conditions": [{"type": "Approved", "status": "True"}], "certificate": pem}
        self.held[name] = {**self.held[name], "status": status}


def asking(signer: Any, folder: Path, how: serving_cert.How = "approve", address: str = ADDRESS) -> ServingCertificate:
    return ServingCertificate(signer, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), folder, address, how)


async def until(certificate: ServingCertificate, check: Callable[[], object]) -> None:
    task = asyncio.create_task(certificate.run())
    try:
        async with asyncio.timeout(30):
            while not check():
                assert not task.done(), task
                await asyncio.sleep(0.01)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_it_is_approved_by_us_and_kept_over_a_restart(tmp_path: Path) -> None:
    signer = Signer()
    first = asking(signer, tmp_path)
    assert not first.kept()
    await until(first, lambda: list(tmp_path.glob("*.pem")))
    (held,) = signer.held.values()
    assert (held["spec"]["signerName"], held["spec"]["usages"]) == (
        serving_cert.SIGNER,
        ["digital signature", "server auth"],
    )
    asked = x509.load_pem_x509_csr(base64.b64decode(held["spec"]["request"]))
    assert asked.subject.rfc4514_string() == "CN=system:node:skerry-kubelets,O=system:nodes"
    assert [p.stat().st_mode & 0o777 for p in tmp_path.glob("*.key")] == [0o600]
    assert not list(tmp_path.glob("*.next"))
    assert asking(signer, tmp_path).kept() and signer.created == 1
    assert not asking(signer, tmp_path, address="10.0.0.8").kept(), "another pod at another address has its own"


async def test_a_restart_waits_for_the_same_request(tmp_path: Path) -> None:
    signer = Signer()
    for _ in range(2):
        await until(asking(signer, tmp_path, "request"), lambda: signer.created)
    assert signer.created == 1
    signer.sign(next(iter(signer.held)))
    await until(asking(signer, tmp_path, "request"), lambda: list(tmp_path.glob("*.pem")))
    assert signer.created == 1


async def test_it_is_renewed_before_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_cert, "RENEW_S_MIN", 0.0)
    signer = Signer()
    signer.life_s = 0.9
    await until(asking(signer, tmp_path), lambda: len(signer.held) >= 3)


@pytest.mark.parametrize("kind", ["Denied", "Failed"])
async def test_one_that_is_refused_is_given_up_and_its_key_with_it(tmp_path: Path, kind: str) -> None:
    signer = Signer()
    await until(asking(signer, tmp_path, "request"), lambda: signer.created)
    name = next(iter(signer.held))
    signer.held[name]["status"] = {"conditions": [{"type": kind, "message": "not this one"}]}
    await until(asking(signer, tmp_path, "request"), lambda: not list(tmp_path.glob("*.next")))
    assert not list(tmp_path.glob("*.pem"))


async def test_a_certificate_for_another_key_is_not_served(tmp_path: Path) -> None:
    signer = Signer()
    await until(asking(signer, tmp_path, "request"), lambda: signer.created)
    signer.sign(next(iter(signer.held)), ec.generate_private_key(ec.SECP256R1()).public_key())
    await until(asking(signer, tmp_path, "request"), lambda: not list(tmp_path.glob("*.next")))
    assert not list(tmp_path.glob("*.pem"))


@pytest.mark.parametrize(
    ("chain", "said"),
    [("", "can't be read"), ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "can't be read")],
)
def test_what_is_no_certificate(chain: str, said: str) -> None:
    with pytest.raises(csr.BadCertificate, match=said):
        csr.check(chain, csr.new_key(), [ADDRESS])


def test_what_can_be_asked_for() -> None:
    key = csr.new_key()
    for host in (ADDRESS, "fd00::7", "hub.example.com"):
        asked = x509.load_pem_x509_csr(csr.request(key, "c", "o", host).encode())
        names = asked.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert [str(n.value) for n in names] == [host]
    with pytest.raises(csr.BadCertificate, match="no DNS name and no address"):
        csr.request(key, "c", "o", "hüb.example.com")
    with pytest.raises(csr.BadCertificate, match="key can't be read"):
        csr.request("nothing", "c", "o", ADDRESS)
