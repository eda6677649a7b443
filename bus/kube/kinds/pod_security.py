"""What is invalid in security contexts of pods and containers, and what a Windows pod may not have
(pkg/apis/core/validation)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bus.kube import errors, names
from bus.kube.errors import Cause
from bus.kube.kinds import checks
from bus.kube.storage import Object

SPEC_BYTES_MAX = 64 * 1024  # of a GMSA credential
DOMAIN_CHARS_MAX, USER_CHARS_MAX = 256, 104
SYSCTL_CHARS_MAX = 253
PROFILE_BYTES_MAX = 4095
_SEGMENT = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_SYSCTL = rf"({_SEGMENT}[\./])*{_SEGMENT}"
_IPC_SYSCTLS = (
    *("kernel.sem", "kernel.shm", "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced"),
    *("kernel.msg", "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni"),
)
_NETBIOS = re.compile(r'[^\\/:*?"<>|.][^\\/:*?"<>|]{0,14}\Z')
_DNS = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_DOMAIN = re.compile(rf"{_DNS}(?:\.{_DNS})*\Z")
_TYPES = ("Localhost", "RuntimeDefault", "Unconfined")
NO_WINDOWS = "cannot be set for a windows pod"
NO_LINUX = "windows options cannot be set for a linux pod"


def containers(spec: Object, path: str) -> Iterator[tuple[Object, str]]:
    """All of them with their paths, in the order in which the real server visits them."""
    for field in ("initContainers", "containers", "ephemeralContainers"):
        for i, container in enumerate(spec.get(field) or []):
            yield container, f"{path}.{field}[{i}]"


def _id(path: str, value: int | None) -> list[Cause]:
    return [] if value is None else checks.between(path, value, 0, checks.ID_MAX)


def container(context: Object | None, path: str, *, host_users: bool) -> list[Cause]:
    if context is None:
        return []
    out = _id(f"{path}.runAsUser", context.get("runAsUser")) + _id(f"{path}.runAsGroup", context.get("runAsGroup"))
    mount = context.get("procMount")
    if mount is not None:
        out += checks.listed(f"{path}.procMount", mount, ("Default", "Unmasked"))
        if host_users and mount == "Unmasked":
            why = "`hostUsers` must be false to use `Unmasked`"
            out.append(errors.bad_value(f"{path}.procMount", mount, why))
    out += _seccomp(context.get("seccompProfile"), f"{path}.seccompProfile")
    if context.get("allowPrivilegeEscalation") is False:
        head = "cannot set `allowPrivilegeEscalation` to false and "
        if context.get("privileged"):
            out.append(errors.bad_value(path, _internal(context), head + "`privileged` to true"))
        for capability in (context.get("capabilities") or {}).get("add") or []:
            if capability == "CAP_SYS_ADMIN":
                out.append(errors.bad_value(path, _internal(context), head + "`capabilities.Add` CAP_SYS_ADMIN"))
    out += _windows(context.get("windowsOptions"), f"{path}.windowsOptions")
    return out + _app_armor(context.get("appArmorProfile"), f"{path}.appArmorProfile")


_CONTEXT = {
    "capabilities": "Capabilities",
    "privileged": "Privileged",
    "seLinuxOptions": "SELinuxOptions",
    "windowsOptions": "WindowsOptions",
    "runAsUser": "RunAsUser",
    "runAsGroup": "RunAsGroup",
    "runAsNonRoot": "RunAsNonRoot",
    "readOnlyRootFilesystem": "ReadOnlyRootFilesystem",
    "allowPrivilegeEscalation": "AllowPrivilegeEscalation",
    "procMount": "ProcMount",
    "seccompProfile": "SeccompProfile",
    "appArmorProfile": "AppArmorProfile",
}


def _internal(context: Object) -> errors.Shown:
    """A context as messages show it: with the names of the real server's own fields, in their order."""
    shown = {told: context.get(field) for field, told in _CONTEXT.items()}
    if context.get("capabilities") is not None:
        given = context["capabilities"]
        shown["Capabilities"] = {"Add": given.get("add"), "Drop": given.get("drop")}
    return errors.Shown(shown)


def _seccomp(profile: Object | None, path: str) -> list[Cause]:
    if profile is None:
        return []
    kind, local, out = profile.get("type") or "", profile.get("localhostProfile"), []
    if not kind:
        out.append(errors.required(f"{path}.type", "type is required when seccompProfile is set"))
    else:
        out += checks.listed(f"{path}.type", kind, _TYPES)
    at = f"{path}.localhostProfile"
    if kind != "Localhost":
        if local is not None:
            shown = errors.Shown({"Type": kind, "LocalhostProfile": local})
            out.append(errors.bad_value(at, shown, "can only be set when seccomp type is Localhost"))
        return out
    if local is None:
        return [*out, errors.required(at, "must be set when seccomp type is Localhost")]
    return out + checks.relative_path(at, local)


