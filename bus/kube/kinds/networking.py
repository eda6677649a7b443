"""Ingresses, their classes, network policies (pkg/apis/networking).  Kept for those who act on them; the mesh has no ingress
of its own, and nodes filter nothing between pods."""

from __future__ import annotations

import ipaddress
from typing import Any

from bus.kube import errors, names
from bus.kube.errors import Cause
from bus.kube.kinds import checks
from bus.kube.kinds.base import Context, Strategy, at
from bus.kube.storage import Object

DEFAULT_CLASS = "ingressclass.kubernetes.io/is-default-class"
OLD_CLASS = "kubernetes.io/ingress.class"
PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")
PROTOCOLS = ("TCP", "UDP", "SCTP")
PORT_MAX = 65535
_PORT_SAYS = "must be between 1 and 65535, inclusive"
_WILDCARD_SAYS = (
    "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower "
    "case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for "
    r"validation is '\*\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_RESOURCE_BACKEND = "cannot set both resource and service backends"


class Ingresses(Strategy):
    generation = True

    def prepare_create(self, obj: Object, ctx: Context) -> None:
        obj["status"] = {"loadBalancer": {}}
        annotated = OLD_CLASS in (obj["metadata"].get("annotations") or {})
        spec = obj.setdefault("spec", {})
        if spec.get("ingressClassName") is None and not annotated and (found := _default_class(ctx)):
            spec["ingressClassName"] = found

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        return _old_class(obj) + self._spec(obj)

    def _spec(self, obj: Object) -> list[Cause]:
        spec = obj.get("spec") or {}
        out: list[Cause] = []
        rules, backend, class_name = spec.get("rules") or [], spec.get("defaultBackend"), spec.get("ingressClassName")
        if not rules and backend is None:
            out.append(errors.bad_value("spec", None, "either `defaultBackend` or `rules` must be specified"))
        for i, tls in enumerate(spec.get("tls") or []):
            for j, host in enumerate(tls.get("hosts") or []):
                out += _host(host, f"spec.tls[{i}].hosts[{j}]")
            if tls.get("secretName"):
                out += checks.text(f"spec.tls[{i}].secretName", tls["secretName"], names.dns_subdomain)
        for i, rule in enumerate(rules):
            out += _rule(rule, f"spec.rules[{i}]")
        if backend is not None:
            out += _backend(backend, "spec.defaultBackend")
        if class_name is not None and (problem := names.dns_subdomain(class_name)):
            out.append(errors.bad_value("spec.ingressClassName", class_name, problem))
        return out

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        return self._spec(obj)

    def validate_status(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        out: list[Cause] = []
        for i, ingress in enumerate(at(obj, "status", "loadBalancer", "ingress") or []):
            path, host = f"status.loadBalancer.ingress[{i}]", ingress.get("hostname")
            if ingress.get("ip"):
                out += checks.address(f"{path}.ip", ingress["ip"])
            if host:
                out += checks.text(f"{path}.hostname", host, names.dns_subdomain)
                if not checks.address("", host):
                    out.append(errors.bad_value(f"{path}.hostname", host, "must be a DNS name, not an IP address"))
        return out


def _old_class(obj: Object) -> list[Cause]:
    """The annotation that was there before the field says the same, where a create says both."""
    noted = (obj["metadata"].get("annotations") or {}).get(OLD_CLASS)
    given = at(obj, "spec", "ingressClassName")
    if noted is None or given is None or noted == given:
        return []
    why = "must match `ingressClassName` when both are specified"
    return [errors.bad_value(f"annotations.{OLD_CLASS}", noted, why)]


def _default_class(ctx: Context) -> str:
    """The one class that says it is the default; the youngest of several, as the real server chooses."""
    found = [
        (str(at(s.object, "metadata", "creationTimestamp") or ""), s.key.name)
        for s in ctx.reader.list("networking.k8s.io", "ingressclasses")
        if at(s.object, "metadata", "annotations", DEFAULT_CLASS) == "true"
    ]
    return max(found)[1] if found else ""


def _host(host: str, path: str) -> list[Cause]:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return [errors.bad_value(path, host, "must be a DNS name, not an IP address")]
    if "*" in host:
        good = host.startswith("*.") and not names.dns_subdomain(host[2:])
        return [] if good else [errors.bad_value(path, host, _WILDCARD_SAYS)]
    problem = names.dns_subdomain(host)
    return [errors.bad_value(path, host, problem)] if problem else []


def _rule(rule: Object, path: str) -> list[Cause]:
    out = _host(rule["host"], f"{path}.host") if rule.get("host") else []
    http = rule.get("http")
    if http is None:
        return out
    paths = http.get("paths") or []
    if not paths:
        out.append(errors.required(f"{path}.http.paths"))
    for i, entry in enumerate(paths):
        out += _path(entry, f"{path}.http.paths[{i}]")
    return out


def _path(entry: Object, path: str) -> list[Cause]:
    out: list[Cause] = []
    kind, text = entry.get("pathType"), entry.get("path") or ""
    if kind is None:
        out.append(errors.required(f"{path}.pathType", "pathType must be specified"))
    elif kind not in PATH_TYPES:
        out.append(errors.not_supported(f"{path}.pathType", kind, PATH_TYPES))
    elif kind == "ImplementationSpecific":
        if text and not text.startswith("/"):
            out.append(errors.bad_value(f"{path}.path", text, "must be an absolute path"))
    else:
        if not text.startswith("/"):
            out.append(errors.bad_value(f"{path}.path", text, "must be an absolute path"))
        for bad in ("//", "/./", "/../", "%2f", "%2F"):
            if text and bad in text:
                out.append(errors.bad_value(f"{path}.path", text, f"must not contain '{bad}'"))
        for bad in ("/..", "/."):
            if text.endswith(bad):
                out.append(errors.bad_value(f"{path}.path", text, f"cannot end with '{bad}'"))
    return out + _backend(entry.get("backend") or {}, f"{path}.backend")


def _backend(backend: Object, path: str) -> list[Cause]:
    service, resource = backend.get("service"), backend.get("resource")
    if service is not None and resource is not None:
        return [errors.bad_value(path, "", _RESOURCE_BACKEND)]
    if resource is not None:
        return [errors.required(f"{path}.resource.{f}") for f in ("kind", "name") if not resource.get(f)]
    if service is None:
        return [errors.bad_value(path, "", "resource or service backend is required")]
    out: list[Cause] = []
    name, port = service.get("name") or "", service.get("port") or {}
    if not name:
        out.append(errors.required(f"{path}.service.name"))
    else:
        out += checks.text(f"{path}.service.name", name, names.dns_label)
    named, number = port.get("name") or "", port.get("number") or 0
    if named and number:
        out.append(errors.bad_value(path, "", "cannot set both port name & port number"))
    elif named:
        out += checks.port_name(f"{path}.service.port.name", named)
    elif number:
        out += checks.port_number(f"{path}.service.port.number", number)
    else:
        out.append(errors.required(path, "port name or number is required"))
    return out


class IngressClasses(Strategy):
    generation = True

    def defaults(self, obj: Object, ctx: Context) -> None:
        parameters = at(obj, "spec", "parameters")
        if parameters is not None:
            parameters.setdefault("scope", "Cluster")

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        spec = obj.get("spec") or {}
        out: list[Cause] = []
        controller = spec.get("controller") or ""
        if len(controller) > 250:
            out.append(Cause("spec.controller", "FieldValueTooLong", "Too long: may not be more than 250 bytes"))
        if not controller:
            out.append(errors.required("spec.controller"))
        else:
            out += _domain_path(controller, "spec.controller")
        return out + _parameters(spec.get("parameters"), "spec.parameters")

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        out = self.validate(obj, ctx)
        if at(obj, "spec", "controller") != at(old, "spec", "controller"):
            out.append(errors.bad_value("spec.controller", at(obj, "spec", "controller"), "field is immutable"))
        return out


def _parameters(given: Object | None, path: str) -> list[Cause]:
    if given is None:
        return []
    group, kind, name = (given.get(f) or "" for f in ("apiGroup", "kind", "name"))
    out = checks.text(f"{path}.apiGroup", group, names.dns_subdomain) if group else []
    for field, value in (("kind", kind), ("name", name)):
        if not value:
            out.append(errors.required(f"{path}.{field}"))
        elif problem := names.path_segment(value):
            out.append(errors.bad_value(f"{path}.{field}", value, problem))
    scope, space = given.get("scope"), given.get("namespace")
    out += checks.listed(f"{path}.scope", scope, ("Cluster", "Namespace"))
    if scope == "Namespace" and space is None:
        out.append(errors.required(f"{path}.namespace", "`parameters.scope` is set to 'Namespace'"))
    elif scope == "Namespace":
        out += checks.text(f"{path}.namespace", space or "", names.dns_label)
    elif scope == "Cluster" and space is not None:
        out.append(errors.not_permitted(f"{path}.namespace", "`parameters.scope` is set to 'Cluster'"))
    return out


def _domain_path(text: str, path: str) -> list[Cause]:
    domain, slash, rest = text.partition("/")
    if not slash or not domain or not rest:
        return [errors.bad_value(path, text, 'must be a domain-prefixed path (such as "acme.io/foo")')]
    return checks.text(path, domain, names.dns_subdomain)


class NetworkPolicies(Strategy):
    generation = True

    def defaults(self, obj: Object, ctx: Context) -> None:
        spec = obj.setdefault("spec", {})
        spec.setdefault("podSelector", {})
        for way in ("ingress", "egress"):
            for rule in spec.get(way) or []:
                for port in rule.get("ports") or []:
                    port.setdefault("protocol", "TCP")
        if not spec.get("policyTypes"):
            spec["policyTypes"] = ["Ingress", *(["Egress"] if spec.get("egress") else [])]

    def validate(self, obj: Object, ctx: Context) -> list[Cause]:
        spec = obj["spec"]
        out = checks.label_selector("spec.podSelector", spec["podSelector"])
        for way, peers in (("ingress", "from"), ("egress", "to")):
            for i, rule in enumerate(spec.get(way) or []):
                for j, port in enumerate(rule.get("ports") or []):
                    out += _policy_port(port, f"spec.{way}[{i}].ports[{j}]")
                for j, peer in enumerate(rule.get(peers) or []):
                    out += _peer(peer, f"spec.{way}[{i}].{peers}[{j}]")
        kinds = spec["policyTypes"]
        if len(kinds) > 2:
            out.append(errors.bad_value("spec.policyTypes", kinds, "may not specify more than two policyTypes"))
            return out
        for i, kind in enumerate(kinds):
            out += checks.listed(f"spec.policyTypes[{i}]", kind, ("Ingress", "Egress"))
        return out

    def validate_update(self, obj: Object, old: Object, ctx: Context) -> list[Cause]:
        return self.validate(obj, ctx)


def _policy_port(port: Object, path: str) -> list[Cause]:
    out: list[Cause] = []
    out += checks.listed(f"{path}.protocol", port["protocol"], PROTOCOLS)
    value, end = port.get("port"), port.get("endPort")
    if isinstance(value, int):
        if not 1 <= value <= PORT_MAX:
            out.append(errors.bad_value(f"{path}.port", value, _PORT_SAYS))
        if end is not None:
            if end < value:
                out.append(errors.bad_value(f"{path}.endPort", value, "must be greater than or equal to `port`"))
            if not 1 <= end <= PORT_MAX:
                out.append(errors.bad_value(f"{path}.endPort", end, _PORT_SAYS))
        return out
    if end is not None:
        why = "may not be specified when `port` is " + ("non-numeric" if value else "not specified")
        out.append(errors.bad_value(f"{path}.endPort", end, why))
    if isinstance(value, str):
        out += checks.port_name(f"{path}.port", value)
    return out


def _peer(peer: Object, path: str) -> list[Cause]:
    out: list[Cause] = []
    given = [f for f in ("podSelector", "namespaceSelector", "ipBlock") if peer.get(f) is not None]
    for field in given:
        where = f"{path}.{field}"
        out += _block(peer[field], where) if field == "ipBlock" else checks.label_selector(where, peer[field])
    if not given:
        out.append(errors.required(path, "must specify a peer"))
    elif "ipBlock" in given and len(given) > 1:
        out.append(errors.not_permitted(path, "may not specify both ipBlock and another peer"))
    return out


def _network(text: str) -> Any:
    try:
        return ipaddress.ip_network(text, strict=False) if "/" in text else None
    except ValueError:
        return None


def _block(block: Object, path: str) -> list[Cause]:
    why = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
    cidr = block.get("cidr") or ""
    if not cidr:
        return [errors.required(f"{path}.cidr")]
    net, out = _network(cidr), []
    if net is None:
        return [errors.bad_value(f"{path}.cidr", cidr, why)]
    for i, text in enumerate(block.get("except") or []):
        inner = _network(text)
        if inner is None:
            out.append(errors.bad_value(f"{path}.except[{i}]", text, why))
        elif inner.version != net.version or not inner.subnet_of(net) or inner.prefixlen <= net.prefixlen:
            out.append(errors.bad_value(f"{path}.except[{i}]", text, "must be a strict subset of `cidr`"))
    return out
