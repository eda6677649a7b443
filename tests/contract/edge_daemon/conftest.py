from __future__ import annotations

from collections.abc import Iterator

import pytest

from ops.lab import setting
from ops.lab.nodes import Lab, started


@pytest.fixture(scope="package")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One hub and one cloud for all of these tests: each test leaves them well."""
    found = started(tmp_path_factory.mktemp("daemons"))
    try:
        yield found
    finally:
        setting.down(found)


@pytest.fixture(scope="package")
def node(lab: Lab) -> str:
    """A node with two pods, a and b, which every test leaves running and in sync."""
    name = lab.join("rock")
    lab.start_daemon(name)
    lab.ready(name)
    for pod in ("a", "b"):
        lab.pod(name, pod)
    for pod in ("a", "b"):
        lab.runs(name, pod)
    return name
