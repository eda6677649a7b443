"""Any event, and any text that may stand in a subject."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from schemas import codec, event

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
long_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=340)
names = st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789.-", min_size=1, max_size=253)
unsigned = st.integers(0, (1 << 63) - 1)
ids = st.builds(event.uuid7, st.integers(0, 1 << 57), st.binary(min_size=10, max_size=10))
leaves: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.floats(allow_nan=False),
    texts,
    st.binary(max_size=40),
)
values: st.SearchStrategy[Any] = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4), max_leaves=20
)
types = st.sampled_from([event.OBJECT_APPLIED, event.OBJECT_DELETED, event.REPORT, "audit.join", "identity.node"])

events = st.builds(
    event.Event,
    id=ids,
    type=types,
    scope=long_texts,
    group=texts,
    resource=texts,
    namespace=texts,
    name=long_texts,
    uid=texts,
    rev=unsigned,
    time=unsigned,
    mono=st.none() | unsigned,
    boot=st.none() | texts,
    source=texts,
    actor=texts,
    cause=st.none() | ids,
    trace=ids,
    prev=st.none() | unsigned,
    data=st.none() | st.dictionaries(texts, values, max_size=5),
)

assert codec.DEPTH_MAX > 20  # what `values` may reach
