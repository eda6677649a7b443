"""What an object uses of a resource quota, and which quotas are about it.  Pure.

Source: Kubernetes documentation, "Resource Quotas"; kubernetes pkg/quota/v1/evaluator/core (what counts, and the words).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import Any, Protocol

from bus.kube import quantity
from bus.kube.kinds import pod_defaults
from bus.kube.kinds.base import at
from bus.kube.kinds.storage import class_of
from bus.kube.quantity import Amount
from bus.kube.storage import Object
from schemas import times

Usage = dict[str, Amount]
Kind = tuple[str, str]  # (group, resource)

PODS, SERVICES, CLAIMS = ("", "pods"), ("", "services"), ("", "persistentvolumeclaims")
# Kinds whose count has a name of its own beside ``count/``.
PLAIN = ("configmaps", "persistentvolumeclaims", "pods", "replicationcontrollers", "resourcequotas", "secrets", "services")
COMPUTE = ("cpu", "memory", "ephemeral-storage")
REQUIRED = ("cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory")
OF_CLASS = ".storageclass.storage.k8s.io/"
ONE, NONE = Amount(Fraction(1)), Amount(Fraction(0))


def counted(group: str, resource: str) -> str:
    """The name under which objects of a kind are counted."""
    return f"count/{resource}.{group}" if group else f"count/{resource}"


def kinds_of(name: str) -> set[Kind]:
    """The kinds that a name in a quota's ``hard`` is about."""
    if name.startswith("count/"):
        resource, _, group = name.removeprefix("count/").partition(".")
        return {(group, resource)}
    if name.startswith("services."):
        return {SERVICES}
    if name == "requests.storage" or OF_CLASS in name:
        return {CLAIMS}
    return {("", name)} if name in PLAIN else {PODS}


def of(kind: Kind, obj: Object, now_us: int) -> Usage:
    """Everything that one object counts for."""
    out: Usage = {counted(*kind): ONE}
    if not kind[0] and kind[1] in PLAIN and kind != PODS:
        out[kind[1]] = ONE
    if kind == PODS:
        if not over(obj, now_us):
            out |= {"pods": ONE, **_of_pod(obj.get("spec") or {})}
    elif kind == SERVICES:
        out |= _of_service(obj.get("spec") or {})
    elif kind == CLAIMS:
        out |= _of_claim(obj)
    return out


def over(pod: Object, now_us: int) -> bool:
    """A pod that uses nothing any more: it ended, or should have long ago."""
    if at(pod, "status", "phase") in ("Succeeded", "Failed"):
        return True
    deleted, grace_s = (
        times.micros(at(pod, "metadata", "deletionTimestamp")),
        at(pod, "metadata", "deletionGracePeriodSeconds"),
    )
    return deleted is not None and isinstance(grace_s, int) and now_us > deleted + grace_s * times.US_PER_S


def amounts(found: object) -> Usage:
    """A map of quantities; what is none is left out."""
    out: Usage = {}
    for name, text in found.items() if isinstance(found, dict) else ():
        try:
            out[str(name)] = quantity.amount(text)
        except quantity.QuantityError:
            continue
    return out


def plus(a: Usage, b: Usage) -> Usage:
    return {k: a.get(k, NONE).plus(b.get(k, NONE)) for k in {**a, **b}}


def _most(a: Usage, b: Usage) -> Usage:
    return {k: max(a.get(k, NONE), b.get(k, NONE), key=lambda m: m.value) for k in {**a, **b}}


def of_containers(spec: Object, what: str) -> Usage:
    """``requests`` or ``limits`` of a pod: all containers together, or the most that its start takes (documentation,
    "Sidecar Containers", resource sharing)."""
    main: Usage = {}
    for c in spec.get("containers") or []:
        main = plus(main, amounts(at(c, "resources", what)))
    most: Usage = {}
    sidecars: Usage = {}
    for c in spec.get("initContainers") or []:
        mine = amounts(at(c, "resources", what))
        if c.get("restartPolicy") == "Always":
            sidecars = plus(sidecars, mine)
            most = _most(most, sidecars)
        else:
            most = _most(most, plus(sidecars, mine))
    found = _most(plus(main, sidecars), most) | amounts(at(spec, "resources", what))
    overhead = amounts(spec.get("overhead"))
    return plus(found, overhead if what == "requests" else {k: v for k, v in overhead.items() if k in found})


def _of_pod(spec: Object) -> Usage:
    out: Usage = {}
    for name, amount in of_containers(spec, "requests").items():
        out[f"requests.{name}"] = amount
        if name in COMPUTE or name.startswith("hugepages-"):
            out[name] = amount
    return out | {f"limits.{n}": a for n, a in of_containers(spec, "limits").items() if n in COMPUTE}


