"""What create and update do with metadata."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from bus.kube.storage import Unavailable
from tests.unit.kube_registry.conftest import Api, config_map, deployment, pod


async def test_create_fills_in_the_servers_part(api: Api) -> None:
    sent = config_map(a="1")
    sent["metadata"] |= {"uid": "mine", "creationTimestamp": "2001-01-01T00:00:00Z", "selfLink": "/x", "generation": 7}
    got = await api.create("configmaps", sent)
    meta = got["metadata"]
    assert meta["uid"] != "mine" and meta["creationTimestamp"] == "2026-09-21T14:13:20Z"
    assert meta["resourceVersion"] == str(api.storage.revision()) and meta["namespace"] == "default"
    assert "generation" not in meta and "selfLink" not in meta
    assert got == await api.get("configmaps", "x")
    stored = api.storage.list("", "configmaps")[0]
    assert "resourceVersion" not in stored.object["metadata"]


async def test_returned_objects_are_copies(api: Api) -> None:
    got = await api.create("configmaps", config_map(a="1"))
    got["data"]["a"] = "changed"
    assert (await api.get("configmaps", "x"))["data"] == {"a": "1"}


async def test_generate_name_survives_a_collision(api: Api) -> None:
    obj: dict[str, Any] = config_map()
    obj["metadata"] = {"generateName": "gen-"}
    first = await api.create("configmaps", obj)
    api._count -= 2  # the same suffix comes out again
    second = await api.create("configmaps", obj)
    names = {first["metadata"]["name"], second["metadata"]["name"]}
    assert len(names) == 2 and all(n.startswith("gen-") and len(n) == 9 for n in names)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "Bad_Name"}, "metadata.name"),
        ({"name": ""}, "metadata.name"),
        ({"name": "x" * 254}, "metadata.name"),
        ({"labels": {"a b": "c"}}, "metadata.labels"),
        ({"labels": {"a": "-"}}, "metadata.labels"),
        ({"annotations": {"/x": ""}}, "metadata.annotations"),
        ({"annotations": {"a": "x" * 300_000}}, "metadata.annotations"),
        ({"finalizers": ["nope"]}, "metadata.finalizers"),
        ({"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "a"}]}, "metadata.ownerReferences[0].uid"),
    ],
)
async def test_bad_metadata_is_422_and_nothing_is_stored(api: Api, refused: Any, change: dict[str, Any], field: str) -> None:
    obj = config_map()
    obj["metadata"] |= change
    before = api.storage.revision()
    error = await refused(api.create("configmaps", obj), 422, "Invalid")
    assert error.details["causes"][0]["field"] == field
    assert api.storage.revision() == before


async def test_two_controllers_are_one_too_many(api: Api, refused: Any) -> None:
    obj = config_map()
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "a", "controller": True}
    obj["metadata"]["ownerReferences"] = [{**owner, "uid": "1"}, {**owner, "uid": "2"}]
    error = await refused(api.create("configmaps", obj), 422, "Invalid")
    assert "Only one reference" in error.message


async def test_kind_version_namespace_must_fit(api: Api, refused: Any) -> None:
    await refused(api.create("configmaps", {**config_map(), "kind": "Secret"}), 400, "BadRequest")
    await refused(api.create("configmaps", {**config_map(), "apiVersion": "v2"}), 400, "BadRequest")
    other = config_map()
    other["metadata"]["namespace"] = "elsewhere"
    await refused(api.create("configmaps", other), 400, "BadRequest")
    versioned = config_map()
    versioned["metadata"]["resourceVersion"] = "5"
    await refused(api.create("configmaps", versioned), 400, "BadRequest")
    await refused(api.create("configmaps", config_map(), namespace="nowhere"), 404, "NotFound")
    await refused(api.create("nonsense", config_map()), 404, "NotFound")


async def test_update_keeps_what_it_may_not_change(api: Api) -> None:
    made = await api.create("configmaps", config_map(a="1"))
    api.clock.us += 60_000_000
    sent = config_map(a="2")
    sent["metadata"] |= {"creationTimestamp": "2001-01-01T00:00:00Z", "deletionTimestamp": "2001-01-01T00:00:00Z"}
    got = await api.update("configmaps", sent)
    assert got["data"] == {"a": "2"} and got["metadata"]["uid"] == made["metadata"]["uid"]
    assert got["metadata"]["creationTimestamp"] == made["metadata"]["creationTimestamp"]
    assert "deletionTimestamp" not in got["metadata"]
    assert int(got["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])


async def test_unchanged_update_writes_nothing(api: Api) -> None:
    made = await api.create("configmaps", config_map(a="1"))
    assert await api.update("configmaps", config_map(a="1")) == made
    assert await api.patch("configmaps", "x", {"data": {"a": "1"}}) == made
    assert api.storage.revision() == int(made["metadata"]["resourceVersion"])


async def test_stale_revision_conflicts(api: Api, refused: Any) -> None:
    old = await api.create("configmaps", config_map(a="1"))
    await api.update("configmaps", config_map(a="2"))
    stale = copy.deepcopy(old)
    stale["data"] = {"a": "3"}
    error = await refused(api.update("configmaps", stale), 409, "Conflict")
    assert error.details == {"name": "x", "kind": "configmaps"}
    patch = {"metadata": {"resourceVersion": old["metadata"]["resourceVersion"]}, "data": {"a": "3"}}
    await refused(api.patch("configmaps", "x", patch), 409, "Conflict")
    assert (await api.get("configmaps", "x"))["data"] == {"a": "2"}


async def test_uid_of_another_object_conflicts(api: Api, refused: Any) -> None:
    await api.create("configmaps", config_map(a="1"))
    sent = config_map(a="2")
    sent["metadata"]["uid"] = "00000000-0000-0000-0000-000000000000"
    await refused(api.update("configmaps", sent), 409, "Conflict")


async def test_generation_counts_specification_only(api: Api) -> None:
    made = await api.create("deployments", deployment(replicas=1), "apps")
    assert made["metadata"]["generation"] == 1
    labelled = await api.patch("deployments", "web", {"metadata": {"labels": {"a": "b"}}}, group="apps")
    assert labelled["metadata"]["generation"] == 1
    observed = {"status": {"observedGeneration": 1, "replicas": 1}}
    status = await api.patch("deployments", "web", observed, group="apps", sub="status")
    assert status["metadata"]["generation"] == 1 and status["status"]["replicas"] == 1
    scaled = await api.patch("deployments", "web", {"spec": {"replicas": 2}}, group="apps")
    assert scaled["metadata"]["generation"] == 2 and scaled["status"]["replicas"] == 1


async def test_dry_run_says_everything_and_stores_nothing(api: Api, refused: Any) -> None:
    before = api.storage.revision()
    got = await api.create("configmaps", config_map(a="1"), dry_run=True)
    assert got["metadata"]["uid"] and api.storage.revision() == before
    await api.create("configmaps", config_map(a="1"))
    assert (await api.update("configmaps", config_map(a="2"), dry_run=True))["data"] == {"a": "2"}
    assert (await api.get("configmaps", "x"))["data"] == {"a": "1"}
    await refused(api.create("configmaps", config_map(), dry_run=True), 409, "AlreadyExists")


async def test_a_log_that_is_away_is_503_and_nothing_changed(api: Api, refused: Any) -> None:
    api.storage.fail_next = Unavailable("cut")
    await refused(api.create("configmaps", config_map()), 503, "ServiceUnavailable")
    await api.create("configmaps", config_map(a="1"))
    api.storage.fail_next = Unavailable("cut")
    await refused(api.update("configmaps", config_map(a="2")), 503, "ServiceUnavailable")
    api.storage.fail_next = Unavailable("cut")
    await refused(api.delete("configmaps", "x"), 503, "ServiceUnavailable")
    assert (await api.get("configmaps", "x"))["data"] == {"a": "1"}


async def test_what_does_not_fit_in_an_event_is_413(api: Api, refused: Any) -> None:
    await refused(
        api.create("pods", pod(nodeSelector={f"k{i}": "v" * 60 for i in range(20_000)})), 413, "RequestEntityTooLarge"
    )


async def test_a_patch_wins_against_another_writer_without_a_conflict(api: Api) -> None:
    await api.create("configmaps", config_map(a="1"))
    replace = api.storage.replace
    raced = []

    async def slow(*args: Any) -> Any:
        if not raced:
            raced.append(True)
            await api.update("configmaps", config_map(b="2"))  # somebody is faster, once
        return await replace(*args)

    api.storage.replace = slow  # type: ignore[method-assign]
    got = await api.patch("configmaps", "x", {"data": {"c": "3"}})
    assert got["data"] == {"b": "2", "c": "3"}


async def test_origin_reaches_the_storage(api: Api) -> None:
    got = await api.create("configmaps", config_map())
    assert api.storage.origins[int(got["metadata"]["resourceVersion"])].actor == "tester"


async def test_unknown_fields_are_dropped_warned_of_or_refused(api: Api, refused: Any) -> None:
    typo = {**config_map(a="1"), "dataa": {"x": "y"}}
    error = await refused(api.create("configmaps", typo, validation="Strict"), 400, "BadRequest")
    assert 'strict decoding error: unknown field "dataa"' in error.message
    warnings: list[str] = []
    got = await api.create("configmaps", typo, validation="Warn", warnings=warnings)
    assert warnings == ['unknown field "dataa"'] and "dataa" not in got


async def test_wrong_types_are_400(api: Api, refused: Any) -> None:
    await refused(api.create("configmaps", {**config_map(), "data": {"a": 1}}), 400, "BadRequest")
    await refused(api.create("configmaps", {**config_map(), "metadata": "x"}), 400, "BadRequest")
    await refused(api.create("pods", pod(containers={})), 400, "BadRequest")
    await refused(api.create("pods", pod(terminationGracePeriodSeconds=True)), 400, "BadRequest")
    await refused(api.create("configmaps", ["not", "an", "object"]), 400, "BadRequest")
