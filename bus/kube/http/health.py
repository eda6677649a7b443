"""Whether this server is alive and ready (Kubernetes "API health endpoints"): for any method, each check alone at a path
of its own, all of them with ``verbose``, without those that ``exclude`` names.

The checks have the names that the real server's have, where there is such a thing here: ``etcd`` is the log, which a server
that isn't ready has not caught up with.  One that fails is a 503, by which load balancers turn to another.
"""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from multidict import MultiMapping

from bus.kube import errors

_ALWAYS = ("ping", "log", "etcd", "poststarthook/rbac/bootstrap-roles")
CHECKS = {
    "healthz": _ALWAYS,
    "livez": _ALWAYS,
    "readyz": ("ping", "log", "informer-sync", "poststarthook/rbac/bootstrap-roles"),
}
_CAN_FAIL = "informer-sync"


def about(path: str) -> bool:
    """Whether a path is one of these."""
    return path.removeprefix("/").partition("/")[0] in CHECKS


def answer(path: str, query: MultiMapping[str], *, ready: Callable[[], bool]) -> web.Response:
    """Raises StatusError 404 for a check that there isn't."""
    name, slash, check = path[1:].partition("/")
    if slash and check not in CHECKS[name]:
        raise errors.no_page()
    checks = (check,) if slash else CHECKS[name]
    unwanted = set() if slash else set(query.getall("exclude", []))
    failed = [c for c in checks if c == _CAN_FAIL and c not in unwanted and not ready()]
    if slash and not failed:
        return _text("ok")
    if not failed and "verbose" not in query:
        return _text("ok")
    lines = [_line(c, failed, unwanted) for c in checks]
    unknown = sorted(unwanted.difference(checks))
    if unknown:
        quoted = ",".join(f'"{u[:80]}"' for u in unknown[:16])
        lines.append(f"warn: some health checks cannot be excluded: no matches for {quoted}")
    lines.append(f"{name} check {'failed' if failed else 'passed'}")
    return _text("\n".join(lines) + "\n", 503 if failed else 200)


def _line(check: str, failed: list[str], unwanted: set[str]) -> str:
    if check in unwanted:
        return f"[+]{check} excluded: ok"
    return f"[-]{check} failed: reason withheld" if check in failed else f"[+]{check} ok"


def _text(text: str, code: int = 200) -> web.Response:
    headers = {"Cache-Control": "no-cache, private", "X-Content-Type-Options": "nosniff"}
    return web.Response(status=code, text=text, headers=headers)