def _app_armor(profile: Object | None, path: str) -> list[Cause]:
    if profile is None:
        return []
    kind, local, at = profile.get("type") or "", profile.get("localhostProfile"), f"{path}.localhostProfile"
    if not kind:
        return [errors.required(f"{path}.type", "type is required when appArmorProfile is set")]
    if kind not in _TYPES:
        return [errors.not_supported(f"{path}.type", kind, _TYPES)]
    if kind != "Localhost":
        why = "can only be set when AppArmor type is Localhost"
        return [] if local is None else [errors.bad_value(at, local, why)]
    why, out = "must be set when AppArmor type is Localhost", []
    if local is None:
        return [errors.required(at, why)]
    if local != local.strip():
        out.append(errors.bad_value(at, local, "must not be padded with whitespace"))
    elif not local:
        out.append(errors.required(at, why))
    if len(local) > PROFILE_BYTES_MAX:
        out.append(checks.too_long(at, PROFILE_BYTES_MAX))
    return out


def _windows(options: Object | None, path: str) -> list[Cause]:
    if options is None:
        return []
    out: list[Cause] = []
    if options.get("gmsaCredentialSpecName") is not None:
        out += checks.text(f"{path}.gmsaCredentialSpecName", options["gmsaCredentialSpecName"], names.dns_subdomain)
    spec = options.get("gmsaCredentialSpec")
    if spec is not None:
        at = f"{path}.gmsaCredentialSpec"
        if not spec:
            out.append(errors.bad_value(at, spec, "gmsaCredentialSpec cannot be an empty string"))
        elif len(spec) > SPEC_BYTES_MAX:
            out.append(errors.bad_value(at, spec, "gmsaCredentialSpec size must be under 64 KiB"))
    if options.get("runAsUserName") is not None:
        name = options["runAsUserName"]
        out += [errors.bad_value(f"{path}.runAsUserName", name, why) for why in _user_name(name)]
    return out


def _user_name(name: str) -> list[str]:
    if not name:
        return ["runAsUserName cannot be an empty string"]
    if re.search(r"[\x00-\x1f\x7f]", name):
        return ["runAsUserName cannot contain control characters"]
    parts = name.split("\\")
    if len(parts) > 2:
        return ["runAsUserName cannot contain more than one backslash"]
    domain, user, out = parts[0] if len(parts) == 2 else "", parts[-1], []
    if len(domain) >= DOMAIN_CHARS_MAX:
        out.append(f"runAsUserName's Domain length must be under {DOMAIN_CHARS_MAX} characters")
    if len(parts) == 2 and not (_NETBIOS.match(domain) or _DOMAIN.match(domain)):
        out.append("runAsUserName's Domain doesn't match the NetBios nor the DNS format")
    if not user:
        out.append("runAsUserName's User cannot be empty")
    elif len(user) > USER_CHARS_MAX:
        out.append(f"runAsUserName's User length must not be longer than {USER_CHARS_MAX} characters")
    if re.fullmatch(r"[. ]+", user):
        out.append("runAsUserName's User cannot contain only periods or spaces")
    if re.search(r'["/\\:;|=,+*?<>@\[\]]', user):
        out.append(r"runAsUserName" + r"'s User cannot contain the following characters: " + r'"/\:;|=,+*?<>@[]')
    return out


def pod(spec: Object, path: str) -> list[Cause]:
    """The pod's own context."""
    context, at = spec.get("securityContext") or {}, f"{path}.securityContext"
    out: list[Cause] = []
    for field in ("fsGroup", "runAsUser", "runAsGroup"):
        out += _id(f"{at}.{field}", context.get(field))
    for i, group in enumerate(context.get("supplementalGroups") or []):
        out += _id(f"{at}.supplementalGroups[{i}]", group)
    if spec.get("shareProcessNamespace") and spec.get("hostPID"):
        why = "ShareProcessNamespace and HostPID cannot both be enabled"
        out.append(errors.bad_value(f"{at}.shareProcessNamespace", True, why))
    out += _sysctls(context.get("sysctls") or [], f"{at}.sysctls", spec)
    if context.get("fsGroupChangePolicy") is not None:
        out += checks.listed(f"{at}.fsGroupChangePolicy", context["fsGroupChangePolicy"], ("Always", "OnRootMismatch"))
    out += _seccomp(context.get("seccompProfile"), f"{at}.seccompProfile")
    out += _windows(context.get("windowsOptions"), f"{at}.windowsOptions")
    out += _app_armor(context.get("appArmorProfile"), f"{at}.appArmorProfile")
    for field, known in (("supplementalGroupsPolicy", ("Merge", "Strict")), ("seLinuxChangePolicy", ("Recursive",))):
        if context.get(field) is not None:
            out += checks.listed(f"{at}.{field}", context[field], known)
    return out


