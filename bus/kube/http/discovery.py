"""What is served: the documents under /api and /apis, plain and aggregated (API concepts, "Discovery API")."""

from __future__ import annotations

from typing import Any, Protocol

from bus.kube import errors
from bus.kube.catalog import Resource, Version, is_builtin, version_rank
from bus.kube.storage import Object

VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
READ_VERBS = ("get", "list", "watch")
MADE_VERBS = ("get", "list")  # of what is stored nowhere
ASK_VERBS = ("create",)  # of what is never stored
SUB_VERBS = ("get", "patch", "update")
MAJOR, MINOR = "1", "35"  # the Kubernetes API whose rules these are

# group, version, kind, verbs of the subresources that are not their parent
_SUBRESOURCES: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "scale": ("autoscaling", "v1", "Scale", SUB_VERBS),
    "binding": ("", "v1", "Binding", ("create",)),
    "eviction": ("policy", "v1", "Eviction", ("create",)),
    "ephemeralcontainers": ("", "v1", "Pod", SUB_VERBS),
    "resize": ("", "v1", "Pod", SUB_VERBS),
    "log": ("", "v1", "Pod", ("get",)),
    "exec": ("", "v1", "PodExecOptions", ("create", "get")),
    "attach": ("", "v1", "PodAttachOptions", ("create", "get")),
    "portforward": ("", "v1", "PodPortForwardOptions", ("create", "get")),
    "finalize": ("", "v1", "Namespace", ("update",)),
    "token": ("authentication.k8s.io", "v1", "TokenRequest", ("create",)),
}


class Served(Protocol):
    def all(self) -> list[Resource]:
        """Groups by importance, then resources by name."""


def _verbs(res: Resource, writable: bool) -> list[str]:
    if not res.stored:
        return list(ASK_VERBS)
    return list(MADE_VERBS if res.read_only else VERBS if writable else READ_VERBS)


def aggregated(accept: str) -> str | None:
    """The version of aggregated discovery that a client prefers, if any."""
    for choice in accept.split(","):
        parts = {p.strip() for p in choice.split(";")}
        if "as=APIGroupDiscoveryList" in parts and "application/json" in parts:
            for version in ("v2", "v2beta1"):
                if f"v={version}" in parts:
                    return version
        elif "application/json" in parts and len(parts) == 1:
            return None
    return None


def api_versions(host: str) -> Object:
    addresses = [{"clientCIDR": "0.0.0.0/0", "serverAddress": host}]
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": addresses}


def _groups(catalog: Served) -> dict[str, list[str]]:
    """Served versions of each named group, preferred first."""
    found: dict[str, set[str]] = {}
    for res in catalog.all():
        if res.group:
            found.setdefault(res.group, set()).update(res.preferred)
    return {g: sorted(v, key=version_rank) for g, v in found.items()}


def _group(name: str, versions: list[str]) -> Object:
    listed = [{"groupVersion": f"{name}/{v}", "version": v} for v in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def groups(catalog: Served) -> Object:
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(g, v) for g, v in _groups(catalog).items()]}


def group(catalog: Served, name: str) -> Object:
    """Raises StatusError 404."""
    versions = _groups(catalog).get(name)
    if versions is None:
        raise errors.no_page()
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, versions)}


def _served(catalog: Served, group_name: str, version: str) -> list[tuple[Resource, Version]]:
    return [(r, r.versions[version]) for r in catalog.all() if r.group == group_name and version in r.preferred]


def resources(catalog: Served, group_name: str, version: str, *, writable: bool) -> Object:
    """Raises StatusError 404."""
    served = _served(catalog, group_name, version)
    if not served:
        raise errors.no_such_path() if is_builtin(group_name) else errors.no_page()
    listed: list[Object] = []
    for res, ver in served:
        entry: Object = {
            "name": res.resource,
            "singularName": res.singular,
            "namespaced": res.namespaced,
            "kind": res.kind,
            "verbs": _verbs(res, writable),
        }
        if res.short:
            entry["shortNames"] = list(res.short)
        if res.categories:
            entry["categories"] = list(res.categories)
        listed.append(entry)
        for sub in ver.subresources:
            gvk = _SUBRESOURCES.get(sub)
            extra: Object = {"group": gvk[0], "version": gvk[1]} if gvk and gvk[0] != res.group else {}
            kind, verbs = (gvk[2], gvk[3]) if gvk else (res.kind, SUB_VERBS)
            listed.append(
                {
                    "name": f"{res.resource}/{sub}",
                    "singularName": "",
                    "namespaced": res.namespaced,
                    **extra,
                    "kind": kind,
                    "verbs": list(verbs if writable else ("get",)),
                }
            )
    name = f"{group_name}/{version}" if group_name else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": listed}


def aggregate(catalog: Served, *, core: bool, version: str, writable: bool) -> Object:
    """Everything under /api (``core``) or /apis in one document."""
    found = {"": ["v1"]} if core else _groups(catalog)
    items = []
    for name, versions in found.items():
        listed = [
            {
                "version": v,
                "resources": [_discovered(r, ver, writable) for r, ver in _served(catalog, name, v)],
                "freshness": "Current",
            }
            for v in versions
        ]
        items.append({"metadata": {"name": name, "creationTimestamp": None}, "versions": listed})
    head = {"kind": "APIGroupDiscoveryList", "apiVersion": f"apidiscovery.k8s.io/{version}", "metadata": {}}
    return {**head, "items": items}


def _discovered(res: Resource, ver: Version, writable: bool) -> Object:
    def kind_of(group_name: str, version: str, kind: str) -> Object:
        return {"group": group_name, "version": version, "kind": kind}

    subs: list[Any] = []
    for sub in ver.subresources:
        g, v, k, verbs = _SUBRESOURCES.get(sub, (res.group, ver.name, res.kind, SUB_VERBS))
        subs.append({"subresource": sub, "responseKind": kind_of(g, v, k), "verbs": list(verbs if writable else ("get",))})
    return {
        "resource": res.resource,
        "responseKind": kind_of(res.group, ver.name, res.kind),
        "scope": "Namespaced" if res.namespaced else "Cluster",
        "singularResource": res.singular,
        "verbs": _verbs(res, writable),
        **({"shortNames": list(res.short)} if res.short else {}),
        **({"categories": list(res.categories)} if res.categories else {}),
        **({"subresources": subs} if subs else {}),
    }


def version_info(source: str) -> Object:
    return {
        "major": MAJOR,
        "minor": MINOR,
        "gitVersion": f"v{MAJOR}.{MINOR}.0+{source}",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "",
        "goVersion": "",
        "compiler": "python",
        "platform": "linux",
    }
