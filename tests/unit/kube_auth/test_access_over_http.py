"""Who may do what, asked over HTTP as the real server answers it."""

from __future__ import annotations

from typing import Any

import pytest

from bus.kube.auth import denials
from tests.unit.kube_auth.conftest import RBAC, Roles
from tests.unit.kube_auth.test_rules import on
from tests.unit.kube_http.conftest import CM, config_map

REVIEWS = "/apis/authorization.k8s.io/v1"
PODS = "/api/v1/namespaces/default/pods"


@pytest.mark.parametrize(
    ("method", "path", "message"),
    [
        (
            "GET",
            PODS,
            'pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "default"',
        ),
        (
            "GET",
            PODS + "/x/log",
            'pods "x" is forbidden: User "jane" cannot get resource "pods/log" in API group "" in the namespace "default"',
        ),
        (
            "GET",
            "/api/v1/nodes",
            'nodes is forbidden: User "jane" cannot list resource "nodes" in API group "" at the cluster scope',
        ),
        (
            "GET",
            "/apis/apps/v1/deployments?watch=1",
            'deployments.apps is forbidden: User "jane" cannot watch resource "deployments" in API group "apps" '
            "at the cluster scope",
        ),
        (
            "DELETE",
            PODS,
            'pods is forbidden: User "jane" cannot deletecollection resource "pods" in API group "" '
            'in the namespace "default"',
        ),
        (
            "GET",
            "/api/v1/namespaces/default",
            'namespaces "default" is forbidden: User "jane" cannot get resource "namespaces" in API group "" '
            'in the namespace "default"',
        ),
        (
            "GET",
            "/apis/example.com/v1/nonsense",
            'nonsense.example.com is forbidden: User "jane" cannot list resource "nonsense" in API group "example.com" '
            "at the cluster scope",
        ),
        ("GET", "/metrics", 'forbidden: User "jane" cannot get path "/metrics"'),
    ],
)
async def test_refusals_read_as_the_real_ones(api: Roles, method: str, path: str, message: str) -> None:
    code, got = await api.ask("jane", method, path)
    assert (code, got["reason"], got["message"]) == (403, "Forbidden", message)


async def test_anybody_may_discover_and_ask_what_they_may(api: Roles) -> None:
    assert (await api.ask("jane", "GET", "/apis"))[0] == 200
    assert (await api.ask("jane", "GET", "/api/v1"))[0] == 200
    code, got = await api.call("GET", "/apis")
    assert (code, got["message"]) == (403, 'forbidden: User "system:anonymous" cannot get path "/apis"')
    assert (await api.ask("bad", "GET", "/apis"))[0] == 401
    assert (await api.call("GET", "/version"))[0] == 200


async def test_a_right_counts_at_once_and_ends_at_once(api: Roles) -> None:
    assert not await api.can("jane", "get", "pods", "default")
    await api.role("reader", on("-", "pods", "get list watch"), namespace="default")
    await api.bind("reader", "User/jane", namespace="default", kind="Role")
    assert await api.can("jane", "get", "pods", "default")
    assert not await api.can("jane", "get", "pods", "kube-system")
    assert not await api.can("jane", "get", "pods")
    assert (await api.ask("jane", "GET", PODS))[0] == 200
    await api.admin("DELETE", RBAC + "/namespaces/default/roles/reader")
    code, got = await api.ask("jane", "GET", PODS)
    assert code == 403 and got["message"].endswith('RBAC: role.rbac.authorization.k8s.io "reader" not found')


async def test_groups_and_service_accounts_are_bound(api: Roles) -> None:
    await api.role("reader", on("-", "configmaps", "get"))
    await api.bind("reader", "Group/dev", "ServiceAccount/default/robot")
    assert await api.can("jane/dev", "get", "configmaps", "anywhere")
    assert not await api.can("jane", "get", "configmaps", "anywhere")
    assert await api.can("system:serviceaccount:default:robot", "get", "configmaps", "anywhere")
    await api.bind("reader", "Group/system:serviceaccounts:default", namespace="default")
    assert await api.can("system:serviceaccount:default:x/system:serviceaccounts:default", "get", "configmaps", "default")


