"""JSON merge patch against the words of RFC 7386, JSON patch against hostile ones."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.kube.errors import StatusError
from bus.kube.patches import jsonpatch, merge

values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=12,
)


def rfc7386(target: Any, patch: Any) -> Any:
    """MergePatch of section 2, letter by letter."""
    if isinstance(patch, dict):
        if not isinstance(target, dict):
            target = {}
        for name, value in patch.items():
            if value is None:
                if name in target:
                    del target[name]
            else:
                target[name] = rfc7386(target.get(name), value)
        return target
    return patch


@given(values, values)
def test_merge_is_rfc7386_and_changes_neither(target: Any, patch: Any) -> None:
    before = copy.deepcopy((target, patch))
    assert merge.apply(target, patch) == rfc7386(copy.deepcopy(target), copy.deepcopy(patch))
    assert (target, patch) == before


@given(values, values)
def test_merge_twice_is_merge_once(target: Any, patch: Any) -> None:
    once = merge.apply(target, patch)
    assert merge.apply(once, patch) == once


DOC = {"metadata": {"name": "x"}, "data": {"a": "1", "b": "2"}, "list": [1, 2]}


def patched(*ops: dict[str, Any]) -> Any:
    return jsonpatch.apply(DOC, list(ops))


def test_json_patch_operations() -> None:
    got = patched(
        {"op": "test", "path": "/data/a", "value": "1"},
        {"op": "replace", "path": "/data/a", "value": "5"},
        {"op": "remove", "path": "/data/b"},
        {"op": "add", "path": "/list/-", "value": 3},
        {"op": "copy", "from": "/data/a", "path": "/data/c~1d"},
        {"op": "move", "from": "/list/0", "path": "/data/e"},
    )
    assert got["data"] == {"a": "5", "c/d": "5", "e": 1} and got["list"] == [2, 3]
    assert DOC["data"] == {"a": "1", "b": "2"}


@pytest.mark.parametrize(
    "patch",
    [{"not": "a list"}, "x", [1], [{"op": 1, "path": "/a"}], [{"op": "add", "path": []}], [{"op": "copy", "from": {}}]],
)
def test_what_is_no_json_patch_is_400(patch: Any) -> None:
    with pytest.raises(StatusError) as e:
        jsonpatch.apply(DOC, patch)
    assert e.value.code == 400


@pytest.mark.parametrize(
    "op",
    [
        {"op": "test", "path": "/data/a", "value": "no"},
        {"op": "remove", "path": "/nope"},
        {"op": "replace", "path": "/data/x/y", "value": 1},
        {"op": "add", "path": "/list/9", "value": 1},
        {"op": "add", "path": "no-slash", "value": 1},
        {"op": "copy", "from": "/nope/deeper", "path": "/x"},
        {"op": "copy", "path": "/x"},
        {"op": "move", "from": None, "path": "/x"},
        {"op": "move", "from": "/nope", "path": "/x"},
        {"op": "add"},
        {"path": "/a"},
        {"op": None, "path": None},
        {"op": "frob", "path": "/a"},
        {"op": "test", "path": "/data/a"},
        {"op": "replace", "path": "", "value": []},
        {"op": "add", "path": "", "value": {}},
        {"op": "remove", "path": "/list/-4"},
        {"op": "remove", "path": "/list/x"},
        {"op": "add", "path": "/data/a/b", "value": 1},
    ],
)
def test_what_can_not_be_applied_is_422(op: dict[str, Any]) -> None:
    with pytest.raises(StatusError) as e:
        patched(op)
    assert (e.value.code, e.value.reason) == (422, "Invalid")


def test_what_the_real_server_takes_beyond_the_standard() -> None:
    got = patched(
        {"op": "replace", "path": "/data/new", "value": "1"},
        {"op": "test", "path": "/data/none"},
        {"op": "test", "path": "/data/none", "value": None},
        {"op": "add", "path": "/data/null"},
        {"op": "copy", "from": "/data/none", "path": "/data/copied"},
        {"op": "remove", "path": "/list/-1"},
        {"op": "replace", "path": "/list/-1", "value": 9},
        {"op": "add", "path": "/list/-1", "value": 8},
    )
    assert got["data"] == {"a": "1", "b": "2", "new": "1", "null": None, "copied": None}
    assert got["list"] == [9, 8]
    assert jsonpatch.apply(DOC, None) == DOC


def test_copies_can_not_double_for_ever() -> None:
    ops = [{"op": "copy", "from": "", "path": f"/k{i}"} for i in range(60)]
    with pytest.raises(StatusError) as e:
        patched(*ops)
    assert e.value.code == 413


def test_ten_thousand_operations_are_the_limit() -> None:
    with pytest.raises(StatusError) as e:
        patched(*[{"op": "test", "path": "/data/a", "value": "1"}] * 10_001)
    assert e.value.code == 413


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "op": st.sampled_from(["add", "remove", "replace", "test", "copy", "move"]),
                "path": st.sampled_from(["", "/", "/data", "/data/a", "/list/0", "/list/-", "/x/y", "a"]),
            },
            optional={"value": values, "from": st.sampled_from(["", "/data", "/list/0", "/q"])},
        ),
        max_size=5,
    )
)
def test_any_patch_applies_or_is_refused(ops: list[dict[str, Any]]) -> None:
    before = json.dumps(DOC)
    codes = []
    try:
        jsonpatch.apply(DOC, ops)
    except StatusError as e:
        codes.append(e.code)
    assert set(codes) <= {400, 413, 422}
    assert json.dumps(DOC) == before
