"""What is invalid in a pod's specification, of pods and of templates (pkg/apis/core/validation, ValidatePodSpec).

pod_volumes.py     volumes of every source
pod_containers.py  containers of every kind; pod_probes.py, pod_fields.py (environment), pod_resources.py
pod_security.py    security contexts, Windows
pod_placing.py     affinities, tolerations, spread
"""

from __future__ import annotations

import re

from bus.kube import errors, names, pod_references
from bus.kube.errors import Cause
from bus.kube.kinds import checks, pod_containers, pod_placing, pod_resources, pod_security, pod_volumes
from bus.kube.storage import Object

RESTART_POLICIES = ("Always", "OnFailure", "Never")
DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
NAMESERVERS_MAX, SEARCHES_MAX, SEARCH_CHARS_MAX = 3, 32, 2048
HOSTNAME_CHARS_MAX = 64
SECONDS_MAX = (1 << 31) - 1
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_APP_ARMOR = "container.apparmor.security.beta.kubernetes.io/"
_SECCOMP_POD, _SECCOMP_CONTAINER = (
    "seccomp.security.alpha.kubernetes.io/pod",
    "container.seccomp.security.alpha.kubernetes.io/",
)


def pod(obj: Object, *, created: bool) -> list[Cause]:
    """A pod, without its metadata; ``created`` just now."""
    meta, spec = obj["metadata"], obj["spec"]
    out = pod_annotations(meta.get("annotations") or {}, spec, "metadata.annotations")
    out += pod_spec(spec, "spec", pod=obj)
    if not spec.get("serviceAccountName"):
        for i, volume in enumerate(spec.get("volumes") or []):
            for j, source in enumerate((volume.get("projected") or {}).get("sources") or []):
                if source.get("serviceAccountToken") is not None:
                    at = f"spec.volumes[{i}].projected.sources[{j}].serviceAccountToken"
                    out.append(errors.not_permitted(at, "must not be specified when serviceAccountName is not set"))
    for field in ("containers", "initContainers"):
        for i, container in enumerate(spec.get(field) or []):
            out += pod_containers.untrimmed(container, f"spec.{field}[{i}]")
    if not created:
        return out
    if spec.get("ephemeralContainers"):
        out.append(errors.not_permitted("spec.ephemeralContainers", "cannot be set on create"))
    if spec.get("nodeName") and spec.get("schedulingGates"):
        why = "cannot be set until all schedulingGates have been cleared"
        out.append(errors.not_permitted("spec.nodeName", why))
    return out + _profiles(meta, spec, "spec")


def template(given: Object, path: str) -> list[Cause]:
    """A pod template: its metadata and its specification."""
    meta, spec = given.get("metadata") or {}, given["spec"]
    out = checks.labels(f"{path}.labels", meta.get("labels"))
    out += checks.annotation_keys(f"{path}.annotations", meta.get("annotations"))
    out += pod_annotations(meta.get("annotations") or {}, spec, f"{path}.annotations")
    out += pod_spec(spec, f"{path}.spec") + _profiles(meta, spec, f"{path}.spec")
    if spec.get("ephemeralContainers"):
        why = "ephemeral containers not allowed in pod template"
        out.append(errors.not_permitted(f"{path}.spec.ephemeralContainers", why))
    return out


