"""Where the cluster is and who we are there.

The ``kubernetes`` package reads kubeconfigs (certificates, tokens, exec plugins) and a pod's service account; nothing else
of it is used.  It is loaded only when asked for: it costs half a second and 25 MB.  Files with tokens are read here: it
reads a kubeconfig's only once, and a pod's not before a minute is over, whatever the API server says of the old one.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from pathlib import Path
from typing import Any

import yaml

TOKEN_LOOK_S = 30.0  # how long a token is used unseen: kubelet renews a pod's long before its end


class CredentialsError(Exception):
    """The kubeconfig or the service account can't be used; the message says which and why."""


class Credentials:
    """``url`` without a slash at its end; ``proxy`` and ``server_name`` are None where the configuration has none."""

    def __init__(self, configuration: Any, what: str, token_file: Path | None = None) -> None:
        self._config, self._what, self._token_file = configuration, what, token_file
        self.url = str(configuration.host).rstrip("/")
        self.proxy: str | None = configuration.proxy
        self.server_name: str | None = configuration.tls_server_name
        self.tls = self._tls()
        self._header: str | None = None
        self._read_s = float("-inf")

    def _tls(self) -> ssl.SSLContext:
        c = self._config
        try:
            context = ssl.create_default_context(cafile=c.ssl_ca_cert or None)
            if not c.verify_ssl:  # insecure-skip-tls-verify: the kubeconfig's author decided so
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if c.cert_file:
                context.load_cert_chain(c.cert_file, c.key_file)
        except (OSError, ValueError) as e:
            raise CredentialsError(f"{self._what}: its certificates can't be used: {e}") from e
        return context

    async def headers(self) -> dict[str, str]:
        """Of every request.  Raises CredentialsError."""
        if time.monotonic() - self._read_s > TOKEN_LOOK_S:
            self._header = await asyncio.to_thread(self._token)  # an exec plugin is a process, a token a file
            self._read_s = time.monotonic()
        return {"Authorization": self._header} if self._header else {}

    def forget(self) -> None:
        """The cluster refused the token: the next request reads it again."""
        self._read_s = float("-inf")

    def _token(self) -> str | None:
        if self._token_file is not None:
            try:
                return f"Bearer {self._token_file.read_text().strip()}"
            except (OSError, ValueError) as e:
                raise CredentialsError(f"{self._what}: no token: {e}") from e
        try:
            found = self._config.get_api_key_with_prefix("BearerToken") or None
            basic = self._config.get_basic_auth_token() if not found and self._config.username else None
        except Exception as e:  # plugins and loaders raise what they like
            raise CredentialsError(f"{self._what}: no token: {e}") from e
        return str(found or basic).strip() if found or basic else None


def load(kubeconfig: Path | None, context: str | None = None) -> Credentials:
    """From a kubeconfig, or with None from the pod's service account.  Blocks for files.  Raises CredentialsError."""
    from kubernetes.client import Configuration
    from kubernetes.config import incluster_config, kube_config

    config, token_file = Configuration(), None
    what = f"kubeconfig {kubeconfig}" if kubeconfig else "the pod's service account"
    try:
        if kubeconfig is None:
            in_pod: Any = incluster_config.load_incluster_config
            in_pod(config)
            token_file = Path(incluster_config.SERVICE_TOKEN_FILENAME)
        else:
            of_file: Any = kube_config.load_kube_config
            of_file(str(kubeconfig), context, config, persist_config=False)
            token_file = _token_file(kubeconfig, context)
    except Exception as e:  # the loader lets through whatever a damaged file makes its parsers raise
        raise CredentialsError(f"{what} can't be used: {e}") from e
    return Credentials(config, what, token_file)


def _token_file(kubeconfig: Path, context: str | None) -> Path | None:
    """The ``tokenFile`` of the context's user, which is before ``token``."""
    said = yaml.safe_load(kubeconfig.read_text())
    name = context or said["current-context"]
    user = next(c["context"].get("user") for c in said["contexts"] if c["name"] == name)
    found = next(((u.get("user") or {}).get("tokenFile") for u in said.get("users") or () if u["name"] == user), None)
    return kubeconfig.parent / found if found else None
