"""What is invalid in a pod's specification, of pods and of templates (pkg/apis/core/validation)."""

from __future__ import annotations

from bus.kube import errors, names, quantity
from bus.kube.errors import Cause
from bus.kube.storage import Object

PORT_MAX = 65535
RESTART_POLICIES = ("Always", "OnFailure", "Never")
DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
PULL_POLICIES = ("Always", "IfNotPresent", "Never")
HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc", "sleep")
ENV_SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")


def pod_spec(spec: Object, path: str) -> list[Cause]:
    out: list[Cause] = []
    volumes = _volumes(spec.get("volumes") or [], f"{path}.volumes", out)
    containers = spec.get("containers") or []
    if not containers:
        out.append(errors.required(f"{path}.containers"))
    seen: set[str] = set()
    for field, listed in (("containers", containers), ("initContainers", spec.get("initContainers") or [])):
        for i, container in enumerate(listed):
            _container(container, f"{path}.{field}[{i}]", volumes, seen, out, init=field == "initContainers")
    if spec["restartPolicy"] not in RESTART_POLICIES:
        out.append(errors.not_supported(f"{path}.restartPolicy", spec["restartPolicy"], RESTART_POLICIES))
    if spec["dnsPolicy"] not in DNS_POLICIES:
        out.append(errors.not_supported(f"{path}.dnsPolicy", spec["dnsPolicy"], DNS_POLICIES))
    if spec["terminationGracePeriodSeconds"] < 0:
        value = spec["terminationGracePeriodSeconds"]
        out.append(errors.bad_value(f"{path}.terminationGracePeriodSeconds", value, "must be greater than or equal to 0"))
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and deadline < 1:
        out.append(
            errors.bad_value(f"{path}.activeDeadlineSeconds", deadline, "must be between 1 and 2147483647, inclusive")
        )
    if spec.get("nodeName") and (problem := names.dns_subdomain(spec["nodeName"])):
        out.append(errors.bad_value(f"{path}.nodeName", spec["nodeName"], problem))
    for field, rule in (("hostname", names.dns_label), ("subdomain", names.dns_label)):
        if spec.get(field) and (problem := rule(spec[field])):
            out.append(errors.bad_value(f"{path}.{field}", spec[field], problem))
    for key, value in (spec.get("nodeSelector") or {}).items():
        if problem := names.label_key(key) or names.label_value(value):
            out.append(errors.bad_value(f"{path}.nodeSelector", key, problem))
    _tolerations(spec.get("tolerations") or [], f"{path}.tolerations", out)
    return out


# What makes no sense for a container that may end at any time (pkg/apis/core/validation, allowedEphemeralContainerFields)
EPHEMERAL_FORBIDDEN = (
    "lifecycle",
    "livenessProbe",
    "ports",
    "readinessProbe",
    "resizePolicy",
    "restartPolicy",
    "startupProbe",
)


def ephemeral_containers(spec: Object, path: str) -> list[Cause]:
    """The ephemeral containers of a pod that runs; the rest of the specification is taken as it is."""
    out: list[Cause] = []
    volumes = {v["name"] for v in spec.get("volumes") or []}
    others = [c["name"] for field in ("containers", "initContainers") for c in spec.get(field) or []]
    seen = set(others)
    for i, container in enumerate(spec.get("ephemeralContainers") or []):
        at = f"{path}[{i}]"
        _container(container, at, volumes, seen, out, init=False)
        out += [
            errors.not_permitted(f"{at}.{field}", "cannot be set for an Ephemeral Container")
            for field in EPHEMERAL_FORBIDDEN
            if container.get(field)
        ]
        if container.get("resources"):
            out.append(errors.not_permitted(f"{at}.resources", "cannot be set for an Ephemeral Container"))
        if any(m.get("subPath") or m.get("subPathExpr") for m in container.get("volumeMounts") or []):
            out.append(errors.not_permitted(f"{at}.volumeMounts", "cannot be set for an Ephemeral Container"))
        target = container.get("targetContainerName")
        if target and target not in others:
            out.append(errors.Cause(f"{at}.targetContainerName", "FieldValueNotFound", f'Not found: "{target}"'))
    return out


