"""Fixtures of tests of v2 roots."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults import Healthy

import v2_roots
from buildkit_migrate.maintenance import compact


@pytest.fixture
def healthy(tmp_path: Path) -> Healthy:
    """The healthy root that the repository has."""
    return Healthy(v2_roots.healed(tmp_path))


@pytest.fixture(params=["checked-first", "written-early"])
def early(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large files are written while they are checked: here, all are."""
    if request.param == "written-early":
        monkeypatch.setattr(compact, "_EARLY_BYTES", 0)
        monkeypatch.setattr(compact, "_EARLY_FILL", 1.0)
