"""What the API itself writes into a new pod's specification (pkg/registry/core/pod, PrepareForCreate)."""

from __future__ import annotations

from collections.abc import Iterator

from bus.kube.kinds import pod_placing, pod_security
from bus.kube.storage import Object

_APP_ARMOR = "container.apparmor.security.beta.kubernetes.io/"


def merge_label_keys(pod: Object) -> None:
    """Keys whose values the pod gives become part of the selectors."""
    labels = pod["metadata"].get("labels") or {}
    for term in _terms(pod["spec"]):
        if term.get("labelSelector") is None:
            continue
        more = [
            {"key": key, "operator": operator, "values": [labels[key]]}
            for field, operator in (("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn"))
            for key in term.get(field) or []
            if key in labels
        ]
        if more:
            selector = term["labelSelector"]
            selector["matchExpressions"] = [*(selector.get("matchExpressions") or []), *more]


def _terms(spec: Object) -> Iterator[Object]:
    affinity = spec.get("affinity") or {}
    for field in ("podAffinity", "podAntiAffinity"):
        given = affinity.get(field) or {}
        yield from (w.get("podAffinityTerm") or {} for w in given.get(pod_placing.PREFERRED) or [])
        yield from given.get(pod_placing.REQUIRED) or []
    yield from spec.get("topologySpreadConstraints") or []


def profiles(pod: Object) -> None:
    """AppArmor profiles of old annotations become fields."""
    spec, annotations = pod["spec"], pod["metadata"].get("annotations") or {}
    if (spec.get("os") or {}).get("name") == "windows":
        return
    whole = (spec.get("securityContext") or {}).get("appArmorProfile")
    for container, _ in pod_security.containers(spec, ""):
        context = container.get("securityContext") or {}
        profile = _profile(annotations.get(_APP_ARMOR + (container.get("name") or ""), "-"))
        if profile is not None and context.get("appArmorProfile") is None and profile != whole:
            container["securityContext"] = {**context, "appArmorProfile": profile}


def _profile(annotation: str) -> Object | None:
    if annotation == "unconfined":
        return {"type": "Unconfined"}
    if annotation in ("", "runtime/default"):
        return {"type": "RuntimeDefault"}
    name = annotation.removeprefix("localhost/")
    if name == annotation or not name or name != name.strip():
        return None
    return {"type": "Localhost", "localhostProfile": name}
