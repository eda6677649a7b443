"""An API object, read once into a Pod: checked, defaults filled in.

The API has validated most objects, but a node must not fall over the one that it hasn't: anything of the wrong shape raises
InvalidPod with the path of the field, and only that pod is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge.core import quantities
from edge.core.pod_spec import (
    Container,
    ContainerKind,
    Exec,
    Hook,
    HttpGet,
    InvalidPod,
    Known,
    Mount,
    Pod,
    Port,
    Probe,
    ProbeKind,
    Raw,
    Resources,
    Security,
    Sleep,
    TcpSocket,
)

# --- reading, with the path of what is wrong ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _At:
    """One map of the object and where it is."""

    raw: Raw
    path: str

    def _bad(self, key: str, want: str, got: Any) -> InvalidPod:
        return InvalidPod(f"{self.path}.{key}: {want} is needed, got {type(got).__name__} {str(got)[:60]!r}")

    def text(self, key: str, default: str = "") -> str:
        value = self.raw.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self._bad(key, "text", value)
        return value

    def number(self, key: str, default: int, least: int = 0) -> int:
        value = self.optional_number(key, least)
        return default if value is None else value

    def optional_number(self, key: str, least: int = 0) -> int | None:
        value = self.raw.get(key)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 1 << 63:
            raise self._bad(key, f"a whole number from {least}", value)
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        value = self.raw.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self._bad(key, "true or false", value)
        return value

    def map(self, key: str) -> _At:
        value = self.raw.get(key)
        if value is None:
            return _At({}, f"{self.path}.{key}")
        if not isinstance(value, dict):
            raise self._bad(key, "a map", value)
        return _At(value, f"{self.path}.{key}")

    def maps(self, key: str) -> list[_At]:
        return [self._element(key, i, v) for i, v in enumerate(self.list(key))]

    def _element(self, key: str, i: int, value: Any) -> _At:
        if not isinstance(value, dict):
            raise self._bad(f"{key}[{i}]", "a map", value)
        return _At(value, f"{self.path}.{key}[{i}]")

    def list(self, key: str) -> list[Any]:
        value = self.raw.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self._bad(key, "a list", value)
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        values = self.list(key)
        for i, v in enumerate(values):
            if not isinstance(v, str):
                raise self._bad(f"{key}[{i}]", "text", v)
        return tuple(values)

    def text_map(self, key: str) -> dict[str, str]:
        values = self.map(key).raw
        for k, v in values.items():
            if not isinstance(v, str):
                raise self._bad(f"{key}.{k}", "text", v)
        return dict(values)

    def need(self, key: str) -> str:
        value = self.text(key)
        if not value:
            raise InvalidPod(f"{self.path}.{key}: is needed")
        return value

    def quantity(self, key: str, milli: bool) -> int | None:
        if self.raw.get(key) is None:
            return None
        try:
            return quantities.milli(self.raw[key]) if milli else quantities.whole(self.raw[key])
        except ValueError as e:
            raise InvalidPod(f"{self.path}.{key}: {e}") from e


def parse(obj: Raw) -> Pod:
    """A pod from its API object; raises InvalidPod."""
    root = _At(obj, "pod")
    meta, spec = root.map("metadata"), root.map("spec")
    if not spec.list("containers"):
        raise InvalidPod("pod.spec.containers: at least one container is needed")
    pod_security = spec.map("securityContext")
    containers = tuple(
        [_container(c, _init_kind(c), pod_security) for c in spec.maps("initContainers")]
        + [_container(c, "app", pod_security) for c in spec.maps("containers")]
        + [_container(c, "ephemeral", pod_security) for c in spec.maps("ephemeralContainers")]
    )
    names = [c.name for c in containers]
    if len(set(names)) != len(names):
        raise InvalidPod(f"pod.spec.containers: names repeat: {', '.join(names)[:200]}")
    fs_group = pod_security.optional_number("fsGroup")
    groups = [g for g in pod_security.list("supplementalGroups") if isinstance(g, int)]
    return Pod(
        namespace=meta.text("namespace", "default"),
        name=meta.need("name"),
        uid=meta.need("uid"),
        labels=meta.text_map("labels"),
        annotations=meta.text_map("annotations"),
        deleting=meta.raw.get("deletionTimestamp") is not None,
        delete_grace_s=meta.optional_number("deletionGracePeriodSeconds"),
        containers=containers,
        volumes=tuple(v.raw for v in spec.maps("volumes")),
        restart_policy=_choice(spec, "restartPolicy", "Always", ("Always", "OnFailure", "Never")),
        grace_s=spec.number("terminationGracePeriodSeconds", 30),
        deadline_s=spec.optional_number("activeDeadlineSeconds"),
        host_network=spec.flag("hostNetwork"),
        host_pid=spec.flag("hostPID"),
        host_ipc=spec.flag("hostIPC"),
        share_pid=spec.flag("shareProcessNamespace"),
        hostname=spec.text("hostname"),
        subdomain=spec.text("subdomain"),
        dns_policy=spec.text("dnsPolicy", "ClusterFirst"),
        dns_config=spec.map("dnsConfig").raw,
        host_aliases=tuple((a.need("ip"), a.texts("hostnames")) for a in spec.maps("hostAliases")),
        sysctls=tuple((s.need("name"), s.text("value")) for s in pod_security.maps("sysctls")),
        groups=tuple(groups + ([fs_group] if fs_group is not None else [])),
        fs_group=fs_group,
        pull_secrets=tuple(s.text("name") for s in spec.maps("imagePullSecrets") if s.text("name")),
        service_account=spec.text("serviceAccountName"),
        service_links=spec.flag("enableServiceLinks", True),
        qos=_qos(tuple(c for c in containers if c.kind != "ephemeral")),
        known=_known(obj.get("status")),
    )


def _known(status: Any) -> Known:
    """Lenient: a status is only a memory, nothing of it may refuse a pod."""
    if not isinstance(status, dict):
        return Known()
    conditions = []
    for c in status.get("conditions") or []:
        three = (c.get("type"), c.get("status"), c.get("lastTransitionTime")) if isinstance(c, dict) else ()
        if len(three) == 3 and all(isinstance(t, str) for t in three):
            conditions.append((str(three[0]), str(three[1]), str(three[2])))
    phase, start = status.get("phase"), status.get("startTime")
    return Known(phase if isinstance(phase, str) else "", start if isinstance(start, str) else "", tuple(conditions))


def _init_kind(container: _At) -> ContainerKind:
    return "sidecar" if container.text("restartPolicy") == "Always" else "init"


def _choice(at: _At, key: str, default: str, choices: tuple[str, ...]) -> Any:
    value = at.text(key) or default
    if value not in choices:
        raise InvalidPod(f"{at.path}.{key}: one of {', '.join(choices)} is needed, got {value[:60]!r}")
    return value


def _container(at: _At, kind: ContainerKind, pod_security: _At) -> Container:
    name, image = at.need("name"), at.need("image")
    ports = tuple(_port(p) for p in at.maps("ports"))
    named = {p.name: p.container for p in ports if p.name}
    lifecycle = at.map("lifecycle")
    default_pull = "Always" if _latest(image) else "IfNotPresent"
    probes = [
        _probe(at.map(field_name), probe_kind, named)
        for field_name, probe_kind in _PROBE_FIELDS
        if at.raw.get(field_name) is not None and kind in ("app", "sidecar")
    ]
    return Container(
        name=name,
        image=image,
        kind=kind,
        command=at.texts("command"),
        args=at.texts("args"),
        env=tuple(e.raw for e in at.maps("env") if e.need("name")),
        env_from=tuple(e.raw for e in at.maps("envFrom")),
        ports=ports,
        mounts=tuple(_mount(m) for m in at.maps("volumeMounts")),
        resources=_resources(at.map("resources")),
        security=_security(at.map("securityContext"), pod_security),
        probes=tuple(probes),
        post_start=_hook(lifecycle.map("postStart"), named),
        pre_stop=_hook(lifecycle.map("preStop"), named),
        pull_policy=_choice(at, "imagePullPolicy", default_pull, ("Always", "IfNotPresent", "Never")),
        working_dir=at.text("workingDir"),
        tty=at.flag("tty"),
        stdin=at.flag("stdin"),
        target=at.text("targetContainerName"),
    )


_PROBE_FIELDS: tuple[tuple[str, ProbeKind], ...] = (
    ("startupProbe", "startup"),
    ("livenessProbe", "liveness"),
    ("readinessProbe", "readiness"),
)


def _latest(image: str) -> bool:
    """Kubernetes, "Images": no tag or :latest, and no digest, means Always."""
    if "@" in image:
        return False
    _, colon, tag = image.rpartition("/")[2].partition(":")
    return not colon or tag == "latest"


def _port(at: _At) -> Port:
    return Port(
        name=at.text("name"),
        container=at.number("containerPort", 0, 0),
        host=at.number("hostPort", 0, 0),
        host_ip=at.text("hostIP"),
        protocol=at.text("protocol", "TCP").lower(),
    )


def _mount(at: _At) -> Mount:
    return Mount(
        volume=at.need("name"),
        path=at.need("mountPath"),
        read_only=at.flag("readOnly"),
        sub_path=at.text("subPath"),
        sub_path_expr=at.text("subPathExpr"),
        propagation=at.text("mountPropagation", "None"),
    )


def _resources(at: _At) -> Resources:
    limits, requests = at.map("limits"), at.map("requests")
    return Resources(
        cpu_limit_milli=limits.quantity("cpu", True),
        memory_limit=limits.quantity("memory", False),
        cpu_request_milli=requests.quantity("cpu", True),
        memory_request=requests.quantity("memory", False),
    )


def _security(at: _At, pod: _At) -> Security:
    user, group = at.optional_number("runAsUser"), at.optional_number("runAsGroup")
    capabilities = at.map("capabilities")
    seccomp = at.map("seccompProfile").text("type") or pod.map("seccompProfile").text("type")
    return Security(
        privileged=at.flag("privileged"),
        user=pod.optional_number("runAsUser") if user is None else user,
        group=pod.optional_number("runAsGroup") if group is None else group,
        read_only_root=at.flag("readOnlyRootFilesystem"),
        allow_escalation=at.flag("allowPrivilegeEscalation", True),
        add=capabilities.texts("add"),
        drop=capabilities.texts("drop"),
        seccomp_unconfined=seccomp == "Unconfined",
    )


def _probe(at: _At, kind: ProbeKind, named: Mapping[str, int]) -> Probe:
    handler = _hook(at, named)
    if handler is None or isinstance(handler, Sleep):
        raise InvalidPod(f"{at.path}: httpGet, tcpSocket, exec or grpc is needed")
    return Probe(
        kind=kind,
        handler=handler,
        initial_delay_s=at.number("initialDelaySeconds", 0),
        period_s=at.number("periodSeconds", 10) or 10,
        timeout_s=at.number("timeoutSeconds", 1) or 1,
        successes=at.number("successThreshold", 1) or 1,
        failures=at.number("failureThreshold", 3) or 3,
        grace_s=at.optional_number("terminationGracePeriodSeconds"),
    )


def _hook(at: _At, named: Mapping[str, int]) -> Hook | None:
    if at.raw.get("httpGet") is not None:
        http = at.map("httpGet")
        path = http.text("path", "/")
        return HttpGet(
            port=_port_number(http, named),
            path=path if path.startswith("/") else f"/{path}",
            host=http.text("host"),
            scheme=_choice(http, "scheme", "HTTP", ("HTTP", "HTTPS")),
            headers=tuple((h.need("name"), h.text("value")) for h in http.maps("httpHeaders")),
        )
    if at.raw.get("tcpSocket") is not None:
        tcp = at.map("tcpSocket")
        return TcpSocket(_port_number(tcp, named), tcp.text("host"))
    if at.raw.get("exec") is not None:
        return Exec(at.map("exec").texts("command"))
    if at.raw.get("grpc") is not None:  # no gRPC client on a node: an open port is the weaker proof that we can give
        return TcpSocket(_port_number(at.map("grpc"), named))
    if at.raw.get("sleep") is not None:
        return Sleep(at.map("sleep").number("seconds", 0))
    return None


def _port_number(at: _At, named: Mapping[str, int]) -> int:
    port = at.raw.get("port")
    if isinstance(port, str) and port in named:
        return named[port]
    if isinstance(port, str) and port.isdigit():
        port = int(port)
    if not isinstance(port, int) or isinstance(port, bool) or not 0 < port < 65536:
        raise InvalidPod(
            f"{at.path}.port: a port number or the name of a port of the container is needed, got {str(port)[:60]!r}"
        )
    return port


def _qos(containers: tuple[Container, ...]) -> str:
    """Kubernetes, "Pod Quality of Service Classes"."""
    given = [
        (r.cpu_limit_milli, r.memory_limit, r.cpu_request_milli, r.memory_request) for r in (c.resources for c in containers)
    ]
    if all(v is None for four in given for v in four):
        return "BestEffort"
    guaranteed = all(
        cpu is not None and memory is not None and cpu_r in (None, cpu) and memory_r in (None, memory)
        for cpu, memory, cpu_r, memory_r in given
    )
    return "Guaranteed" if guaranteed else "Burstable"