def pod_spec(spec: Object, path: str, pod: Object | None = None) -> list[Cause]:
    """``pod`` is whose specification it is; without it, a template's."""
    name = (pod["metadata"].get("name") or "") if pod is not None else ""
    owner = pod_volumes.Owner(name, pod is not None)
    volumes, out = pod_volumes.volumes(spec.get("volumes") or [], f"{path}.volumes", owner)
    mirrored = pod is not None and pod_references.mirrors(pod)
    out += _claims(spec.get("resourceClaims") or [], f"{path}.resourceClaims", mirrored)
    around = _around(spec, volumes)
    out += pod_containers.regular(spec.get("containers") or [], f"{path}.containers", around)
    regular = {c.get("name") or "" for c in spec.get("containers") or []}
    out += pod_containers.init(spec.get("initContainers") or [], f"{path}.initContainers", around, regular)
    out += pod_containers.ephemeral(spec, f"{path}.ephemeralContainers", around)
    out += pod_resources.pod_level(spec, f"{path}.resources", around.claims)
    out += _host_network(spec, path, pod is not None)
    out += checks.one_of(f"{path}.restartPolicy", spec.get("restartPolicy"), RESTART_POLICIES)
    out += checks.one_of(f"{path}.dnsPolicy", spec.get("dnsPolicy"), DNS_POLICIES)
    out += checks.labels(f"{path}.nodeSelector", spec.get("nodeSelector"))
    out += pod_security.pod(spec, path)
    out += pod_placing.affinity(spec.get("affinity"), f"{path}.affinity")
    out += _dns(spec, f"{path}.dnsConfig")
    for i, gate in enumerate(spec.get("readinessGates") or []):
        at = f"{path}.readinessGates[{i}].conditionType"
        out += checks.text(at, gate.get("conditionType") or "", names.label_key)
    out += _gates(spec.get("schedulingGates") or [], f"{path}.schedulingGates")
    out += pod_placing.spread(spec.get("topologySpreadConstraints") or [], f"{path}.topologySpreadConstraints")
    out += pod_security.host_process(spec, path) + pod_security.host_users(spec, path)
    out += _host_name(spec, f"{path}.hostnameOverride")
    out += _names(spec, path)
    out += pod_placing.tolerations(spec.get("tolerations") or [], f"{path}.tolerations")
    for i, alias in enumerate(spec.get("hostAliases") or []):
        at = f"{path}.hostAliases[{i}]"
        out += checks.address(f"{at}.ip", alias.get("ip") or "")
        for j, name in enumerate(alias.get("hostnames") or []):
            out += checks.text(f"{at}.hostnames[{j}]", name, names.dns_subdomain)
    for field in ("priorityClassName", "runtimeClassName"):
        if spec.get(field) or (field == "runtimeClassName" and spec.get(field) is not None):
            out += checks.text(f"{path}.{field}", spec[field], names.dns_subdomain)
    if spec.get("preemptionPolicy") is not None:
        policies = ("PreemptLowerPriority", "Never")
        out += checks.one_of(f"{path}.preemptionPolicy", spec["preemptionPolicy"], policies)
    if spec.get("overhead"):
        out += pod_resources.requirements({"limits": spec["overhead"]}, f"{path}.overhead", set())
    return out + pod_security.system(spec, path) + _file_keys(spec, path)


def ephemeral_containers(spec: Object, path: str) -> list[Cause]:
    """The ephemeral containers of a pod that runs; the rest of the specification is taken as it is."""
    volumes, _ = pod_volumes.volumes(spec.get("volumes") or [], "", pod_volumes.Owner())
    return pod_containers.ephemeral(spec, path, _around(spec, volumes))


def _around(spec: Object, volumes: dict[str, Object]) -> pod_containers.Around:
    return pod_containers.Around(
        volumes=volumes,
        claims={c["name"] for c in spec.get("resourceClaims") or [] if c.get("name")},
        grace_s=spec.get("terminationGracePeriodSeconds", 0),
        restart_policy=spec.get("restartPolicy") or "",
        host_users=spec.get("hostUsers") is not False,
        system=(spec["os"].get("name") or "") if spec.get("os") is not None else None,
    )


def _claims(listed: list[Object], path: str, mirrored: bool) -> list[Cause]:
    out: list[Cause] = []
    seen: set[str] = set()
    for i, claim in enumerate(listed):
        if mirrored:
            out.append(errors.not_permitted("", "static pods do not support resource claims"))
            continue
        at, name = f"{path}[{i}]", claim.get("name") or ""
        if not name:
            out.append(errors.required(f"{at}.name"))
        elif name in seen:
            out.append(errors.duplicate(f"{at}.name", name))
        else:
            out += checks.text(f"{at}.name", name, names.dns_label)
            seen.add(name)
        own, made = claim.get("resourceClaimName"), claim.get("resourceClaimTemplateName")
        shown = errors.Shown({"Name": name, "ResourceClaimName": own, "ResourceClaimTemplateName": made})
        if own is not None and made is not None:
            why = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
            out.append(errors.bad_value(at, shown, why))
        if own is None and made is None:
            why = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"
            out.append(errors.bad_value(at, shown, why))
        for field, value in (("resourceClaimName", own), ("resourceClaimTemplateName", made)):
            if value is not None:
                out += checks.text(f"{at}.{field}", value, names.dns_subdomain)
    return out


