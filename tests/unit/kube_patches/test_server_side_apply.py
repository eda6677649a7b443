"""Server-side apply: merging, ownership, conflicts, and what other writes do to ownership."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.kube import typed, upkeep
from bus.kube.errors import StatusError
from bus.kube.patches import apply as merging
from bus.kube.patches import fieldsets
from tests.unit.kube_registry.conftest import ME, Api, config_map, deployment


@pytest.fixture
async def api() -> Api:
    found = Api()
    await upkeep.bootstrap(found.rules, ME)
    return found


async def apply(
    api: Api, obj: dict[str, Any], manager: str, resource: str = "configmaps", group: str = "", **how: Any
) -> Any:
    return await api.patch(resource, obj["metadata"]["name"], obj, "apply", group, manager=manager, **how)


def owners(obj: Any) -> dict[str, Any]:
    return {e["manager"]: e["fieldsV1"] for e in obj["metadata"].get("managedFields", [])}


async def test_creates_merges_conflicts_and_forces(api: Api) -> None:
    one = await apply(api, config_map(a="1"), "one")
    assert one["data"] == {"a": "1"} and owners(one) == {"one": {"f:data": {"f:a": {}}}}
    with pytest.raises(StatusError) as e:
        await apply(api, config_map(a="2"), "two")
    assert (e.value.code, e.value.reason) == (409, "Conflict")
    assert e.value.details["causes"] == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "one"', "field": ".data.a"}
    ]
    forced = await apply(api, config_map(a="2", b="3"), "two", force=True)
    assert forced["data"] == {"a": "2", "b": "3"} and set(owners(forced)) == {"two"}


async def test_leaving_a_field_out_gives_it_up(api: Api) -> None:
    await apply(api, config_map(a="1", b="2"), "one")
    await apply(api, config_map(b="2"), "two")  # co-owner: the same value is no conflict
    got = await apply(api, config_map(), "one")
    assert got["data"] == {"b": "2"}
    assert "data" not in await apply(api, config_map(), "two")


async def test_the_same_again_writes_nothing(api: Api) -> None:
    first = await apply(api, deployment(replicas=2), "one", "deployments", "apps")
    api.clock.us += 60_000_000
    assert await apply(api, deployment(replicas=2), "one", "deployments", "apps") == first


async def test_lists_with_keys_are_shared(api: Api) -> None:
    base = deployment()
    await apply(api, base, "one", "deployments", "apps")
    side = {"name": "side", "image": "busybox:2"}
    more = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}}
    more["spec"] = {"template": {"spec": {"containers": [side]}}}  # type: ignore[assignment]
    got = await apply(api, more, "two", "deployments", "apps")
    assert [c["name"] for c in got["spec"]["template"]["spec"]["containers"]] == ["main", "side"]
    more["spec"] = {}  # type: ignore[assignment]
    got = await apply(api, more, "two", "deployments", "apps")
    assert [c["name"] for c in got["spec"]["template"]["spec"]["containers"]] == ["main"]


async def test_an_update_takes_what_it_changed(api: Api) -> None:
    await apply(api, deployment(replicas=2), "one", "deployments", "apps")
    scaled = await api.patch("deployments", "web", {"spec": {"replicas": 5}}, group="apps", manager="scaler")
    assert owners(scaled)["scaler"] == {"f:spec": {"f:replicas": {}}}
    with pytest.raises(StatusError) as e:
        await apply(api, deployment(replicas=2), "one", "deployments", "apps")
    assert e.value.details["causes"][0]["field"] == ".spec.replicas" and "scaler" in e.value.message
    kept = await apply(api, deployment(), "one", "deployments", "apps")  # gives replicas up
    assert kept["spec"]["replicas"] == 5


async def test_first_apply_on_an_object_that_nobody_applied(api: Api) -> None:
    await api.create("configmaps", config_map(a="1", b="2"))
    with pytest.raises(StatusError) as e:
        await apply(api, config_map(a="9"), "one")
    assert "before-first-apply" in e.value.message
    got = await apply(api, config_map(a="1", c="3"), "one")
    assert got["data"] == {"a": "1", "b": "2", "c": "3"} and set(owners(got)) == {"before-first-apply", "one"}


async def test_objects_that_nobody_applies_carry_no_ownership(api: Api) -> None:
    made = await api.create("configmaps", config_map(a="1"))
    changed = await api.update("configmaps", config_map(a="2"))
    assert "managedFields" not in made["metadata"] and "managedFields" not in changed["metadata"]


async def test_status_is_applied_apart(api: Api) -> None:
    await apply(api, deployment(), "one", "deployments", "apps")
    body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": 9}}
    body["status"] = {"replicas": 3}
    got = await api.patch("deployments", "web", body, "apply", "apps", "status", manager="ctl")
    assert got["status"] == {"replicas": 3} and got["spec"]["replicas"] == 1
    entry = next(e for e in got["metadata"]["managedFields"] if e["manager"] == "ctl")
    assert entry["subresource"] == "status" and entry["fieldsV1"] == {"f:status": {"f:replicas": {}}}


async def test_bad_applies(api: Api) -> None:
    own = config_map(a="1")
    own["metadata"]["managedFields"] = [{"manager": "x", "operation": "Apply"}]
    bad = ((own, 400), ([], 400), ({**config_map(), "kind": "Secret"}, 400), ({**config_map(), "nope": 1}, 500))
    for obj, code in bad:
        with pytest.raises(StatusError) as e:
            await api.patch("configmaps", "x", obj, "apply", manager="one")
        assert e.value.code == code
    stale = config_map(a="1")
    stale["metadata"]["resourceVersion"] = "1"
    await apply(api, stale, "one")  # nothing there to be of another revision
    with pytest.raises(StatusError) as e:
        await apply(api, stale, "one")
    assert e.value.code == 409


steps = st.sampled_from(["f:a", "f:b.c", 'k:{"name":"x"}', 'v:"y"', "v:1", "f:."])
paths = st.lists(steps, min_size=1, max_size=4).map(tuple)


@given(st.frozensets(paths, max_size=12))
def test_fields_v1_round_trip(fields: frozenset[tuple[str, ...]]) -> None:
    assert fieldsets.read(fieldsets.write(fields)) == fields


json_values = st.recursive(
    st.none() | st.booleans() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([".", "f:a", "k:x", "zz"]), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(json_values)
def test_any_fields_v1_can_be_read(raw: Any) -> None:
    fieldsets.read(raw)


PODS = typed.types().of_kind("", "v1", "Pod")


def test_every_owned_field_can_be_taken_away() -> None:
    pod = {
        "metadata": {"name": "p", "labels": {"a": "b"}, "finalizers": ["x/y"]},
        "spec": {"containers": [{"name": "c", "args": ["1"], "ports": [{"containerPort": 80}]}], "nodeSelector": {"k": "v"}},
    }
    fields = fieldsets.of(pod, PODS)
    assert ("f:spec", "f:nodeSelector") in fields and ("f:spec", "f:containers", 'k:{"name":"c"}') in fields
    assert ("f:spec", "f:containers", 'k:{"name":"c"}', "f:ports", 'k:{"containerPort":80,"protocol":"TCP"}') in fields
    for path in fields:
        left = fieldsets.of(fieldsets.without(pod, frozenset([path]), PODS), PODS)
        below = {f for f in fields if f[: len(path)] == path}
        element = path[:-1] if path[-1] in ("f:name", "f:containerPort") else path  # it has another key then
        below |= {f for f in fields if f[: len(element)] == element}
        assert path not in left and fields - left <= below


def test_the_order_of_lists_is_the_applier_s() -> None:
    order = [name for name, _ in merging._interleaved(["a", "b", "c", "d"], ["x", "d", "y", "b"])]
    assert order == ["a", "c", "x", "d", "y", "b"]
    assert [name for name, _ in merging._interleaved(["a", "b"], ["b", "c"])] == ["a", "b", "c"]
