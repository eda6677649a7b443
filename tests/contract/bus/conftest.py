from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.bus import plain


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[plain.PlainServer]:
    s = plain.PlainServer(tmp_path / "jetstream")
    await s.start()
    yield s
    s.kill()