def _host_network(spec: Object, path: str, pod: bool) -> list[Cause]:
    if not spec.get("hostNetwork"):
        return []
    out: list[Cause] = []
    for i, container in enumerate(spec.get("containers") or []):
        for j, port in enumerate(container.get("ports") or []):
            host, own = port.get("hostPort") or 0, port.get("containerPort") or 0
            if (pod or host) and host != own:
                why = "must match `containerPort` when `hostNetwork` is true"
                out.append(errors.bad_value(f"{path}.containers[{i}].ports[{j}].hostPort", host, why))
    return out


def _dns(spec: Object, path: str) -> list[Cause]:
    config = spec.get("dnsConfig")
    if spec.get("dnsPolicy") == "None":
        if config is None:
            return [errors.required(path, "must provide `dnsConfig` when `dnsPolicy` is None")]
        if not config.get("nameservers"):
            why = "must provide at least one DNS nameserver when `dnsPolicy` is None"
            return [errors.required(f"{path}.nameservers", why)]
    if config is None:
        return []
    servers, searches = config.get("nameservers") or [], config.get("searches") or []
    out: list[Cause] = []
    if len(servers) > NAMESERVERS_MAX:
        why = f"must not have more than {NAMESERVERS_MAX} nameservers"
        out.append(errors.bad_value(f"{path}.nameservers", servers, why))
    for i, server in enumerate(servers):
        out += checks.address(f"{path}.nameservers[{i}]", server)
    if len(searches) > SEARCHES_MAX:
        why = f"must not have more than {SEARCHES_MAX} search paths"
        out.append(errors.bad_value(f"{path}.searches", searches, why))
    if len(" ".join(searches)) > SEARCH_CHARS_MAX:
        why = f"must not have more than {SEARCH_CHARS_MAX} characters (including spaces) in the search list"
        out.append(errors.bad_value(f"{path}.searches", searches, why))
    for i, search in enumerate(searches):
        if search != ".":
            out += checks.text(f"{path}.searches[{i}]", search.removesuffix("."), names.dns_subdomain_underscore)
    for i, option in enumerate(config.get("options") or []):
        if not option.get("name"):
            out.append(errors.required(f"{path}.options[{i}]", "must not be empty"))
    return out


def _gates(listed: list[Object], path: str) -> list[Cause]:
    out: list[Cause] = []
    seen: set[str] = set()
    for i, gate in enumerate(listed):
        name = gate.get("name") or ""
        out += checks.text(f"{path}[{i}]", name, names.label_key)
        if name in seen:
            out.append(errors.duplicate(f"{path}[{i}]", name))
        seen.add(name)
    return out


def _host_name(spec: Object, path: str) -> list[Cause]:
    name = spec.get("hostnameOverride")
    if name is None:
        return []
    why = "may not be specified when {} is true"
    out = [
        errors.not_permitted(path, why.format(field)) for field in ("setHostnameAsFQDN", "hostNetwork") if spec.get(field)
    ]
    if len(name) > HOSTNAME_CHARS_MAX:
        out.append(checks.too_long(path, HOSTNAME_CHARS_MAX))
    return out + checks.text(path, name, names.dns_subdomain)


def _names(spec: Object, path: str) -> list[Cause]:
    out: list[Cause] = []
    for field in ("serviceAccountName", "nodeName"):
        if spec.get(field):
            out += checks.text(f"{path}.{field}", spec[field], names.dns_subdomain)
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None:
        out += checks.between(f"{path}.activeDeadlineSeconds", deadline, 1, SECONDS_MAX)
    for field in ("hostname", "subdomain"):
        if spec.get(field):
            out += checks.text(f"{path}.{field}", spec[field], names.dns_label)
    return out


