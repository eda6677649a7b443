"""What a request for a stream into a pod says, as admission sees it (core/v1 PodExecOptions and its kin)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bus.kube.catalog import Resource
from bus.kube.storage import Object


def _kind(name: str) -> Resource:
    return Resource("", name.lower(), name, name, name.lower(), True, (), (), {}, "v1", False, stored=False)


KINDS = {
    "exec": _kind("PodExecOptions"),
    "attach": _kind("PodAttachOptions"),
    "portforward": _kind("PodPortForwardOptions"),
}
_FLAGS = {"stdin": False, "stdout": True, "stderr": True, "tty": False}  # as they are when nothing is said


def options(subresource: str, query: Mapping[str, Any]) -> Object:
    """``query`` is a multi-map."""
    out: Object = {"kind": KINDS[subresource].kind, "apiVersion": "v1"}
    listed = query.getall if hasattr(query, "getall") else lambda _, __: []
    if subresource == "portforward":
        ports = [int(p) for p in listed("ports", []) if p.isascii() and p.isdigit()]
        return {**out, **({"ports": ports} if ports else {})}
    for flag, otherwise in _FLAGS.items():
        said = query.get(flag)
        if otherwise if said is None else said.lower() not in ("false", "0"):
            out[flag] = True
    if query.get("container"):
        out["container"] = query["container"]
    return {**out, "command": listed("command", [])} if subresource == "exec" else out