async def test_a_named_object_may_be_listed_and_watched_by_its_name(api: Roles) -> None:
    await api.role("one", on("-", "configmaps", "get list watch", "mine"))
    await api.bind("one", "User/jane", namespace="default")
    await api.admin("POST", CM, config_map("mine"))
    assert (await api.ask("jane", "GET", CM + "/mine"))[0] == 200
    assert (await api.ask("jane", "GET", CM))[0] == 403
    assert (await api.ask("jane", "GET", CM + "?fieldSelector=metadata.name%3Dmine"))[0] == 200
    assert (await api.ask("jane", "GET", CM + "?fieldSelector=metadata.name%3Dother"))[0] == 403


async def test_an_apply_that_creates_needs_create(api: Roles) -> None:
    await api.role("patcher", on("-", "configmaps", "patch"))
    await api.bind("patcher", "User/jane", namespace="default")
    where = CM + "/x?fieldManager=t"
    code, got = await api.ask("jane", "PATCH", where, config_map("x"), Content_Type="application/apply-patch+yaml")
    assert code == 403 and "cannot create resource" in got["message"]
    await api.admin("POST", CM, config_map("x"))
    code, got = await api.ask(
        "jane", "PATCH", where + "&force=1", config_map("x", a="b"), Content_Type="application/apply-patch+yaml"
    )
    assert (code, got["data"]) == (200, {"a": "b"})


async def test_nobody_grants_what_they_lack(api: Roles) -> None:
    rights = (on("rbac.authorization.k8s.io", "roles rolebindings", "create update"), on("-", "pods", "get"))
    await api.role("half-admin", *rights)
    await api.bind("half-admin", "User/jane", namespace="default")
    where = RBAC + "/namespaces/default"
    fine = {"metadata": {"name": "fine"}, "rules": [on("-", "pods", "get")]}
    assert (await api.ask("jane", "POST", where + "/roles", fine))[0] == 201
    code, got = await api.ask("jane", "PUT", where + "/roles/fine", {**fine, "rules": [on("-", "pods secrets", "get list")]})
    assert code == 403
    assert got["message"] == (
        'roles.rbac.authorization.k8s.io "fine" is forbidden: user "jane" (groups=["system:authenticated"]) is attempting '
        "to grant RBAC permissions not currently held:\n"
        '{APIGroups:[""], Resources:["pods"], Verbs:["list"]}\n'
        '{APIGroups:[""], Resources:["secrets"], Verbs:["get" "list"]}'
    )
    ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    binding: Any = {"metadata": {"name": "up"}, "roleRef": ref, "subjects": [{"kind": "User", "name": "jane"}]}
    code, got = await api.ask("jane", "POST", where + "/rolebindings", binding)
    assert code == 403 and '{NonResourceURLs:["*"], Verbs:["*"]}' in got["message"]
    await api.role("binder", on("rbac.authorization.k8s.io", "clusterroles", "bind", "cluster-admin"))
    await api.bind("binder", "User/jane", namespace="default")
    assert (await api.ask("jane", "POST", where + "/rolebindings", binding))[0] == 201
    assert await api.can("jane", "delete", "secrets", "default") and not await api.can(
        "jane", "delete", "secrets", "kube-system"
    )


async def test_impersonation_needs_its_right_and_leaves_both_names(api: Roles) -> None:
    code, got = await api.ask("jane", "GET", PODS, Impersonate_User="bob")
    message = (
        'users "bob" is forbidden: User "jane" cannot impersonate resource "users" in API group "" at the cluster scope'
    )
    assert (code, got["message"]) == (403, message)
    await api.role("actor", on("-", "users groups", "impersonate", "bob dev"))
    await api.bind("actor", "User/jane")
    await api.role("writer", on("-", "configmaps", "create"))
    await api.bind("writer", "Group/dev", namespace="default")
    assert (await api.ask("jane", "POST", CM, config_map(), Impersonate_User="bob"))[0] == 403
    code, got = await api.ask("jane", "POST", CM, config_map(), Impersonate_User="bob", Impersonate_Group="dev")
    assert code == 201
    assert api.storage.origins[int(got["metadata"]["resourceVersion"])].actor == "bob (by jane)"
    assert (await api.ask("jane", "GET", PODS, Impersonate_User="bob", Impersonate_Group="system:masters"))[0] == 403
    assert (await api.ask("jane", "GET", PODS, Impersonate_Group="dev"))[0] == 400