def _tolerations(tolerations: list[Object], path: str, out: list[Cause]) -> None:
    operators = ("Equal", "Exists", "Gt", "Lt")
    for i, t in enumerate(tolerations):
        operator = t.get("operator") or "Equal"
        if operator not in operators:
            out.append(errors.not_supported(f"{path}[{i}].operator", operator, operators))
        if not t.get("key") and operator != "Exists":
            out.append(errors.bad_value(f"{path}[{i}].operator", operator, "operator must be Exists when `key` is empty"))
        if operator == "Exists" and t.get("value"):
            out.append(
                errors.bad_value(f"{path}[{i}].operator", t["value"], "value must be empty when `operator` is 'Exists'")
            )


def _volumes(volumes: list[Object], path: str, out: list[Cause]) -> set[str]:
    known: set[str] = set()
    for i, volume in enumerate(volumes):
        name = volume.get("name", "")
        if not name:
            out.append(errors.required(f"{path}[{i}].name"))
        elif problem := names.dns_label(name):
            out.append(errors.bad_value(f"{path}[{i}].name", name, problem))
        elif name in known:
            out.append(errors.duplicate(f"{path}[{i}].name", name))
        known.add(name)
        if len(volume) > 2:
            out.append(errors.not_permitted(f"{path}[{i}]", "may not specify more than 1 volume type"))
        if "hostPath" in volume and not volume["hostPath"].get("path"):
            out.append(errors.required(f"{path}[{i}].hostPath.path"))
        if "secret" in volume and not volume["secret"].get("secretName"):
            out.append(errors.required(f"{path}[{i}].secret.secretName"))
        if "configMap" in volume and not volume["configMap"].get("name"):
            out.append(errors.required(f"{path}[{i}].configMap.name"))
    return known


def _container(container: Object, path: str, volumes: set[str], seen: set[str], out: list[Cause], *, init: bool) -> None:
    name = container.get("name", "")
    if not name:
        out.append(errors.required(f"{path}.name"))
    elif problem := names.dns_label(name):
        out.append(errors.bad_value(f"{path}.name", name, problem))
    elif name in seen:
        out.append(errors.duplicate(f"{path}.name", name))
    seen.add(name)
    image = container.get("image", "")
    if not image:
        out.append(errors.required(f"{path}.image"))
    elif image != image.strip():
        out.append(errors.bad_value(f"{path}.image", image, "must not have leading or trailing whitespace"))
    if container["imagePullPolicy"] not in PULL_POLICIES:
        out.append(errors.not_supported(f"{path}.imagePullPolicy", container["imagePullPolicy"], PULL_POLICIES))
    _ports(container.get("ports") or [], f"{path}.ports", out)
    for i, env in enumerate(container.get("env") or []):
        _env(env, f"{path}.env[{i}]", out)
    mounts: set[str] = set()
    for i, mount in enumerate(container.get("volumeMounts") or []):
        _mount(mount, f"{path}.volumeMounts[{i}]", volumes, mounts, out)
    _resources(container.get("resources") or {}, f"{path}.resources", out)
    for field in ("livenessProbe", "readinessProbe", "startupProbe"):
        if container.get(field) is not None:
            if init and container.get("restartPolicy") != "Always":
                out.append(
                    errors.not_permitted(
                        f"{path}.{field}", "may not be set for init containers without restartPolicy=Always"
                    )
                )
            _probe(container[field], f"{path}.{field}", field, out)
    for field, handler in (container.get("lifecycle") or {}).items():
        if isinstance(handler, dict):
            _handler(handler, f"{path}.lifecycle.{field}", out)


def _ports(ports: list[Object], path: str, out: list[Cause]) -> None:
    named: set[str] = set()
    for i, port in enumerate(ports):
        at = f"{path}[{i}]"
        if not port.get("containerPort"):
            out.append(errors.required(f"{at}.containerPort"))
        elif not 1 <= port["containerPort"] <= PORT_MAX:
            out.append(
                errors.bad_value(f"{at}.containerPort", port["containerPort"], "must be between 1 and 65535, inclusive")
            )
        if not 0 <= port.get("hostPort", 0) <= PORT_MAX:
            out.append(errors.bad_value(f"{at}.hostPort", port["hostPort"], "must be between 1 and 65535, inclusive"))
        if port.get("protocol") not in ("SCTP", "TCP", "UDP"):
            out.append(errors.not_supported(f"{at}.protocol", port.get("protocol"), ("SCTP", "TCP", "UDP")))
        if port.get("name"):
            if port["name"] in named:
                out.append(errors.duplicate(f"{at}.name", port["name"]))
            named.add(port["name"])