def _file_keys(spec: Object, path: str) -> list[Cause]:
    """References of the environment to files of volumes."""
    sources = {v.get("name") or "": v for v in spec.get("volumes") or []}
    out: list[Cause] = []
    for container, at in pod_security.containers(spec, path):
        for i, env in enumerate(container.get("env") or []):
            ref = (env.get("valueFrom") or {}).get("fileKeyRef")
            if ref is None:
                continue
            where, name = f"{at}.env[{i}].valueFrom.fileKeyRef.volumeName", ref.get("volumeName") or ""
            if name not in sources:
                out.append(checks.not_found(where, name))
            elif sources[name].get("emptyDir") is None:
                out.append(errors.bad_value(where, name, "referenced volume must be of type emptyDir"))
    return out


def pod_annotations(annotations: dict[str, str], spec: Object, path: str) -> list[Cause]:
    """Annotations that mean something in a pod."""
    out: list[Cause] = []
    mirror = annotations.get(pod_references.MIRROR)
    if mirror is not None and not spec.get("nodeName"):
        why = "must set spec.nodeName if mirror pod annotation is set"
        out.append(errors.bad_value(f"{path}[{pod_references.MIRROR}]", mirror, why))
    cost = annotations.get(DELETION_COST)
    if cost is not None and not (re.fullmatch(r"(0|[1-9][0-9]*|-[1-9][0-9]*)", cost) and abs(int(cost)) <= SECONDS_MAX):
        out.append(errors.bad_value(f"{path}[{DELETION_COST}]", cost, "must be a 32bit integer"))
    for key, value in annotations.items():
        if key == _SECCOMP_POD or key.startswith(_SECCOMP_CONTAINER):
            out += _seccomp(f"{path}.{key}", value)
    every = [c.get("name") for c, _ in pod_security.containers(spec, "")]
    for key, value in annotations.items():
        if not key.startswith(_APP_ARMOR):
            continue
        if key.removeprefix(_APP_ARMOR) not in every:
            out.append(errors.bad_value(f"{path}[{key}]", key.removeprefix(_APP_ARMOR), "container not found"))
        if value not in ("", "runtime/default", "unconfined") and not value.startswith("localhost/"):
            why = f"invalid AppArmor profile name: {errors.show(value)}"
            out.append(errors.bad_value(f"{path}[{key}]", value, why))
    return out


def _seccomp(path: str, value: str) -> list[Cause]:
    if value in ("runtime/default", "docker/default", "unconfined"):
        return []
    if value.startswith("localhost/"):
        return checks.relative_path(path, value.removeprefix("localhost/"))
    return [errors.bad_value(path, value, "must be a valid seccomp profile")]


def _profiles(meta: Object, spec: Object, path: str) -> list[Cause]:
    """Profiles that are given as fields and, differently, as annotations of old."""
    annotations, out = meta.get("annotations") or {}, []
    whole = spec.get("securityContext") or {}
    if whole.get("seccompProfile") is not None and _SECCOMP_POD in annotations:
        out += _same("seccomp", whole["seccompProfile"], annotations[_SECCOMP_POD], f"{path}.securityContext.seccompProfile")
    windows = (spec.get("os") or {}).get("name") == "windows"
    for kind, prefix in (("seccomp", _SECCOMP_CONTAINER), ("apparmor", _APP_ARMOR)):
        field = "seccompProfile" if kind == "seccomp" else "appArmorProfile"
        if kind == "apparmor" and windows:
            continue
        for container, at in pod_security.containers(spec, path):
            profile = (container.get("securityContext") or {}).get(field)
            if profile is None and kind == "apparmor":
                profile = whole.get(field)
            key = prefix + (container.get("name") or "")
            if profile is not None and key in annotations:
                out += _same(kind, profile, annotations[key], f"{at}.securityContext.{field}")
    return out


def _same(kind: str, profile: Object, annotation: str, path: str) -> list[Cause]:
    differ = [errors.not_permitted(f"{path}.type", f"{kind} type in annotation and field must match")]
    if profile.get("type") == "Unconfined":
        return [] if annotation == "unconfined" else differ
    if profile.get("type") == "RuntimeDefault":
        known = ("runtime/default", "docker/default") if kind == "seccomp" else ("runtime/default",)
        return [] if annotation in known else differ
    if profile.get("type") == "Localhost":
        if not annotation.startswith("localhost/"):
            return differ
        if annotation.removeprefix("localhost/") != profile.get("localhostProfile"):
            why = f"{kind} profile in annotation and field must match"
            return [errors.not_permitted(f"{path}.localhostProfile", why)]
    return []
