"""One cluster and one log a test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.bridge import worlds
from tests.contract.kube_served import served


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[worlds.World]:
    async with served(tmp_path) as cluster, worlds.world(cluster, tmp_path) as made:
        yield made