def _of_service(spec: Object) -> Usage:
    kind, ports = spec.get("type"), Amount(Fraction(len(spec.get("ports") or [])))
    if kind == "NodePort":
        return {"services.nodeports": ports}
    if kind == "LoadBalancer":
        given = spec.get("allocateLoadBalancerNodePorts") is not False
        return {"services.loadbalancers": ONE, **({"services.nodeports": ports} if given else {})}
    return {}


def _of_claim(claim: Object) -> Usage:
    name = class_of(claim)
    out: Usage = {f"{name}{OF_CLASS}persistentvolumeclaims": ONE} if name else {}
    asked = amounts(at(claim, "spec", "resources", "requests")).get("storage")
    if asked is not None:
        out["requests.storage"] = asked
        if name:
            out[f"{name}{OF_CLASS}requests.storage"] = asked
    return out


# --- which quotas ----------------------------------------------------------------------------------------------------


def concerned(quota: Object, kind: Kind, obj: Object) -> set[str]:
    """The names of a quota's ``hard`` that an object counts for; none when its scopes leave the object out."""
    hard = set(at(quota, "spec", "hard") or {})
    names = {n for n in hard if kind in kinds_of(n)}
    return names if names and in_scope(quota, kind, obj) else set()


def in_scope(quota: Object, kind: Kind, obj: Object) -> bool:
    scopes: list[tuple[Any, Any, list[str]]] = [(s, "Exists", []) for s in at(quota, "spec", "scopes") or []]
    for e in at(quota, "spec", "scopeSelector", "matchExpressions") or []:
        scopes.append((e.get("scopeName"), e.get("operator"), e.get("values") or []))
    return all(kind == PODS and _scope(s, op, values, obj.get("spec") or {}) for s, op, values in scopes)


def _scope(scope: object, operator: object, values: Iterable[str], spec: Object) -> bool:
    if scope == "PriorityClass":
        name = spec.get("priorityClassName") or ""
        return {
            "Exists": bool(name),
            "DoesNotExist": not name,
            "In": bool(name) and name in values,
            "NotIn": name not in values,
        }.get(str(operator), False)
    if scope in ("Terminating", "NotTerminating"):
        return (spec.get("activeDeadlineSeconds") is not None) is (scope == "Terminating")
    if scope in ("BestEffort", "NotBestEffort"):
        return (pod_defaults.qos_class(spec) == "BestEffort") is (scope == "BestEffort")
    return scope == "CrossNamespacePodAffinity" and any(_abroad(t) for t in _terms(spec.get("affinity")))


def _terms(affinity: Any) -> Iterable[Object]:
    for what in ("podAffinity", "podAntiAffinity"):
        yield from at(affinity, what, "requiredDuringSchedulingIgnoredDuringExecution") or []
        for preferred in at(affinity, what, "preferredDuringSchedulingIgnoredDuringExecution") or []:
            yield preferred.get("podAffinityTerm") or {}


def _abroad(term: Object) -> bool:
    return bool(term.get("namespaces")) or term.get("namespaceSelector") is not None


class Seen(Protocol):
    """An object as it is stored."""

    @property
    def object(self) -> Object: ...


def count(quota: Object, names: Iterable[str], listed: Callable[[Kind, str], Iterable[Seen]], now_us: int) -> Usage:
    """What the objects that are there use of ``names`` of a quota; ``listed`` gives a kind's objects of a namespace."""
    wanted, space = set(names), str(quota["metadata"].get("namespace") or "")
    out: Usage = {}
    for kind in sorted({k for n in wanted for k in kinds_of(n)}):
        mine = {n for n in wanted if kind in kinds_of(n)}
        for seen in listed(kind, space):
            if in_scope(quota, kind, seen.object):
                out = plus(out, {n: a for n, a in of(kind, seen.object, now_us).items() if n in mine})
    return out


def unspecified(names: Iterable[str], spec: Object) -> str:
    """What containers must say because a quota counts it, in the real server's words; "" when they do."""
    missing: dict[str, list[str]] = {}
    for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
        resources: Mapping[str, Any] = container.get("resources") or {}
        for name in sorted(set(names) & set(REQUIRED)):
            what, dot, resource = name.partition(".")
            field, resource = (what, resource) if dot else ("requests", what)
            if resource not in (resources.get(field) or {}):
                missing.setdefault(name, []).append(str(container.get("name", "")))
    said = [f"{name} for: {','.join(sorted(who))}" for name, who in sorted(missing.items())]
    return "must specify " + "; ".join(said) if said else ""


def text(found: Usage, names: Iterable[str]) -> str:
    """``cpu=1,pods=2``"""
    return ",".join(f"{n}={found.get(n, NONE)}" for n in sorted(names))
