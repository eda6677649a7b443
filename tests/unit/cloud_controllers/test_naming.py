"""Two controllers that find the same pods missing make the same pods."""

from __future__ import annotations

from cloud.core.writes import Write
from cloud.standalone import naming
from schemas.subjects import ObjectKey


def create(uid: str = "u1", prefix: str = "web-") -> Write:
    owner = {"uid": uid, "controller": True}
    return Write(
        "create", ObjectKey("", "pods", "default", ""), {"metadata": {"generateName": prefix, "ownerReferences": [owner]}}
    )


def names(writes: list[Write], there: set[str]) -> list[str]:
    return [w.key.name for w in naming.fixed(writes, lambda k: k.name in there)]


def test_the_same_state_gives_the_same_names_and_what_is_there_is_not_named_again() -> None:
    first = names([create(), create(), create()], set())
    assert len(set(first)) == 3 and all(n.startswith("web-") and len(n) == 9 for n in first)
    assert names([create()] * 3, set()) == first
    assert names([create()] * 2, {first[1]}) == [first[0], first[2]]
    # one who knows less can only make what is there already
    assert set(names([create()] * 2, {first[0]})) <= set(first)


def test_owners_don_t_share_names_and_others_are_left_alone() -> None:
    assert not set(names([create("u1")] * 50, set())) & set(names([create("u2")] * 50, set()))
    ours = create()
    assert ours.object is not None
    free = Write("create", ours.key, {"metadata": {"generateName": "x-"}})
    named = Write("create", ObjectKey("", "pods", "default", "x"), {"metadata": {"name": "x"}})
    update = Write("update", ObjectKey("", "pods", "default", "x"), {"metadata": {"name": "x"}})
    assert list(naming.fixed([free, named, update], lambda _: False)) == [free, named, update]
    [made] = naming.fixed([ours], lambda _: False)
    assert made.object is not None and made.object["metadata"]["name"] == made.key.name
    assert "name" not in ours.object["metadata"], "the plan is not changed"
