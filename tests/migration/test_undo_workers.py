"""Undo with several workers in one root: all are checked before any goes back."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import ondisk
import plain_bbolt
from buildkit_migrate.api import undo_root
from buildkit_migrate.errors import StorageError
from buildkit_migrate.migration import undo as undo_module
from fixtures import bucket, buckets
from ondisk import OnDisk
from plain_bbolt import BucketDict
from undoing import databases, set_value, undo


@pytest.fixture
def two(tmp_path: Path) -> list[OnDisk]:
    """Two workers in one root."""
    return ondisk.two_workers(tmp_path)


def test_all_workers_are_checked_before_any_is_undone(two: list[OnDisk]) -> None:
    two[0].migrate_here()
    after = [databases(root) for root in two]
    for root in two:
        set_value(root, b"cache.lastUsedAt")
    code, document = undo(two[0])
    assert code == 14
    assert len(document["error"]["reasons"]) == 2
    assert [databases(root) for root in two] == after
    two[0].kept.unlink()
    code, document = undo(two[0], "--force")
    assert code == 13
    assert [databases(root) for root in two] == after
    assert all(root.v2.exists() for root in two)
    code, document = undo(two[0], "--dry-run", "--force")
    assert code == 13
    assert [worker["exit_code"] for worker in document["workers"]] == [13, 14]


def test_error_names_the_workers_that_were_undone(two: list[OnDisk], monkeypatch: pytest.MonkeyPatch) -> None:
    before = [databases(root) for root in two]
    two[0].migrate_here()
    rename = undo_module.rename

    def failing(path: Path, target: Path) -> None:
        if path == two[0].v2:
            raise StorageError(f"{path}: I/O error")
        rename(path, target)

    monkeypatch.setattr(undo_module, "rename", failing)
    with pytest.raises(StorageError) as caught:
        undo_root(two[0].root)
    assert [report.worker for report in caught.value.reports] == [two[1].worker]
    monkeypatch.undo()
    undo_root(two[0].root)
    assert [databases(root) for root in two] == before


def test_two_workers_of_one_containerd_are_undone(tmp_path: Path) -> None:
    """Each replaced the same file: the last one is undone first, in the plan and in the run."""
    first = ondisk.sample_of_containerd(tmp_path)
    shutil.copytree(first.worker, first.root / "containerd-native")
    top = (b"v1", b"buildkit", b"snapshots")
    rows = bucket(ondisk.tree(first.containerd), *top, b"overlayfs")
    ondisk.edit(first.containerd, {b"v1": {b"buildkit": {b"snapshots": {b"native": rows}}}})
    backend = first.snapshots.parent.with_name("io.containerd.snapshotter.v1.native")
    shutil.copytree(first.snapshots.parent, backend)
    before = databases(first)
    first.migrate_here()
    code, document = undo(first, "--dry-run")
    assert code == 0
    assert [worker["database"] for worker in document["workers"]] == ["put-back", "put-back"]
    assert undo(first)[0] == 0
    assert databases(first) == before
    first.migrate_here()
    ondisk.edit(first.containerd, {b"v1": {b"k8s.io": {b"leases": {b"x": {b"createdat": b""}}}}})
    code, document = undo(first)
    assert (code, document["workers"][0]["database"]) == (0, "edit")
    tree = ondisk.tree(first.containerd)
    assert not bucket(tree, b"v1", b"buildkit", b"leases")
    assert b"x" in bucket(tree, b"v1", b"k8s.io", b"leases")
    assert labels_in(bucket(tree, *top)) == labels_in(bucket(plain_bbolt.load(before["meta.db"]), *top))


def labels_in(snapshots: BucketDict) -> dict[tuple[bytes, bytes], object]:
    """The labels of all snapshots."""
    return {
        (snapshotter, name): bucket(row, b"labels")
        for snapshotter, rows in buckets(snapshots).items()
        for name, row in buckets(rows).items()
    }
