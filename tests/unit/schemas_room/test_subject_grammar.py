"""Names become tokens and come back, for every text; a token that can't have been made is refused."""

import contextlib
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas import subjects
from tests.unit.schemas_room.strategies import long_texts, names, texts

TOKEN = re.compile(r"[A-Za-z0-9\-:=@+~_%]+")
keys = st.builds(subjects.ObjectKey, group=texts, resource=texts, namespace=texts, name=texts)
shard_counts = st.integers(1, 64)


@given(st.text(max_size=340))
@example("")
@example("-")
@example("core")
@example("a.b_c%d*>e f\n\x00$")
def test_every_text_is_one_token_and_comes_back(text: str) -> None:
    try:
        token = subjects.escape(text)
    except subjects.SubjectError:
        assert len(text.encode("utf-8", "surrogatepass")) * 3 > subjects.TOKEN_BYTES_MAX or any(
            0xD800 <= ord(c) < 0xE000 for c in text
        )
        return
    assert TOKEN.fullmatch(token)
    assert subjects.unescape(token) == text


@given(names)
def test_names_of_kubernetes_stay_readable(name: str) -> None:
    if name != "-":
        assert subjects.escape(name) == name.replace(".", "_")


@given(st.text(alphabet="abC.-_%0159FfEe~$*> é", max_size=30))
@example("%41")
@example("%2d")
@example("%FF")
@example("%2E")
@example("a\n")
@example("x" * 1025)
def test_a_token_is_canonical_or_refused(token: str) -> None:
    for un, to in ((subjects.unescape, subjects.escape), (subjects.unescape_group, subjects.escape_group)):
        try:
            text = un(token)
        except subjects.SubjectError:
            continue
        assert to(text) == token


@given(st.lists(texts, min_size=2, max_size=2, unique=True))
def test_two_texts_never_share_a_token(two: list[str]) -> None:
    assert subjects.escape(two[0]) != subjects.escape(two[1])
    assert subjects.escape_group(two[0]) != subjects.escape_group(two[1])


@given(keys, long_texts, shard_counts)
def test_object_subjects_come_back(key: subjects.ObjectKey, scope: str, shards: int) -> None:
    try:
        subject = subjects.meta(scope, key, shards)
    except subjects.SubjectError:
        return  # too long a name
    assert subjects.parse_cluster(subjects.cluster(key)) == key
    assert subjects.parse_meta(subject) == (subjects.shard_of(scope, shards), scope, key)
    assert subjects.parse_meta_scope(subject) == scope
    assert subject.startswith(subjects.meta_scope(scope, shards).removesuffix(">"))
    assert subjects.parse_live(f"{subjects.live_scope(scope).removesuffix('>')}{key.tokens()}") == (scope, key)
    assert subjects.stream_of(subject) == f"META-{subjects.shard_of(scope, shards)}"


@given(texts, texts, texts, texts, shard_counts)
def test_report_subjects_come_back(node: str, kind: str, namespace: str, name: str, shards: int) -> None:
    shard = subjects.shard_of(node, shards)
    whole = subjects.report(node, kind, shards, namespace, name)
    assert subjects.parse_report(whole) == subjects.ReportAddress(shard, node, kind, namespace, name)
    alone = subjects.report(node, kind, shards)
    assert subjects.parse_report(alone) == subjects.ReportAddress(shard, node, kind, "", "")
    assert whole.startswith(subjects.report_node(node, shards).removesuffix(">"))


@given(texts, names, names, texts)
def test_telemetry_subjects_come_back(node: str, namespace: str, device: str, prop: str) -> None:
    assert subjects.parse_telemetry(subjects.telemetry(node, namespace, device, prop)) == (node, namespace, device, prop)


def test_a_device_has_one_token() -> None:
    assert subjects.device_token("default", "pump") == "pump"
    assert subjects.parse_device_token("plant%2Fpump") == ("plant", "pump")
    for token in ("default%2Fpump", "a%2Fb%2Fc", "%2Fpump", "-"):
        with pytest.raises(subjects.SubjectError):
            subjects.parse_device_token(token)
    with pytest.raises(subjects.SubjectError):
        subjects.device_token("default", "a/b")


@given(st.text(alphabet="clustermeavpor.-_0123456789%*> x", max_size=60))
@example("cluster.core.pods.default")
@example("meta.01.a.core.pods.default.x")
@example("meta.1.a.core.pods.default.x.y")
@example("report.0.edge-1.pod.default")
@example("live..core.pods.default.x")
def test_any_text_parses_or_raises_our_error(subject: str) -> None:
    for parse in (
        subjects.parse_cluster,
        subjects.parse_meta,
        subjects.parse_live,
        subjects.parse_report,
        subjects.parse_telemetry,
        subjects.stream_of,
    ):
        with contextlib.suppress(subjects.SubjectError):
            parse(subject)


def test_shards_are_stable_for_ever() -> None:
    """crc32, as promised to integrators: a change here would lose every node's slice."""
    assert [subjects.shard_of(s, 4) for s in ("edge-1", "edge-2", "all", "Köln")] == [3, 1, 1, 3]
