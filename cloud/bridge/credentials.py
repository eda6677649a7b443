"""Where the cluster is and who we are there.

The ``kubernetes`` package reads kubeconfigs (certificates, tokens, exec plugins) and a pod's service account; nothing else
of it is used.  It is loaded only when asked for: it costs half a second and 25 MB.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from pathlib import Path
from typing import Any

TOKEN_LOOK_S = 30.0  # how long a token is used unseen: kubelet renews a pod's long before its end


class CredentialsError(Exception):
    """The kubeconfig or the service account can't be used; the message says which and why."""


class Credentials:
    """``url`` without a slash at its end; ``proxy`` and ``server_name`` are None where the configuration has none."""

    def __init__(self, configuration: Any, what: str) -> None:
        self._config, self._what = configuration, what
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
        try:
            found = self._config.get_api_key_with_prefix("BearerToken") or None
            basic = self._config.get_basic_auth_token() if not found and self._config.username else None
        except Exception as e:  # plugins and loaders raise what they like
            raise CredentialsError(f"{self._what}: no token: {e}") from e
        return str(found or basic) if found or basic else None


def load(kubeconfig: Path | None, context: str | None = None) -> Credentials:
    """From a kubeconfig, or with None from the pod's service account.  Blocks for files.  Raises CredentialsError."""
    from kubernetes.client import Configuration
    from kubernetes.config import incluster_config, kube_config

    config = Configuration()
    what = f"kubeconfig {kubeconfig}" if kubeconfig else "the pod's service account"
    try:
        if kubeconfig is None:
            in_pod: Any = incluster_config.load_incluster_config
            in_pod(config)
        else:
            of_file: Any = kube_config.load_kube_config
            of_file(str(kubeconfig), context, config, persist_config=False)
    except Exception as e:  # the loader lets through whatever a damaged file makes its parsers raise
        raise CredentialsError(f"{what} can't be used: {e}") from e
    return Credentials(config, what)
