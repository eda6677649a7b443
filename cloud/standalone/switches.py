"""Which controllers run: ``--controllers`` as kube-controller-manager reads it.

A list: ``*`` is all of them, a name that one, ``-name`` not that one; what is named itself counts before ``*``.  Names are
ours or kube-controller-manager's, old and new.
Source: Kubernetes documentation, kube-controller-manager, ``--controllers``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

# What kube-controller-manager calls them where that isn't our name, or our name with ``-controller``.
_OTHERS = {
    "garbagecollector": "garbage",
    "garbage-collector-controller": "garbage",
    "pod-garbage-collector-controller": "podgc",
    "node-lifecycle-controller": "nodelifecycle",
    "taint-eviction-controller": "tainteviction",
    "endpoint": "endpoints",
    "endpoint-controller": "endpoints",
    "resourcequota-controller": "resourcequota",
    "horizontal-pod-autoscaler-controller": "horizontalpodautoscaling",
    "kube-scheduler": "scheduler",
    "serviceaccount-token-controller": "serviceaccount-token",
    "root-ca-certificate-publisher-controller": "root-ca-certificate-publisher",
    "root-ca-cert-publisher": "root-ca-certificate-publisher",
}


def enabled(switches: Sequence[str], known: Iterable[str]) -> list[str]:
    """The names of ``known`` that are on, in their order; raises ValueError for a name that is none."""
    names = list(known)
    said: dict[str, bool] = {}
    every = False
    for switch in switches:
        text = switch.strip()
        if text == "*":
            every = True
            continue
        off, name = text.startswith("-"), text.removeprefix("-")
        found = _name(name, names)
        if found is None:
            raise ValueError(f"{name!r} is not in the list of known controllers: {', '.join(sorted(names))}")
        said[found] = not off
    return [n for n in names if said.get(n, every)]


def _name(text: str, names: Sequence[str]) -> str | None:
    for name in (text, _OTHERS.get(text, ""), text.removesuffix("-controller")):
        if name in names:
            return name
    return None