async def test_reviews(api: Roles) -> None:
    where = {"namespace": "default", "verb": "get", "resource": "pods"}
    who = {"user": "jane", "groups": ["dev"], "resourceAttributes": where}
    code, got = await api.ask("jane", "POST", REVIEWS + "/subjectaccessreviews", {"spec": who})
    assert code == 403  # asking about others is a right
    await api.bind("view", "Group/dev", namespace="default")
    for path in ("/subjectaccessreviews", "/namespaces/default/localsubjectaccessreviews"):
        status = (await api.admin("POST", REVIEWS + path, {"spec": who}))["status"]
        assert status["allowed"] and status["reason"].startswith('RBAC: allowed by RoleBinding "view-')
        assert status["reason"].endswith('/default" of ClusterRole "view" to Group "dev"')
    code, got = await api.ask("jane/dev", "POST", REVIEWS + "/selfsubjectrulesreviews", {"spec": {"namespace": "default"}})
    assert code == 201 and not got["status"]["incomplete"]
    assert any("pods" in r["resources"] and r["verbs"] == ["get", "list", "watch"] for r in got["status"]["resourceRules"])
    assert any("/version" in r["nonResourceURLs"] for r in got["status"]["nonResourceRules"])
    code, got = await api.ask("jane/dev", "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {})
    assert got["status"]["userInfo"] == {"username": "jane", "groups": ["dev", "system:authenticated"]}
    for bad in ({}, {"nonResourceAttributes": {"path": "/"}, "resourceAttributes": where}):
        code, got = await api.ask("jane", "POST", REVIEWS + "/selfsubjectaccessreviews", {"spec": bad})
        assert (code, got["reason"]) == (422, "Invalid")
    assert (await api.ask("root/system:masters", "GET", REVIEWS + "/selfsubjectaccessreviews"))[0] == 405


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/namespaces/default/roles", {"rules": [{"apiGroups": [""], "resources": ["pods"]}]}, "rules[0].verbs"),
        (
            "/namespaces/default/roles",
            {"rules": [{"nonResourceURLs": ["/x"], "verbs": ["get"]}]},
            "rules[0].nonResourceURLs",
        ),
        ("/clusterroles", {"rules": [{"resources": ["pods"], "verbs": ["get"]}]}, "rules[0].apiGroups"),
        ("/clusterroles", {"aggregationRule": {}}, "aggregationRule.clusterRoleSelectors"),
        ("/clusterrolebindings", {"roleRef": {"kind": "Role", "name": "x"}}, "roleRef.kind"),
        (
            "/clusterrolebindings",
            {"roleRef": {"kind": "ClusterRole", "name": "x"}, "subjects": [{"kind": "ServiceAccount", "name": "x"}]},
            "subjects[0].namespace",
        ),
    ],
)
async def test_what_is_no_role(api: Roles, path: str, body: Any, field: str) -> None:
    code, got = await api.ask("root/system:masters", "POST", RBAC + path, {"metadata": {"name": "x"}, **body})
    assert code == 422 and [c["field"] for c in got["details"]["causes"]] == [field]


async def test_a_binding_keeps_its_role(api: Roles) -> None:
    await api.bind("view", "User/jane", namespace="default")
    path = RBAC + "/namespaces/default/rolebindings"
    binding = (await api.admin("GET", path))["items"][0]
    binding["roleRef"]["name"] = "admin"
    code, got = await api.ask("root/system:masters", "PUT", f"{path}/{binding['metadata']['name']}", binding)
    assert code == 422 and got["details"]["causes"][0]["message"].endswith("cannot change roleRef")


def test_denials_are_counted_and_said_once_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    counted = denials.Denials(lambda: now)
    for _ in range(5):
        counted.tell("jane", "why")
    now = 61.0
    counted.tell("jane", "why")
    said = capsys.readouterr()
    assert counted.total == 6 and (said.out + said.err).count("request denied") == 2
