"""One rule of a role: what it allows, and whether rules cover other rules.

Source: Kubernetes "Using RBAC Authorization" (referring to resources, privilege escalation prevention).  Pure.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from bus.kube.auth.users import Attributes

Rule = dict[str, Any]
ALL = "*"
FULL: tuple[Rule, ...] = (
    {"apiGroups": [ALL], "resources": [ALL], "verbs": [ALL]},
    {"nonResourceURLs": [ALL], "verbs": [ALL]},
)
SINGLES_MAX = 100_000  # of one role broken into single rights; a hostile role multiplies its lists


class TooManyRights(ValueError):
    """A role whose lists multiply into more rights than anybody means."""


def _listed(rule: Rule, field: str) -> list[str]:
    found = rule.get(field)
    return found if isinstance(found, list) else []


def allows(rule: Rule, wanted: Attributes) -> bool:
    verbs = _listed(rule, "verbs")
    if ALL not in verbs and wanted.verb not in verbs:
        return False
    if wanted.path:
        return any(_path_matches(p, wanted.path) for p in _listed(rule, "nonResourceURLs"))
    groups, names = _listed(rule, "apiGroups"), _listed(rule, "resourceNames")
    if ALL not in groups and wanted.group not in groups:
        return False
    if not any(_resource_matches(r, wanted.whole) for r in _listed(rule, "resources")):
        return False
    return not names or wanted.name in names


def _path_matches(pattern: str, path: str) -> bool:
    return pattern in (ALL, path) or (pattern.endswith(ALL) and path.startswith(pattern.rstrip(ALL)))


def _resource_matches(pattern: str, whole: str) -> bool:
    """``*`` is everything with its subresources, ``*/scale`` one subresource of everything."""
    if pattern in (ALL, whole):
        return True
    sub = whole.partition("/")[2]
    return bool(sub) and pattern == f"{ALL}/{sub}"


# --- covering --------------------------------------------------------------------------------------------------------


def covers(owned: Sequence[Rule], wanted: Iterable[Rule]) -> list[Rule]:
    """The rights in ``wanted`` that ``owned`` doesn't have, one a rule; empty when it has all.  Raises TooManyRights."""
    return [s for s in _singles(wanted) if not any(_covers(o, s) for o in owned)]


def _singles(rules: Iterable[Rule]) -> list[Rule]:
    out: list[Rule] = []
    for rule in rules:
        verbs, urls, names = _listed(rule, "verbs"), _listed(rule, "nonResourceURLs"), _listed(rule, "resourceNames")
        groups, resources = _listed(rule, "apiGroups"), _listed(rule, "resources")
        if len(groups) * len(resources) * len(verbs) * max(1, len(names)) + len(urls) * len(verbs) > SINGLES_MAX - len(out):
            raise TooManyRights(f"these rules name more than {SINGLES_MAX} single rights")
        for group, resource, verb in itertools.product(groups, resources, verbs):
            single = {"apiGroups": [group], "resources": [resource], "verbs": [verb]}
            out += [{**single, "resourceNames": [n]} for n in names] if names else [single]
        out += [{"nonResourceURLs": [url], "verbs": [verb]} for url, verb in itertools.product(urls, verbs)]
    return out


def _covers(owner: Rule, single: Rule) -> bool:
    verbs = _listed(owner, "verbs")
    if ALL not in verbs and single["verbs"][0] not in verbs:
        return False
    if "nonResourceURLs" in single:
        return any(_path_matches(p, single["nonResourceURLs"][0]) for p in _listed(owner, "nonResourceURLs"))
    groups = _listed(owner, "apiGroups")
    if ALL not in groups and single["apiGroups"][0] not in groups:
        return False
    if not any(_resource_matches(r, single["resources"][0]) for r in _listed(owner, "resources")):
        return False
    names = _listed(owner, "resourceNames")
    return not names or (bool(single.get("resourceNames")) and single["resourceNames"][0] in names)


def compact(singles: Iterable[Rule]) -> list[Rule]:
    """Single rights with their verbs put together, in the order they came."""
    out: dict[tuple[Any, ...], Rule] = {}
    for s in singles:
        key = tuple((f, *s[f]) for f in ("apiGroups", "resources", "resourceNames", "nonResourceURLs") if f in s)
        if key in out:
            out[key]["verbs"].append(s["verbs"][0])
        else:
            out[key] = {**s, "verbs": list(s["verbs"])}
    return list(out.values())


def text(rule: Rule) -> str:
    """``{APIGroups:[""], Resources:["pods"], Verbs:["get"]}``."""
    fields = (
        ("APIGroups", "apiGroups"),
        ("Resources", "resources"),
        ("NonResourceURLs", "nonResourceURLs"),
        ("ResourceNames", "resourceNames"),
        ("Verbs", "verbs"),
    )
    said = [f"{name}:{quoted(_listed(rule, f))}" for name, f in fields if rule.get(f)]
    return "{" + ", ".join(said) + "}"


def quoted(texts: Iterable[str]) -> str:
    """``["a" "b"]``, as Go writes a list of strings."""
    return "[" + " ".join('"' + t + '"' for t in texts) + "]"
