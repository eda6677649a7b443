"""Registry credentials from imagePullSecrets (types dockerconfigjson and dockercfg)."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from edge.core.pod_spec import Pod
from edge.core.references import References

Credential = tuple[str, str, str]  # registry, user, password


def credentials(pod: Pod, refs: References) -> tuple[Credential, ...]:
    """All that can be read; what can't is left out, and the pull then says what the registry refused."""
    found: list[Credential] = []
    for name in pod.pull_secrets:
        files = refs.files("secrets", pod.namespace, name) or {}
        for key in (".dockerconfigjson", ".dockercfg"):
            if key in files:
                found.extend(_entries(files[key], key))
    return tuple(found)


def _entries(raw: bytes, key: str) -> list[Credential]:
    try:
        config = json.loads(raw)
    except ValueError:
        return []
    auths: Any = config.get("auths") if isinstance(config, dict) and key == ".dockerconfigjson" else config
    if not isinstance(auths, dict):
        return []
    entries = []
    for registry, auth in auths.items():
        if isinstance(auth, dict):
            user, password = auth.get("username"), auth.get("password")
            if not user and isinstance(auth.get("auth"), str):
                user, _, password = _decoded(auth["auth"]).partition(":")
            if user:
                host = str(registry).removeprefix("https://").removeprefix("http://").split("/")[0]
                entries.append((host, str(user), str(password or "")))
    return entries


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode(errors="replace")
    except (binascii.Error, ValueError):
        return ""
