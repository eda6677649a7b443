"""What is invalid in a pod's containers: regular, init, sidecar, ephemeral (pkg/apis/core/validation)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bus.kube import errors, names
from bus.kube.errors import Cause
from bus.kube.kinds import checks, pod_fields, pod_probes, pod_resources, pod_security
from bus.kube.storage import Object

PULL_POLICIES = ("Always", "IfNotPresent", "Never")
PROTOCOLS = ("SCTP", "TCP", "UDP")
RULES_MAX, EXIT_CODES_MAX = 20, 255
NO_RESTART = "may not be set for init containers without restartPolicy=Always"
PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
# What makes no sense for a container that may end at any time, in the order of the real server's struct.
EPHEMERAL_FORBIDDEN = (
    *("ports", "resources", "resizePolicy", "restartPolicy", "restartPolicyRules"),
    *("livenessProbe", "readinessProbe", "startupProbe", "lifecycle"),
)
EPHEMERAL_SAYS = "cannot be set for an Ephemeral Container"


@dataclass(frozen=True, slots=True)
class Around:
    """What a container is checked against."""

    volumes: Mapping[str, Object]
    claims: set[str]  # names of resource claims
    grace_s: int
    restart_policy: str
    host_users: bool
    system: str | None  # the pod's operating system


def regular(listed: list[Object], path: str, around: Around) -> list[Cause]:
    if not listed:
        return [errors.required(path)]
    out: list[Cause] = []
    seen: set[str] = set()
    for i, container in enumerate(listed):
        at, name = f"{path}[{i}]", container.get("name") or ""
        out += _common(container, at, around)
        if name in seen:
            out.append(errors.duplicate(f"{at}.name", name))
        seen.add(name)
        out += _life(container, at, around) + _restarts(container, at)
    return out + _host_ports(listed, path)


def init(listed: list[Object], path: str, around: Around, regular_names: set[str]) -> list[Cause]:
    out: list[Cause] = []
    seen = set(regular_names)
    for i, container in enumerate(listed):
        at, name = f"{path}[{i}]", container.get("name") or ""
        out += _common(container, at, around)
        sidecar = container.get("restartPolicy") == "Always"
        out += _restarts(container, at)
        if name in seen:
            out.append(errors.duplicate(f"{at}.name", name))
        if name:
            seen.add(name)
        out += _host_ports([container], path)
        if sidecar:
            out += _life(container, at, around)
        else:
            forbidden = [f for f in ("lifecycle", *PROBES) if container.get(f) is not None]
            out += [errors.not_permitted(f"{at}.{f}", NO_RESTART) for f in forbidden]
            for j, policy in enumerate(container.get("resizePolicy") or []):
                if policy.get("restartPolicy") == "RestartContainer":
                    why = "must not be set to 'RestartContainer' for non-sidecar initContainers"
                    where = f"{at}.resizePolicy[{j}].restartPolicy"
                    out.append(errors.bad_value(where, policy["restartPolicy"], why))
    return out


def ephemeral(spec: Object, path: str, around: Around) -> list[Cause]:
    others = [c.get("name") or "" for f in ("containers", "initContainers") for c in spec.get(f) or []]
    seen, out = set(others), []
    for i, container in enumerate(spec.get("ephemeralContainers") or []):
        at, name = f"{path}[{i}]", container.get("name") or ""
        out += _common(container, at, around) + untrimmed(container, at)
        if name in seen:
            out.append(errors.duplicate(f"{at}.name", name))
        seen.add(name)
        target = container.get("targetContainerName")
        if target and target not in others:
            out.append(checks.not_found(f"{at}.targetContainerName", target))
        out += [errors.not_permitted(f"{at}.{f}", EPHEMERAL_SAYS) for f in EPHEMERAL_FORBIDDEN if container.get(f)]
        for j, mount in enumerate(container.get("volumeMounts") or []):
            fields = [f for f in ("subPath", "subPathExpr") if mount.get(f)]
            out += [errors.not_permitted(f"{at}.volumeMounts[{j}].{f}", EPHEMERAL_SAYS) for f in fields]
    return out


def untrimmed(container: Object, path: str) -> list[Cause]:
    """Of a pod, not of a template."""
    image = container.get("image") or ""
    if image == image.strip():
        return []
    return [errors.bad_value(f"{path}.image", image, "must not have leading or trailing whitespace")]


def _common(container: Object, path: str, around: Around) -> list[Cause]:
    name = container.get("name") or ""
    out = checks.text(f"{path}.name", name, names.dns_label) if name else [errors.required(f"{path}.name")]
    if not container.get("image"):
        out.append(errors.required(f"{path}.image"))
    policies = ("File", "FallbackToLogsOnError")
    out += checks.one_of(f"{path}.terminationMessagePolicy", container.get("terminationMessagePolicy"), policies)
    out += _ports(container.get("ports") or [], f"{path}.ports")
    out += pod_fields.env(container.get("env") or [], f"{path}.env")
    out += pod_fields.env_from(container.get("envFrom") or [], f"{path}.envFrom")
    out += _mounts(container, f"{path}.volumeMounts", around.volumes)
    out += _devices(container, f"{path}.volumeDevices", around.volumes)
    out += checks.one_of(f"{path}.imagePullPolicy", container.get("imagePullPolicy"), PULL_POLICIES)
    out += pod_resources.requirements(container.get("resources") or {}, f"{path}.resources", around.claims)
    out += _resizing(container.get("resizePolicy") or [], f"{path}.resizePolicy", around.restart_policy)
    context = container.get("securityContext")
    return out + pod_security.container(context, f"{path}.securityContext", host_users=around.host_users)


def _life(container: Object, path: str, around: Around) -> list[Cause]:
    out: list[Cause] = []
    if container.get("lifecycle") is not None:
        out += pod_probes.lifecycle(container["lifecycle"], f"{path}.lifecycle", around.grace_s, around.system)
    for field in PROBES:
        if container.get(field) is not None:
            out += pod_probes.probe(container[field], f"{path}.{field}", field)
    return out


def _restarts(container: Object, path: str) -> list[Cause]:
    policy, rules = container.get("restartPolicy"), container.get("restartPolicyRules") or []
    out: list[Cause] = []
    if policy is None and rules:
        why = "must specify restartPolicy when restart rules are used"
        out.append(errors.required(f"{path}.restartPolicy", why))
    elif policy is not None:
        out += checks.listed(f"{path}.restartPolicy", policy, ("Always", "Never", "OnFailure"))
    if len(rules) > RULES_MAX:
        out.append(checks.too_many(f"{path}.restartPolicyRules", len(rules), RULES_MAX))
    for i, rule in enumerate(rules):
        at, codes = f"{path}.restartPolicyRules[{i}]", rule.get("exitCodes")
        out += checks.listed(f"{at}.action", rule.get("action") or "", ("Restart", "RestartAllContainers"))
        if codes is None:
            out.append(errors.required(f"{at}.exitCodes", "must be specified"))
            continue
        out += checks.listed(f"{at}.exitCodes.operator", codes.get("operator") or "", ("In", "NotIn"))
        if len(codes.get("values") or []) > EXIT_CODES_MAX:
            out.append(checks.too_many(f"{at}.exitCodes.values", len(codes["values"]), EXIT_CODES_MAX))
    return out


def _ports(ports: list[Object], path: str) -> list[Cause]:
    out: list[Cause] = []
    named: set[str] = set()
    for i, port in enumerate(ports):
        at, name = f"{path}[{i}]", port.get("name") or ""
        if name:
            bad = checks.port_name(f"{at}.name", name)
            out += bad
            if not bad and name in named:
                out.append(errors.duplicate(f"{at}.name", name))
            elif not bad:
                named.add(name)
        number = port.get("containerPort") or 0
        out += checks.port_number(f"{at}.containerPort", number) if number else [errors.required(f"{at}.containerPort")]
        if port.get("hostPort"):
            out += checks.port_number(f"{at}.hostPort", port["hostPort"])
        out += checks.one_of(f"{at}.protocol", port.get("protocol"), PROTOCOLS)
    return out


def _host_ports(listed: list[Object], path: str) -> list[Cause]:
    out: list[Cause] = []
    seen: set[str] = set()
    for i, container in enumerate(listed):
        for j, port in enumerate(container.get("ports") or []):
            if not port.get("hostPort"):
                continue
            told = f"{port.get('protocol') or ''}/{port.get('hostIP') or ''}/{port['hostPort']}"
            if told in seen:
                out.append(errors.duplicate(f"{path}[{i}].ports[{j}].hostPort", told))
            seen.add(told)
    return out


def _mounts(container: Object, path: str, volumes: Mapping[str, Object]) -> list[Cause]:
    out: list[Cause] = []
    devices = {d.get("name") or "": d.get("devicePath") or "" for d in container.get("volumeDevices") or []}
    seen: set[str] = set()
    for i, mount in enumerate(container.get("volumeMounts") or []):
        at, name, where = f"{path}[{i}]", mount.get("name") or "", mount.get("mountPath") or ""
        if not name:
            out.append(errors.required(f"{at}.name"))
        if name not in volumes:
            out.append(checks.not_found(f"{at}.name", name))
        if not where:
            out.append(errors.required(f"{at}.mountPath"))
        if where in seen:
            out.append(errors.bad_value(f"{at}.mountPath", where, "must be unique"))
        seen.add(where)
        if name in devices:
            out.append(errors.bad_value(f"{at}.name", name, "must not already exist in volumeDevices"))
        if where in devices.values():
            why = "must not already exist as a path in volumeDevices"
            out.append(errors.bad_value(f"{at}.mountPath", where, why))
        sub, expression = mount.get("subPath") or "", mount.get("subPathExpr") or ""
        if sub:
            out += checks.relative_path(f"{path}.subPath", sub)
        if expression:
            if sub:
                why = "subPathExpr and subPath are mutually exclusive"
                out.append(errors.bad_value(f"{at}.subPathExpr", expression, why))
            out += checks.relative_path(f"{path}.subPathExpr", expression)
        out += _propagation(mount, container, path)
    return out


def _propagation(mount: Object, container: Object, path: str) -> list[Cause]:
    way, recursive, out = mount.get("mountPropagation"), mount.get("recursiveReadOnly"), []
    if way is not None:
        at = f"{path}.mountPropagation"
        out += checks.listed(at, way, ("Bidirectional", "HostToContainer", "None"))
        if way == "Bidirectional" and not (container.get("securityContext") or {}).get("privileged"):
            why = "Bidirectional mount propagation is available only to privileged containers"
            out.append(errors.not_permitted(at, why))
    at = f"{path}.recursiveReadOnly"
    if recursive in ("Enabled", "IfPossible"):
        if not mount.get("readOnly"):
            out.append(errors.not_permitted(at, "may only be specified when readOnly is true"))
        if way not in (None, "None"):
            why = "may only be specified when mountPropagation is None or not specified"
            out.append(errors.not_permitted(at, why))
    elif recursive not in (None, "Disabled"):
        out.append(errors.not_supported(at, recursive, ("Disabled", "Enabled", "IfPossible")))
    return out


def _devices(container: Object, path: str, volumes: Mapping[str, Object]) -> list[Cause]:
    out: list[Cause] = []
    mounts = {m.get("name") or "": m.get("mountPath") or "" for m in container.get("volumeMounts") or []}
    seen_names: set[str] = set()
    seen_paths: set[str] = set()
    for i, device in enumerate(container.get("volumeDevices") or []):
        at, name, where = f"{path}[{i}]", device.get("name") or "", device.get("devicePath") or ""
        if not name:
            out.append(errors.required(f"{at}.name"))
        if name in seen_names:
            out.append(errors.bad_value(f"{at}.name", name, "must be unique"))
        volume = volumes.get(name)
        if volume is None:
            out.append(checks.not_found(f"{at}.name", name))
        elif volume.get("persistentVolumeClaim") is None and volume.get("ephemeral") is None:
            why = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"
            out.append(errors.bad_value(f"{at}.name", name, why))
        if not where:
            out.append(errors.required(f"{at}.devicePath"))
        if where in seen_paths:
            out.append(errors.bad_value(f"{at}.devicePath", where, "must be unique"))
        if ".." in where.split("/"):
            out.append(errors.bad_value(f"{at}.devicePath", where, "can not contain backsteps ('..')"))
        else:
            seen_paths.add(where)
        if name in mounts:
            out.append(errors.bad_value(f"{at}.name", name, "must not already exist in volumeMounts"))
        if where in mounts.values():
            why = "must not already exist as a path in volumeMounts"
            out.append(errors.bad_value(f"{at}.devicePath", where, why))
        if name:
            seen_names.add(name)
    return out


def _resizing(policies: list[Object], path: str, restart_policy: str) -> list[Cause]:
    out: list[Cause] = []
    seen: set[str] = set()
    for i, policy in enumerate(policies):
        name, restart = policy.get("resourceName") or "", policy.get("restartPolicy") or ""
        if name in seen:
            out.append(errors.duplicate(f"{path}[{i}]", name))
        seen.add(name)
        out += checks.one_of(path, name, ("cpu", "memory"))
        out += checks.one_of(path, restart, ("NotRequired", "RestartContainer"))
        if restart_policy == "Never" and restart != "NotRequired":
            why = "must be 'NotRequired' when pod `restartPolicy` is 'Never'"
            out.append(errors.bad_value(path, restart, why))
    return out