def _sysctls(listed: list[Object], path: str, spec: Object) -> list[Cause]:
    out: list[Cause] = []
    seen: set[str] = set()
    for i, item in enumerate(listed):
        at, name = f"{path}[{i}].name", item.get("name") or ""
        if not name:
            out.append(errors.required(at))
        elif len(name) > SYSCTL_CHARS_MAX or not re.fullmatch(_SYSCTL, name):
            why = f"must have at most {SYSCTL_CHARS_MAX} characters and match regex ^{_SYSCTL}$"
            out.append(errors.bad_value(at, name, why))
        elif name in seen:
            out.append(errors.duplicate(at, name))
        plain = name.replace("/", ".")
        if spec.get("hostNetwork") and plain.startswith("net."):
            out.append(errors.bad_value(at, name, "may not be specified when 'hostNetwork' is true"))
        elif spec.get("hostIPC") and (plain in _IPC_SYSCTLS or plain.startswith("fs.mqueue.")):
            out.append(errors.bad_value(at, name, "may not be specified when 'hostIPC' is true"))
        seen.add(name)
    return out


def host_process(spec: Object, path: str) -> list[Cause]:
    """Windows' HostProcess containers: all or none."""
    whole = _host_process(spec)
    out: list[Cause] = []
    count = chosen = 0
    for one, at in containers(spec, path):
        count += 1
        own = _host_process(one)
        if whole is not None and own is not None and whole != own:
            why = f"pod hostProcess value must be identical if both are specified, was {str(whole).lower()}"
            out.append(errors.bad_value(f"{at}.securityContext.windowsOptions.hostProcess", own, why))
        chosen += bool(own if own is not None else whole)
    if not chosen:
        return out
    if chosen != count:
        why = "If pod contains any hostProcess containers then all containers must be HostProcess containers"
        out.append(errors.bad_value(path, "", why))
    if not spec.get("hostNetwork"):
        why = "hostNetwork must be true if pod contains any hostProcess containers"
        out.append(errors.bad_value(f"{path}.hostNetwork", False, why))
    return out


def _host_process(owner: Object) -> bool | None:
    given: bool | None = ((owner.get("securityContext") or {}).get("windowsOptions") or {}).get("hostProcess")
    return given


def host_users(spec: Object, path: str) -> list[Cause]:
    """What a pod with users of its own may not share with the host."""
    if spec.get("hostUsers") is not False:
        return []
    why = "when `hostUsers` is false"
    told = (("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC"))
    out = [errors.not_permitted(f"{path}.{name}", why) for field, name in told if spec.get(field)]
    for one, at in containers(spec, path):
        if one.get("volumeDevices"):
            out.append(errors.not_permitted(f"{at}.volumeDevices", why))
    return out


_WINDOWS_POD = (
    *("securityContext.appArmorProfile", "securityContext.seLinuxOptions", "hostUsers", "hostPID", "hostIPC"),
    *("securityContext.seccompProfile", "securityContext.fsGroup", "securityContext.fsGroupChangePolicy"),
    *("securityContext.sysctls", "shareProcessNamespace", "securityContext.runAsUser", "securityContext.runAsGroup"),
    *("securityContext.supplementalGroups", "securityContext.supplementalGroupsPolicy"),
    "securityContext.seLinuxChangePolicy",
)
_WINDOWS_CONTAINER = (
    *("appArmorProfile", "seLinuxOptions", "seccompProfile", "capabilities", "readOnlyRootFilesystem", "privileged"),
    *("allowPrivilegeEscalation", "procMount", "runAsUser", "runAsGroup"),
)
_WHEN_TRUE = ("hostPID", "hostIPC")


def system(spec: Object, path: str) -> list[Cause]:
    """The operating system that a pod is for, and what then can't be."""
    if spec.get("os") is None:
        return []
    name = spec["os"].get("name") or ""
    if not name:
        return [errors.required(f"{path}.os.name")]
    if name not in ("linux", "windows"):
        return [errors.not_supported(f"{path}.os", name, ("linux", "windows"))]
    out: list[Cause] = []
    context = spec.get("securityContext") or {}
    if name == "linux":
        if context.get("windowsOptions") is not None:
            out.append(errors.not_permitted(f"{path}.securityContext.windowsOptions", NO_LINUX))
        for one, at in containers(spec, path):
            if (one.get("securityContext") or {}).get("windowsOptions") is not None:
                out.append(errors.not_permitted(f"{at}.securityContext.windowsOptions", NO_LINUX))
        return out
    for field in _WINDOWS_POD:
        owner, _, last = field.rpartition(".")
        value = (context if owner else spec).get(last)
        if value if last in _WHEN_TRUE else value is not None:
            out.append(errors.not_permitted(f"{path}.{field}", NO_WINDOWS))
    for one, at in containers(spec, path):
        own = one.get("securityContext") or {}
        found = [f for f in _WINDOWS_CONTAINER if own.get(f) is not None]
        out += [errors.not_permitted(f"{at}.securityContext.{f}", NO_WINDOWS) for f in found]
    return out
