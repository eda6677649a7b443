"""The shipped type data is what its maker makes from the locked client today."""

from __future__ import annotations

import pytest

from ops import kube_data

pytestmark = pytest.mark.contract


def test_builtin_types_are_up_to_date() -> None:
    assert (kube_data.DATA / "builtin.json").read_text() == kube_data.text_of(kube_data.types())


def test_prose_is_left_out_but_not_fields_named_description() -> None:
    node = {"description": "prose", "properties": {"description": {"type": "string", "description": "prose"}}}
    assert kube_data.without_descriptions(node) == {"properties": {"description": {"type": "string"}}}
