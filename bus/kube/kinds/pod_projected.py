"""What is invalid in projected volumes and in the keys of config maps and secrets that become files
(pkg/apis/core/validation, validateProjectionSources)."""

from __future__ import annotations

from bus.kube import errors, names
from bus.kube.errors import Cause
from bus.kube.kinds import checks, pod_fields
from bus.kube.storage import Object

TOKEN_SECONDS_MIN, TOKEN_SECONDS_MAX = 600, 1 << 32
KEY_TYPES = ("RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519")
CERTIFICATE_SECONDS_MIN, CERTIFICATE_SECONDS_MAX, CERTIFICATE_SECONDS_MAX_KUBERNETES = 3600, 91 * 86400, 86400


def key(item: Object, path: str) -> list[Cause]:
    out = [errors.required(f"{path}.{f}") for f in ("key", "path") if not item.get(f)]
    out += checks.inner_path(f"{path}.path", item.get("path") or "")
    return out + checks.file_mode(f"{path}.mode", item.get("mode"))


def projected(s: Object, path: str) -> list[Cause]:
    out = checks.file_mode(f"{path}.defaultMode", s.get("defaultMode"))
    seen: set[str] = set()

    def place(where: str, told: str) -> None:
        if where and where in seen:
            out.append(errors.bad_value(path, told, "conflicting duplicate paths"))
        seen.add(where)

    for i, source in enumerate(s.get("sources") or []):
        at = f"{path}.sources[{i}]"
        for field in ("secret", "configMap"):
            inner = source.get(field)
            if inner is None:
                continue
            if not inner.get("name"):
                out.append(errors.required(f"{at}.{field}.name"))
            for j, item in enumerate(inner.get("items") or []):
                out.extend(key(item, f"{at}.{field}.items[{j}]"))
                place(item.get("path") or "", inner.get("name") or "")
        for item in (source.get("downwardAPI") or {}).get("items") or []:
            out.extend(pod_fields.file(item, f"{at}.downwardAPI"))
            place(item.get("path") or "", item.get("path") or "")
        if source.get("serviceAccountToken") is not None:
            out.extend(_token(source["serviceAccountToken"], f"{at}.serviceAccountToken", path))
        if source.get("clusterTrustBundle") is not None:
            bundle = source["clusterTrustBundle"]
            out.extend(_bundle(bundle, f"{at}.clusterTrustBundle"))
            where = bundle.get("path") or ""
            if where in seen:
                out.append(errors.bad_value(path, where, "conflicting duplicate paths"))
            seen.add(where)
        if source.get("podCertificate") is not None:
            certificate = source["podCertificate"]
            out.extend(_certificate(certificate, f"{at}.podCertificate"))
            for field in CERTIFICATE_PATHS:
                if certificate.get(field):
                    out.extend(checks.inner_path(f"{at}.podCertificate.{field}", certificate[field]))
                    place(certificate[field], certificate[field])
            if not any(certificate.get(f) for f in CERTIFICATE_PATHS):
                why = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath"
                out.append(errors.required(f"{at}.podCertificate", why))
        if sum(source.get(f) is not None for f in PROJECTIONS) > 1:
            out.append(errors.not_permitted(at, "may not specify more than 1 volume type per source"))
    return out


PROJECTIONS = ("secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate")
CERTIFICATE_PATHS = ("credentialBundlePath", "keyPath", "certificateChainPath")


def _token(token: Object, path: str, volume: str) -> list[Cause]:
    out, seconds = [], token.get("expirationSeconds", 0)
    if seconds < TOKEN_SECONDS_MIN:
        why = "may not specify a duration less than 10 minutes"
        out.append(errors.bad_value(f"{path}.expirationSeconds", seconds, why))
    if seconds > TOKEN_SECONDS_MAX:
        why = "may not specify a duration larger than 2^32 seconds"
        out.append(errors.bad_value(f"{path}.expirationSeconds", seconds, why))
    if not token.get("path"):
        return [*out, errors.required(f"{volume}.path")]
    return out + checks.inner_path(f"{volume}.path", token["path"])


def _signer(path: str, name: str) -> list[Cause]:
    """A fully qualified name of a signer: a domain and a path (pkg/apis/core/validation, ValidateSignerName)."""
    if not name:
        return [errors.required(path)]
    segments = name.split("/")
    if len(segments) != 2:
        why = 'must be a fully qualified domain and path of the form "example.com/signer-name"'
        return [errors.bad_value(path, name, why)]
    domain, rest = segments
    if problem := names.dns_subdomain(domain):
        return [errors.bad_value(path, domain, f"validating label {errors.show(domain)}: {problem}")]
    if len(domain.split(".")) < 2:
        return [errors.bad_value(path, domain, "should be a domain with at least two segments separated by dots")]
    if problem := names.dns_subdomain(rest):
        return [errors.bad_value(path, rest, f"validating label {errors.show(rest)}: {problem}")]
    return []


def _bundle(bundle: Object, path: str) -> list[Cause]:
    name, signer, out = bundle.get("name"), bundle.get("signerName"), []
    if name is not None and signer is not None:
        why = "only one of name and signerName may be used"
        out.append(errors.bad_value(path, bundle, why))
    elif name is not None:
        if not name:
            out.append(errors.required(f"{path}.name", "must be a valid object name"))
        elif ":" not in name and (problem := names.dns_subdomain(name)):
            out.append(errors.bad_value(f"{path}.name", name, f"not a valid clustertrustbundlename: {problem}"))
        if bundle.get("labelSelector") is not None:
            why = "labelSelector must be unset if name is specified"
            out.append(errors.bad_value(f"{path}.labelSelector", bundle["labelSelector"], why))
    elif signer is not None:
        if not signer:
            out.append(errors.required(f"{path}.signerName", "must be a valid signer name"))
        out += _signer(f"{path}.signerName", signer)
        out += checks.label_selector(f"{path}.labelSelector", bundle.get("labelSelector"))
    else:
        out.append(errors.required(path, "either name or signerName must be specified"))
    if not bundle.get("path"):
        out.append(errors.required(f"{path}.path"))
    return out + checks.inner_path(f"{path}.path", bundle.get("path") or "")


def _certificate(s: Object, path: str) -> list[Cause]:
    signer, seconds = s.get("signerName") or "", s.get("maxExpirationSeconds")
    out = _signer(f"{path}.signerName", signer)
    if s.get("keyType") not in KEY_TYPES:
        out.append(errors.not_supported(f"{path}.keyType", s.get("keyType") or "", KEY_TYPES))
    if seconds is not None:
        at = f"{path}.maxExpirationSeconds"
        if seconds < CERTIFICATE_SECONDS_MIN:
            why = f"if provided, maxExpirationSeconds must be >= {CERTIFICATE_SECONDS_MIN}"
            out.append(errors.bad_value(at, seconds, why))
        own = signer.startswith("kubernetes.io/")
        most = CERTIFICATE_SECONDS_MAX_KUBERNETES if own else CERTIFICATE_SECONDS_MAX
        if seconds > most:
            out.append(errors.bad_value(at, seconds, f"if provided, maxExpirationSeconds must be <= {most}"))
    return out
