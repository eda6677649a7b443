"""What is invalid in probes and lifecycle hooks (pkg/apis/core/validation, validateHandler)."""

from __future__ import annotations

from bus.kube import errors
from bus.kube.errors import Cause
from bus.kube.kinds import checks
from bus.kube.storage import Object

PROBE_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")
HOOK_HANDLERS = ("exec", "httpGet", "tcpSocket", "sleep")
_SIGNALS = (
    *("SIGABRT", "SIGALRM", "SIGBUS", "SIGCHLD", "SIGCLD", "SIGCONT", "SIGFPE", "SIGHUP", "SIGILL", "SIGINT", "SIGIO"),
    *("SIGIOT", "SIGKILL", "SIGPIPE", "SIGPOLL", "SIGPROF", "SIGPWR", "SIGQUIT", "SIGSEGV", "SIGSTKFLT", "SIGSTOP"),
    *("SIGSYS", "SIGTERM", "SIGTRAP", "SIGTSTP", "SIGTTIN", "SIGTTOU", "SIGURG", "SIGUSR1", "SIGUSR2", "SIGVTALRM"),
    *("SIGWINCH", "SIGXCPU", "SIGXFSZ", "SIGRTMIN", "SIGRTMAX"),
    *(f"SIGRTMIN+{i}" for i in range(1, 16)),
    *(f"SIGRTMAX-{i}" for i in range(1, 15)),
)
SIGNALS = {"linux": tuple(sorted(_SIGNALS)), "windows": ("SIGKILL", "SIGTERM")}


def probe(given: Object, path: str, field: str) -> list[Cause]:
    """``field`` is what kind of probe it is."""
    out = _handler(given, path, PROBE_HANDLERS, None)
    for name in ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        out += checks.not_negative(f"{path}.{name}", given.get(name))
    grace = given.get("terminationGracePeriodSeconds")
    at = f"{path}.terminationGracePeriodSeconds"
    if grace is not None and grace <= 0:
        out.append(errors.bad_value(at, grace, "must be greater than 0"))
    if field == "readinessProbe":
        if grace is not None:
            out.append(errors.bad_value(at, grace, "must not be set for readinessProbes"))
    elif given.get("successThreshold") != 1:
        out.append(errors.bad_value(f"{path}.successThreshold", given.get("successThreshold"), "must be 1"))
    return out


def lifecycle(given: Object, path: str, grace_s: int, system: str | None) -> list[Cause]:
    out: list[Cause] = []
    for field in ("postStart", "preStop"):
        if given.get(field) is not None:
            out += _handler(given[field], f"{path}.{field}", HOOK_HANDLERS, grace_s)
    signal, at = given.get("stopSignal"), f"{path}.stopSignal"
    if signal is None:
        return out
    if system is None:
        return [*out, errors.not_permitted(at, "may not be set for containers with empty `spec.os.name`")]
    return out + (checks.listed(at, signal, SIGNALS[system]) if system in SIGNALS else [])


def _handler(given: Object, path: str, known: tuple[str, ...], grace_s: int | None) -> list[Cause]:
    found = [h for h in known if given.get(h) is not None]
    if not found:
        return [errors.required(path, "must specify a handler type")]
    first = found[0]
    out = _one(given[first], f"{path}.{first}", first, grace_s)
    return out + [errors.not_permitted(f"{path}.{h}", "may not specify more than 1 handler type") for h in found[1:]]


def _one(given: Object, path: str, kind: str, grace_s: int | None) -> list[Cause]:
    if kind == "exec":
        return [] if given.get("command") else [errors.required(f"{path}.command")]
    if kind == "httpGet":
        return _http(given, path)
    if kind == "sleep":
        seconds = given.get("seconds", 0)
        if grace_s is None or 0 <= seconds <= grace_s:
            return []
        why = f"must be non-negative and less than terminationGracePeriodSeconds ({grace_s})"
        return [errors.bad_value(path, seconds, why)]
    return checks.port(f"{path}.port", given.get("port"))


def _http(given: Object, path: str) -> list[Cause]:
    out = [] if given.get("path") else [errors.required(f"{path}.path")]
    out += checks.port(f"{path}.port", given.get("port"))
    out += checks.listed(f"{path}.scheme", given.get("scheme") or "", ("HTTP", "HTTPS"))
    for header in given.get("httpHeaders") or []:
        out += checks.header_name(f"{path}.httpHeaders", header.get("name") or "")
    return out
