"""Roles and bindings with the real kubectl: what somebody may, what is refused and how, and what nobody can give away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from tests.contract.kube_served import Served, served

pytestmark = pytest.mark.contract


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path, rights=True) as found:
        yield found


async def test_a_role_gives_what_it_says_and_no_more(api: Served) -> None:
    ran = await api.run("auth", "can-i", "list", "configmaps", "--as", "jane")
    assert (ran.code, ran.out.strip()) == (1, "no"), ran.err
    ran = await api.run("get", "configmaps", "--as", "jane")
    assert ran.code == 1 and (
        'configmaps is forbidden: User "jane" cannot list resource "configmaps" in API group "" in the namespace "default"'
        in ran.err
    )
    await api.ok("create", "role", "reader", "--verb=get,list", "--resource=configmaps")
    await api.ok("create", "rolebinding", "readers", "--role=reader", "--user=jane", "--group=friends")
    for who in (("--as", "jane"), ("--as", "joe", "--as-group", "friends")):
        assert (await api.ok("auth", "can-i", "list", "configmaps", *who)).strip() == "yes"
        await api.ok("get", "configmaps", *who)
    for verb, namespace in (("delete", "default"), ("list", "kube-system")):
        ran = await api.run("auth", "can-i", verb, "configmaps", "--as", "jane", "-n", namespace)
        assert (ran.code, ran.out.strip()) == (1, "no"), verb
    listed = await api.ok("auth", "can-i", "--list", "--as", "jane")
    assert any(line.split()[:1] == ["configmaps"] and "[get list]" in line for line in listed.splitlines()), listed
    assert "jane" in await api.ok("auth", "whoami", "--as", "jane")
    await api.ok("delete", "rolebinding", "readers")
    assert (await api.run("get", "configmaps", "--as", "jane")).code == 1, "a right that is taken away ends at once"


async def test_nobody_gives_away_what_he_has_not(api: Served) -> None:
    await api.ok("create", "role", "roles", "--verb=get,create", "--resource=roles.rbac.authorization.k8s.io")
    await api.ok("create", "rolebinding", "roles", "--role=roles", "--user=jane")
    ran = await api.run("create", "role", "more", "--verb=get", "--resource=secrets", "--as", "jane")
    assert ran.code == 1 and "is attempting to grant RBAC permissions not currently held" in ran.err, ran.err
    await api.ok("create", "role", "same", "--verb=get", "--resource=roles.rbac.authorization.k8s.io", "--as", "jane")
    ran = await api.run("get", "secrets", "--as", "admin", "--as-group", "system:masters")
    assert ran.code == 0, ran.err
    ran = await api.run("get", "pods", "--as", "jane", "--as-group", "system:masters")
    assert ran.code == 0, "groups count as the user's own"


async def test_default_roles_are_there_and_reconcile_adds_what_is_missing(api: Served) -> None:
    names = (await api.ok("get", "clusterroles", "-o", "name")).split()
    for role in ("cluster-admin", "admin", "edit", "view"):
        assert f"clusterrole.rbac.authorization.k8s.io/{role}" in names
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "ours"},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
    }
    await api.ok("auth", "reconcile", "-f", "-", stdin=yaml.safe_dump(role))
    role["rules"] = [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]}]
    await api.ok("auth", "reconcile", "-f", "-", stdin=yaml.safe_dump(role))
    kept = yaml.safe_load(await api.ok("get", "clusterrole", "ours", "-o", "yaml"))["rules"]
    assert {r["resources"][0] for r in kept} == {"pods", "nodes"}, "reconciling adds, and takes nothing away"
