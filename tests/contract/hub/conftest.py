from __future__ import annotations

from tests.contract.hub_fixture import hub

__all__ = ["hub"]
