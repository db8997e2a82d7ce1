"""A plan of all kinds of changes for a small root, made from what is still to be done; and a root for it.

Run as a program it is `faulty.py` with that plan: the same arguments.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import ondisk
from buildkit_migrate.bolt import Bucket
from buildkit_migrate.maintenance import repair_root
from buildkit_migrate.maintenance.check import check_stores
from buildkit_migrate.maintenance.mend import (
    Change,
    EditStore,
    MakeDirectory,
    MoveAside,
    RemoveDirectory,
    RepairClass,
    RewriteStore,
    WriteFile,
)
from buildkit_migrate.maintenance.repair import RepairPlan, _in_order
from buildkit_migrate.workspace.stores import Store, Stores
from dicts import file_of
from ondisk import OnDisk
from planting import break_free_list, edit, grow

STRAY = b"cache-dir:x::nothing"
NAMESPACE = (b"v1", b"buildkit")


def planted(directory: Path) -> OnDisk:
    """A root in which there is something to do of every kind."""
    root = ondisk.sample(directory)
    root.migrate_here()
    edit(root.v2, {b"_index": {STRAY: b""}})
    edit(root.containerd, {b"v1": {b"buildkit": {b"leases": {b"orphan": {b"createdat": b""}}}}})
    (root.worker / "workerid").write_text("wrong")
    (root.root / "cache.db").write_bytes(file_of({b"damaged": {}}))
    (root.root / "history.db").write_bytes(file_of({b"_records": {}}))
    grow(root.root / "history.db", 3)
    break_free_list(root.root / "history.db")
    left = root.worker / "executor" / "left" / "rootfs"
    left.mkdir(parents=True)
    (left / "file").write_text("content")
    (root.worker / "snapshots" / "snapshots" / "1" / "fs").mkdir(parents=True)
    return root


def changes(stores: Stores) -> Iterator[Change]:
    """What is still to be done in such a root."""
    (worker,) = stores.workers
    records, containerd, snapshots = map(_bucket, worker.stores)
    if records.bucket(b"_index").get(STRAY) is not None:  # type: ignore[union-attr]
        yield EditStore(worker.records, {b"_index": {STRAY: None}}, sequences={(b"_main",): 7})
    leases = containerd.bucket(*NAMESPACE, b"leases")
    assert leases is not None
    if leases.bucket(b"added") is None:
        yield EditStore(worker.containerd, _lease(b"added", {b"createdat": b"now"}))
    if leases.bucket(b"orphan") is not None:
        yield EditStore(worker.containerd, _lease(b"orphan", None), last=True)
    if snapshots.bucket(b"v1", b"snapshots").sequence < 9000:  # type: ignore[union-attr]
        yield EditStore(worker.snapshots, {}, sequences={(b"v1", b"snapshots"): 9000})
    if stores.cache.root is not None:
        assert stores.cache.path is not None
        yield MoveAside(stores.cache.path)
    history = stores.histories[0]
    if history.database is not None and history.database.size > 3 * 4096 + 4096:
        yield RewriteStore(history)
    assert worker.records.path is not None
    if (worker.path / "workerid").read_text() != "right":
        yield WriteFile(worker.path / "workerid", b"right", like=worker.records.path)
    if not (worker.path / "made").exists():
        yield WriteFile(worker.path / "made", b"content", like=worker.records.path)
    directory = worker.path / "snapshots" / "snapshots" / "1"
    if not (directory / "work").exists():
        yield MakeDirectory(directory / "work", like=directory / "fs")
    if (worker.path / "executor" / "left").exists():
        yield RemoveDirectory(worker.path / "executor" / "left")


def _bucket(store: Store) -> Bucket:
    assert store.root is not None
    return store.root


def _lease(id: bytes, lease: Any) -> Any:
    return {b"v1": {b"buildkit": {b"leases": {id: lease}}}}


def plan_of(stores: Stores, wanted: Callable[[Stores], Iterator[Change]]) -> RepairPlan:
    """A plan that makes these changes, in the order of all plans."""
    checked = check_stores(stores, rules=())
    return RepairPlan(
        checked,
        frozenset({RepairClass.PROTECT}),
        (),
        (),
        tuple(_in_order(wanted(stores), stores)),
    )


def plan_all(stores: Stores, *_arguments: Any, **_options: Any) -> RepairPlan:
    return plan_of(stores, changes)


if __name__ == "__main__":
    import faulty

    repair_root.plan_repair = plan_all  # type: ignore[assignment]
    sys.exit(faulty.main())