def _env(env: Object, path: str, out: list[Cause]) -> None:
    name = env.get("name", "")
    if not name:
        out.append(errors.required(f"{path}.name"))
    elif problem := names.env_name(name):
        out.append(errors.bad_value(f"{path}.name", name, problem))
    source = env.get("valueFrom")
    if source is not None:
        found = [s for s in ENV_SOURCES if s in source]
        if env.get("value"):
            out.append(errors.bad_value(f"{path}.valueFrom", "", "may not be specified when `value` is not empty"))
        if len(found) != 1:
            why = "must specify one of: " if not found else "may not have more than one field specified at a time: "
            out.append(errors.bad_value(f"{path}.valueFrom", "", why + ", ".join(ENV_SOURCES)))
        for ref in ("configMapKeyRef", "secretKeyRef"):
            if ref in source and not source[ref].get("key"):
                out.append(errors.required(f"{path}.valueFrom.{ref}.key"))


def _mount(mount: Object, path: str, volumes: set[str], seen: set[str], out: list[Cause]) -> None:
    if not mount.get("name"):
        out.append(errors.required(f"{path}.name"))
    elif mount["name"] not in volumes:
        out.append(Cause(f"{path}.name", "FieldValueNotFound", f'Not found: "{mount["name"]}"'))
    where = mount.get("mountPath", "")
    if not where:
        out.append(errors.required(f"{path}.mountPath"))
    elif where in seen:
        out.append(errors.bad_value(f"{path}.mountPath", where, "must be unique"))
    seen.add(where)
    sub = mount.get("subPath", "")
    if sub.startswith("/"):
        out.append(errors.bad_value(f"{path}.subPath", sub, "must be a relative path"))
    if ".." in sub.split("/"):
        out.append(errors.bad_value(f"{path}.subPath", sub, "must not contain '..'"))


def _resources(resources: Object, path: str, out: list[Cause]) -> None:
    limits = resources.get("limits") or {}
    for field in ("limits", "requests"):
        for name, amount in (resources.get(field) or {}).items():
            if quantity.parse(amount) < 0:
                out.append(errors.bad_value(f"{path}.{field}[{name}]", amount, "must be greater than or equal to 0"))
    for name, amount in (resources.get("requests") or {}).items():
        if name in limits and quantity.parse(amount) > quantity.parse(limits[name]):
            out.append(
                errors.bad_value(f"{path}.requests", amount, f"must be less than or equal to {name} limit of {limits[name]}")
            )


def _probe(probe: Object, path: str, field: str, out: list[Cause]) -> None:
    _handler(probe, path, out)
    for name in ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        if probe.get(name, 0) < 0:
            out.append(errors.bad_value(f"{path}.{name}", probe[name], "must be greater than or equal to 0"))
    if field != "readinessProbe" and probe.get("successThreshold", 1) != 1:
        out.append(errors.bad_value(f"{path}.successThreshold", probe["successThreshold"], "must be 1"))


def _handler(handler: Object, path: str, out: list[Cause]) -> None:
    found = [h for h in HANDLERS if h in handler]
    if not found:
        out.append(errors.required(path, "must specify a handler type"))
    for extra in found[1:]:
        out.append(errors.not_permitted(f"{path}.{extra}", "may not specify more than 1 handler type"))
    if "exec" in handler and not handler["exec"].get("command"):
        out.append(errors.required(f"{path}.exec.command"))
    for name in ("httpGet", "tcpSocket"):
        port = (handler.get(name) or {}).get("port")
        if name in handler and (port is None or (isinstance(port, int) and not 1 <= port <= PORT_MAX)):
            out.append(errors.bad_value(f"{path}.{name}.port", port, "must be between 1 and 65535, inclusive"))
