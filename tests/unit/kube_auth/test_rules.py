"""One rule at a time: what it allows, what covers what."""

from __future__ import annotations

from typing import Any

import pytest

from bus.kube.auth import policy, rules
from bus.kube.auth.users import Attributes, User

JANE = User("jane")


def on(groups: str, resources: str, verbs: str, names: str = "") -> dict[str, Any]:
    rule = {"apiGroups": [g.strip("-") for g in groups.split()], "resources": resources.split(), "verbs": verbs.split()}
    return {**rule, **({"resourceNames": names.split()} if names else {})}


@pytest.mark.parametrize(
    ("rule", "asked", "allowed"),
    [
        (on("-", "pods", "get list"), ("get", "", "pods", "", "x"), True),
        (on("-", "pods", "get list"), ("watch", "", "pods", "", ""), False),
        (on("apps", "pods", "get"), ("get", "", "pods", "", "x"), False),
        (on("*", "pods", "*"), ("anything", "apps", "pods", "", ""), True),
        (on("-", "pods", "get"), ("get", "", "pods", "log", "x"), False),  # a subresource is not its parent
        (on("-", "pods/log", "get"), ("get", "", "pods", "log", "x"), True),
        (on("-", "pods/log", "get"), ("get", "", "pods", "", "x"), False),
        (on("-", "*", "get"), ("get", "", "pods", "log", "x"), True),
        (on("apps", "*/scale", "update"), ("update", "apps", "deployments", "scale", "x"), True),
        (on("apps", "*/scale", "update"), ("update", "apps", "deployments", "", "x"), False),
        (on("-", "configmaps", "get", "a b"), ("get", "", "configmaps", "", "b"), True),
        (on("-", "configmaps", "get", "a b"), ("get", "", "configmaps", "", "c"), False),
        (on("-", "configmaps", "list create", "a"), ("list", "", "configmaps", "", ""), False),  # a name is needed
    ],
)
def test_resources(rule: dict[str, Any], asked: tuple[str, str, str, str, str], allowed: bool) -> None:
    verb, group, resource, sub, name = asked
    assert rules.allows(rule, Attributes(JANE, verb, group, resource, sub, "ns", name)) is allowed


@pytest.mark.parametrize(
    ("url", "path", "allowed"),
    [
        ("/healthz", "/healthz", True),
        ("/healthz", "/healthz/etcd", False),
        ("/healthz/*", "/healthz/etcd", True),
        ("/api*", "/apis", True),
        ("*", "/metrics", True),
    ],
)
def test_paths(url: str, path: str, allowed: bool) -> None:
    rule = {"nonResourceURLs": [url], "verbs": ["get"]}
    assert rules.allows(rule, Attributes(JANE, "get", path=path)) is allowed
    assert not rules.allows(rule, Attributes(JANE, "post", path=path))
    assert not rules.allows(on("*", "*", "*"), Attributes(JANE, "get", path=path))  # a resource rule is for no path


@pytest.mark.parametrize(
    ("owned", "wanted", "missing"),
    [
        ([on("-", "pods", "get list")], [on("-", "pods", "get")], []),
        ([on("-", "pods", "get")], [on("-", "pods", "get list")], ['{APIGroups:[""], Resources:["pods"], Verbs:["list"]}']),
        ([on("-", "pods", "get"), on("-", "pods", "list")], [on("-", "pods", "get list")], []),
        ([on("*", "*", "*")], [on("apps", "deployments/scale", "*")], []),
        ([on("-", "pods", "get")], [on("-", "*", "get")], ['{APIGroups:[""], Resources:["*"], Verbs:["get"]}']),
        ([on("-", "pods", "get", "a")], [on("-", "pods", "get", "a")], []),
        ([on("-", "pods", "get", "a")], [on("-", "pods", "get")], ['{APIGroups:[""], Resources:["pods"], Verbs:["get"]}']),
        (
            [on("-", "*", "*")],
            [{"nonResourceURLs": ["/x"], "verbs": ["get"]}],
            ['{NonResourceURLs:["/x"], Verbs:["get"]}'],
        ),
        ([{"nonResourceURLs": ["/x/*"], "verbs": ["*"]}], [{"nonResourceURLs": ["/x/y"], "verbs": ["get"]}], []),
    ],
)
def test_covering(owned: list[Any], wanted: list[Any], missing: list[str]) -> None:
    assert [rules.text(r) for r in rules.compact(rules.covers(owned, wanted))] == missing


def test_a_role_that_multiplies_without_end_is_refused() -> None:
    many = [str(n) for n in range(1000)]
    with pytest.raises(rules.TooManyRights):
        rules.covers([], [{"apiGroups": many, "resources": many, "verbs": many}])


def test_the_default_policy_is_repaired_but_never_cut_back() -> None:
    wanted = next(r for r in policy.cluster_roles() if r["metadata"]["name"] == "system:node-proxier")
    more = {"apiGroups": ["x"], "resources": ["y"], "verbs": ["get"]}
    current = {**wanted, "rules": [more, *wanted["rules"][1:]]}
    new = policy.repaired(current, wanted)
    assert new is not None and more in new["rules"] and rules.covers(new["rules"], wanted["rules"]) == []
    assert policy.repaired(new, wanted) is None
    untouched = {**current, "metadata": {**wanted["metadata"], "annotations": {policy.AUTOUPDATE: "false"}}}
    assert policy.repaired(untouched, wanted) is None


def test_edit_has_what_view_has_and_admin_what_edit_has() -> None:
    by_name = {r["metadata"]["name"]: r["rules"] for r in policy.cluster_roles()}
    assert rules.covers(by_name["edit"], by_name["view"]) == []
    assert rules.covers(by_name["admin"], by_name["edit"]) == []
    assert rules.covers(by_name["edit"], by_name["admin"]) != []
    secret = Attributes(JANE, "get", "", "secrets", "", "x", "y")
    assert not any(rules.allows(r, secret) for r in by_name["view"])
