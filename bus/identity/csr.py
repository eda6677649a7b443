"""Certificate signing requests for a server, and what comes back.  Pure.

ECDSA P-256, as all of our keys.  Source: RFC 2986 (PKCS #10); Kubernetes documentation, "Certificates and Certificate
Signing Requests", signer kubernetes.io/kubelet-serving (which subjects and names it takes).
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class BadCertificate(ValueError):
    """What was given can't be used; the message says why."""


def new_key() -> str:
    """PEM, not encrypted."""
    kind, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(serialization.Encoding.PEM, kind, plain).decode()


def _key(pem: str) -> ec.EllipticCurvePrivateKey:
    try:
        found = serialization.load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError) as e:
        raise BadCertificate(f"the key can't be read: {e}") from e
    if not isinstance(found, ec.EllipticCurvePrivateKey):
        raise BadCertificate("the key is not an elliptic-curve key")
    return found


def _public(key: object) -> bytes:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise BadCertificate("the certificate is not for an elliptic-curve key")
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def fingerprint(key: str) -> str:
    """Of the public half, in hex.  Raises BadCertificate."""
    return hashlib.sha256(_public(_key(key).public_key())).hexdigest()


def request(key: str, common: str, organization: str, host: str) -> str:
    """PEM of a request for ``host`` (a DNS name or an address).  Raises BadCertificate."""
    subject = [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
        x509.NameAttribute(NameOID.COMMON_NAME, common),
    ]
    try:
        names = x509.SubjectAlternativeName([_san(host)])
        made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject)).add_extension(names, critical=False)
    except ValueError as e:
        raise BadCertificate(f"{host!r} is no DNS name and no address: {e}") from e
    return made.sign(_key(key), hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def _san(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


@dataclass(frozen=True, slots=True)
class Issued:
    """When it counts, in seconds of the epoch."""

    since_s: float
    until_s: float


def check(chain: str, key: str, hosts: Sequence[str]) -> Issued:
    """The first certificate of a PEM chain, when it is for this key and these hosts.  Raises BadCertificate."""
    try:
        found = x509.load_pem_x509_certificates(chain.encode())[0]
        names = list(found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except (ValueError, IndexError) as e:
        raise BadCertificate(f"the certificate can't be read: {e}") from e
    except x509.ExtensionNotFound as e:
        raise BadCertificate("the certificate names no host") from e
    if _public(found.public_key()) != _public(_key(key).public_key()):
        raise BadCertificate("the certificate is for another key")
    missing = [h for h in hosts if _san(h) not in names]
    if missing:
        raise BadCertificate(f"the certificate is not for {', '.join(missing)}")
    return Issued(_seconds(found.not_valid_before_utc), _seconds(found.not_valid_after_utc))


def _seconds(at: datetime.datetime) -> float:
    return at.timestamp()
