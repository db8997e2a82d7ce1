"""The repair of a migration of the history that was cut off (C58)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from buildkit_migrate.bolt import Bucket
from buildkit_migrate.bolt.edits import Edits
from buildkit_migrate.maintenance.facts import Facts, WorkerFacts
from buildkit_migrate.maintenance.mend import EditStore, Mend, Repair, RepairClass, root_repair
from buildkit_migrate.maintenance.rule import Part
from buildkit_migrate.maintenance.rules.history import cut_migrations
from buildkit_migrate.maintenance.rules.wording import path_of, subject
from buildkit_migrate.schema.containerd import Namespace

__all__ = ["REPAIRS"]

_REFERENCE: Final = b"containerd.io/gc.ref.content"
_CONTENT: Final = b"content"


@root_repair("C58", needs=(Part.HISTORY, Part.CONTAINERD))
def migrations(facts: Facts) -> Iterator[Mend]:
    """The new lease of a build lists what the old one does, which is deleted then: a start does the rest."""
    for worker, ref in cut_migrations(facts):
        main, history = worker.namespace, worker.history_namespace
        assert main is not None and history is not None
        id, store = b"ref_" + ref, worker.stores.containerd
        digests = _listed(main, id)
        if digests is None:
            continue
        missing = _copied(worker, main, history, digests)
        added: dict[bytes, Edits] = {b"leases": {id: {_CONTENT: dict.fromkeys(digests, b"")}}}
        if missing:
            added[_CONTENT] = {b"blob": missing}
        yield Mend(
            "C58",
            RepairClass.PROTECT,
            path_of(store),
            subject(ref),
            "adds what the old lease lists to the new one, and deletes the old one",
            (
                EditStore(store, {b"v1": {history.name: added}}),
                EditStore(store, {b"v1": {main.name: {b"leases": {id: None}}}}, last=True),
            ),
        )


def _listed(main: Namespace, id: bytes) -> list[bytes] | None:
    """The digests that the old lease lists; None if it lists anything else, which no daemon moves."""
    leases = main.leases
    lease = leases.bucket.bucket(id) if leases.bucket is not None else None
    if lease is None or any(
        next(_items(lease.bucket(it)), None) for it in (b"snapshots", b"images", b"ingests")
    ):
        return None
    return [digest for digest, _ in _items(lease.bucket(_CONTENT))]


def _copied(
    worker: WorkerFacts, main: Namespace, history: Namespace, digests: list[bytes]
) -> dict[bytes, Edits]:
    """What the history's namespace has to know of blobs that only the main one knows, and what they need."""
    root = worker.root_of(worker.stores.containerd)
    known = root.bucket(b"v1", main.name, _CONTENT, b"blob") if root is not None else None
    found: dict[bytes, Edits] = {}
    waiting = list(digests)
    for digest in waiting:
        blob = known.bucket(digest) if known is not None else None
        if blob is None or digest in found or history.blobs.index.row(digest) >= 0:
            continue
        found[digest] = _all_of(blob)
        labels = _items(blob.bucket(b"labels"))
        waiting += (value for key, value in labels if key.startswith(_REFERENCE) and isinstance(value, bytes))
    return found


def _all_of(bucket: Bucket) -> Edits:
    return {key: value if isinstance(value, bytes) else _all_of(value) for key, value in bucket.items()}


def _items(bucket: Bucket | None) -> Iterator[tuple[bytes, bytes | Bucket]]:
    return iter(bucket.items()) if bucket is not None else iter(())


REPAIRS: Final[tuple[Repair[Facts], ...]] = (migrations,)
