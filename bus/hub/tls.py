"""The hub's own certificate authority: made at init, so that TLS is on without anyone having to ask for it, and replaced
when an operator wants it (bus/hub/authority.py).

ECDSA P-256: small certificates and cheap handshakes (a storm of reconnecting nodes pays one each).
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bus.identity import keys

CA_DAYS = 3650
SERVER_DAYS = 825  # the longest that TLS clients commonly accept
RENEW_BEFORE_DAYS = 90  # init_hub reissues a server certificate that ends sooner
_BACKDATE = datetime.timedelta(hours=24)  # edge nodes boot with wrong clocks


class TlsError(Exception):
    """A certificate or key file that can't be used; the message names it."""


def _name(common: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Skerry"), x509.NameAttribute(NameOID.COMMON_NAME, common)]
    )


def _pem_key(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _load(cert: Path, key: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        certificate = x509.load_pem_x509_certificate(cert.read_bytes())
        private = serialization.load_pem_private_key(key.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as e:
        raise TlsError(f"can't read the certificate {cert} and its key {key}: {e}") from e
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise TlsError(f"{key} is not an elliptic-curve key")
    if private.public_key() != certificate.public_key():
        raise TlsError(f"{key} is not the key of the first certificate in {cert}")
    return certificate, private


def make_ca(directory: Path, hub_id: str, now: datetime.datetime) -> None:
    """``ca.pem`` and ``ca.key`` in ``directory``."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"skerry hub {hub_id}")
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + datetime.timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_usage(ca=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    keys.write_private(directory / "ca.key", _pem_key(key))
    (directory / "ca.pem").write_bytes(cert.public_bytes(serialization.Encoding.PEM))


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _san(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def issue(
    directory: Path, cert: Path, key: Path, hosts: Sequence[str], now: datetime.datetime, *, client: bool = False
) -> None:
    """A server certificate for ``hosts`` (DNS names or addresses), signed by the CA in ``directory``; with ``client`` its
    holder may also call others with it.  Raises TlsError."""
    uses = [ExtendedKeyUsageOID.SERVER_AUTH, *([ExtendedKeyUsageOID.CLIENT_AUTH] if client else [])]
    ca, ca_key = _load(directory / "ca.pem", directory / "ca.key")
    private = ec.generate_private_key(ec.SECP256R1())
    try:
        sans = x509.SubjectAlternativeName([_san(h) for h in hosts])
    except ValueError as e:
        raise TlsError(f"not a host name or address among {list(hosts)}: {e}") from e
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_name(hosts[0]))
        .issuer_name(ca.subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(min(now + datetime.timedelta(days=SERVER_DAYS), ca.not_valid_after_utc))
        .add_extension(sans, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    keys.write_private(key, _pem_key(private))
    cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def good(cert: Path, hosts: Sequence[str], now: datetime.datetime) -> bool:
    """Whether the certificate is there, is of the authority in use (the first of ``ca.pem`` beside it), names every host,
    and lasts a while."""
    try:
        certificate = x509.load_pem_x509_certificate(cert.read_bytes())
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate((cert.parent / "ca.pem").read_bytes()))
        sans = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    enough = certificate.not_valid_after_utc > now + datetime.timedelta(days=RENEW_BEFORE_DAYS)
    return enough and all(_san(h) in list(sans) for h in hosts)
