"""Strategic merge patch, with the cases of its design document and of kubectl apply."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from bus.kube import typed
from bus.kube.errors import StatusError
from bus.kube.patches import strategic

TYPES = typed.types()


def node(kind: str) -> typed.Node:
    found = TYPES.of_kind(*kind.split(" "))
    assert found is not None
    return found


def patched(target: Any, patch: Any, kind: str = " v1 Pod") -> Any:
    before = copy.deepcopy((target, patch))
    got = strategic.apply(target, patch, node(kind), TYPES)
    assert (target, patch) == before
    return got


def containers(*specs: Any) -> dict[str, Any]:
    return {"spec": {"containers": list(specs)}}


A, B, C = {"name": "a", "image": "1"}, {"name": "b", "image": "2"}, {"name": "c", "image": "3"}


def test_containers_merge_by_name_and_new_ones_come_after() -> None:
    got = patched(containers(A, B), containers({"name": "b", "image": "9"}, C))
    assert got == containers(A, {"name": "b", "image": "9"}, C)


def test_delete_and_replace_directives() -> None:
    assert patched(containers(A, B), containers({"name": "a", "$patch": "delete"})) == containers(B)
    assert patched(containers(A, B), containers({"$patch": "replace"}, C)) == containers(C)
    assert patched({"spec": {"x": 1}, "b": 2}, {"spec": {"$patch": "replace", "y": 2}}) == {"spec": {"y": 2}, "b": 2}
    assert patched({"spec": {"x": 1}}, {"spec": {"$patch": "delete"}}) == {"spec": {}}
    assert patched({"spec": {"x": 1}}, {"spec": None}) == {}


def test_element_order_is_the_clients_where_it_says_so() -> None:
    order = {"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}], "containers": [C]}
    assert patched(containers(A, B), {"spec": order}) == containers(C, A, B)
    first = {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}
    assert patched(containers(A, B), {"spec": first}) == containers(B, A)


def test_what_the_server_added_keeps_its_neighbours() -> None:
    order = {"$setElementOrder/containers": [{"name": "b"}, {"name": "c"}], "containers": [C]}
    assert patched(containers(A, B), {"spec": order}) == containers(A, B, C)


def test_new_conditions_come_first() -> None:
    """As the real server answers (recorded)."""
    got = patched({"status": {"conditions": [{"type": "S"}]}}, {"status": {"conditions": [{"type": "R", "status": "True"}]}})
    assert [c["type"] for c in got["status"]["conditions"]] == ["R", "S"]


def test_primitive_lists_add_and_delete() -> None:
    meta = {"metadata": {"finalizers": ["a", "b"]}}
    assert patched(meta, {"metadata": {"finalizers": ["c", "a"]}})["metadata"]["finalizers"] == ["c", "a", "b"]
    got = patched(meta, {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}})
    assert got["metadata"]["finalizers"] == ["b"]
    got = patched(meta, {"metadata": {"$setElementOrder/finalizers": ["b", "x"], "finalizers": ["x"]}})
    assert got["metadata"]["finalizers"] == ["a", "b", "x"]


def test_atomic_lists_are_replaced() -> None:
    got = patched(containers({**A, "args": ["x", "y"]}), containers({"name": "a", "args": ["z"]}))
    assert got["spec"]["containers"][0]["args"] == ["z"]


def test_retain_keys_drops_the_other_volume_source() -> None:
    have = {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}
    patch = {"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "configMap"], "configMap": {"name": "c"}}]}}
    assert patched(have, patch) == {"spec": {"volumes": [{"name": "v", "configMap": {"name": "c"}}]}}
    strategy = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    change = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    assert patched(strategy, change, "apps v1 Deployment") == {"spec": {"strategy": {"type": "Recreate"}}}


def test_keys_differ_by_list() -> None:
    env = [{"name": "X", "value": "1"}]
    have = containers({**A, "env": env, "volumeMounts": [{"name": "v", "mountPath": "/a"}]})
    patch = containers(
        {"name": "a", "env": [{"name": "X", "value": "2"}], "volumeMounts": [{"name": "v", "mountPath": "/b"}]}
    )
    got = patched(have, patch)["spec"]["containers"][0]
    assert got["env"] == [{"name": "X", "value": "2"}] and {m["mountPath"] for m in got["volumeMounts"]} == {"/a", "/b"}
    ports = {"spec": {"ports": [{"port": 80, "name": "a"}]}}
    assert patched(ports, {"spec": {"ports": [{"port": 80, "name": "b"}]}}, " v1 Service")["spec"]["ports"] == [
        {"port": 80, "name": "b"}
    ]


def test_directives_never_end_up_in_the_object() -> None:
    deep = {"spec": {"template": {"$retainKeys": ["spec"], "spec": {"containers": [{"name": "n", "$patch": "merge"}]}}}}
    got = patched({}, deep, "apps v1 Deployment")
    assert got == {"spec": {"template": {"spec": {"containers": [{"name": "n"}]}}}}


@pytest.mark.parametrize(
    "patch",
    [
        [],
        {"spec": {"containers": [1]}},
        {"spec": {"containers": [{"image": "no key"}]}},
        {"spec": {"$patch": "explode"}},
        {"spec": {"$retainKeys": 1}},
        {"spec": {"$setElementOrder/containers": 1}},
        {"spec": {"$deleteFromPrimitiveList/x": {}}},
    ],
)
def test_nonsense_is_400(patch: Any) -> None:
    with pytest.raises(StatusError) as e:
        patched(containers(A), patch)
    assert e.value.code == 400


def test_a_list_of_fifty_thousand_elements_is_merged_in_linear_time() -> None:
    big = [{"name": f"c{i}", "image": "x"} for i in range(50_000)]
    got = patched(containers(*big), containers(*[{"name": c["name"], "image": "y"} for c in reversed(big)]))
    assert len(got["spec"]["containers"]) == 50_000 and got["spec"]["containers"][0]["image"] == "y"
