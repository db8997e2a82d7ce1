"""C37: leases that list what is not there."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults import Healthy, found
from record_faults import Planter

NOTHING = b"sha256:" + b"0" * 64


@pytest.fixture
def plant(tmp_path: Path) -> Planter:
    return Planter(tmp_path)


@pytest.fixture
def healthy(plant: Planter) -> Healthy:
    return Healthy(plant.root)


def test_a_lease_lists_what_is_not_there(plant: Planter, healthy: Healthy) -> None:
    blobs, snapshots = plant.tops[:2]
    variants = next(id for id in plant.layers if id + b"-variants" in healthy.leases) + b"-variants"
    for lease in (blobs, variants):
        healthy.lease(lease, {b"content": {NOTHING: b""}})
    healthy.lease(snapshots, {b"snapshots": {healthy.snapshotter: {b"nobody": b""}}})
    assert found(plant.root) == {("C37", "H", id.decode()) for id in (blobs, snapshots, variants)}


def test_leases_of_others_may_list_anything(plant: Planter, healthy: Healthy) -> None:
    healthy.lease(b"0" * 25, {b"content": {NOTHING: b""}})
    assert "C37" not in {rule for rule, _, _ in found(plant.root)}


def test_what_a_record_names_may_be_missing(plant: Planter, healthy: Healthy) -> None:
    id = plant.tops[0]
    digest = plant.get(id, b"cache.blob").encode()
    healthy.blob(digest, None)
    assert "C37" not in {rule for rule, _, _ in found(plant.root)}
