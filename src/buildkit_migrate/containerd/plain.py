"""Reads the databases of a stopped containerd into plain Python objects (spec containerd-metadata-db).

An independent counterpart of the native survey, for verification, and for undo.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator
from typing import Any

from buildkit_migrate.bolt import Bucket
from buildkit_migrate.bolt.edits import Edits
from buildkit_migrate.containerd.services import EXPIRE_LABEL, FLAT_LABEL, ROOT_LABEL, Holding
from buildkit_migrate.model import Before, Blob, Kind, PlainState, Resource, Snapshot
from buildkit_migrate.values.numbers import signed
from buildkit_migrate.values.times import is_stored_time

__all__ = ["blob_size", "edits_to_restore", "existing", "holdings", "read_before", "read_state"]


def read_state(metadata: Bucket, snapshots: Bucket, namespace: str, snapshotter: str) -> PlainState:
    """Reads the state from the root buckets of containerd's database and the snapshotter's (sections 3 to 5).

    Snapshots that the snapshotter does not have are left out, as containerd does.
    """
    state = PlainState(snapshotter)
    top = metadata.bucket(b"v1", namespace.encode())
    backend = snapshots.bucket(b"v1", b"snapshots")
    for name, entry in _rows(top, b"snapshots", snapshotter.encode()):
        own = backend.bucket(entry.get(b"name") or b"") if backend is not None else None
        if own is not None:
            parent = entry.get(b"parent") or b""
            state.snapshots[name] = Snapshot(_kind(own.get(b"kind")), parent, _has_label(entry, ROOT_LABEL))
    for digest, entry in _rows(top, b"content", b"blob"):
        state.blobs[digest] = Blob(_has_label(entry, ROOT_LABEL), blob_size(entry.get(b"size")))
    for id, entry in _rows(top, b"leases"):
        state.leases[id] = set(_resources(entry))
        if _has_label(entry, FLAT_LABEL):
            state.flat_leases.add(id)
        if (expire := _label(entry, EXPIRE_LABEL)) is not None:
            state.expiring_leases[id] = expire
        if not is_stored_time(entry.get(b"createdat")):
            state.undated_leases.add(id)
    return state


def read_before(metadata: Bucket, namespace: str, snapshotter: str, ids: Container[bytes]) -> Before:
    """Reads leases with these ids, and root labels, from the root bucket of containerd's old database."""
    top = metadata.bucket(b"v1", namespace.encode())
    return Before(
        {id: frozenset(_resources(entry)) for id, entry in _rows(top, b"leases") if id in ids},
        dict(_labelled(top, b"snapshots", snapshotter.encode())),
        dict(_labelled(top, b"content", b"blob")),
        {
            id: {EXPIRE_LABEL: expire}
            for id, entry in _rows(top, b"leases")
            if id in ids and (expire := _label(entry, EXPIRE_LABEL)) is not None
        },
    )


def existing(metadata: Bucket, namespace: str, snapshotter: str) -> tuple[set[bytes], set[bytes]]:
    """Names of all snapshots and digests of all blobs in containerd's database, given its root bucket."""
    top = metadata.bucket(b"v1", namespace.encode())
    return (
        {name for name, _ in _rows(top, b"snapshots", snapshotter.encode())},
        {digest for digest, _ in _rows(top, b"content", b"blob")},
    )


def holdings(metadata: Bucket, ids: Collection[bytes]) -> list[Holding]:
    """Implements `Containerd.holdings`, given the root bucket of containerd's database."""
    return [
        Holding(
            namespace.decode(errors="backslashreplace"),
            snapshotter.decode(errors="backslashreplace"),
            sum(name in ids for name, _ in _rows(snapshots)),
        )
        for namespace, top in _rows(metadata, b"v1")
        for snapshotter, snapshots in _rows(top, b"snapshots")
    ]


def edits_to_restore(
    metadata: Bucket, namespace: str, snapshotter: str, ids: Collection[bytes], before: Before
) -> Edits:
    """Edits of the root bucket of containerd's database for `Containerd.restore`; {} if nothing changes."""
    top = metadata.bucket(b"v1", namespace.encode())
    labels = {
        (b"snapshots", snapshotter.encode()): before.snapshots,
        (b"content", b"blob"): before.blobs,
    }
    edits: dict[bytes, Edits] = {}
    for (kind, name), values in labels.items():
        rows = {
            id: {b"labels": {ROOT_LABEL: values[id]}}
            for id, entry in _rows(top, kind, name)
            if id in values and not _has_label(entry, ROOT_LABEL)
        }
        if rows:
            edits[kind] = {name: rows}
    leases: dict[bytes, Edits | None] = {}
    for id, entry in _rows(top, b"leases"):
        if id in before.leases:
            back = _removals(frozenset(_resources(entry)) - before.leases[id])
            if id in before.expiring and not _has_label(entry, EXPIRE_LABEL):
                back[b"labels"] = dict(before.expiring[id])
            if back:
                leases[id] = back
        elif id in ids:
            leases[id] = None
    if leases:
        edits[b"leases"] = leases
    return {b"v1": {namespace.encode(): edits}} if edits else {}


def _removals(resources: Iterable[Resource]) -> dict[bytes, Any]:
    tree: dict[bytes, Any] = {}
    for kind, name in resources:
        at = tree
        for step in kind.encode().split(b"/"):
            at = at.setdefault(step, {})
        at[name] = None
    return tree


def _labelled(top: Bucket | None, *path: bytes) -> Iterator[tuple[bytes, bytes]]:
    for name, entry in _rows(top, *path):
        if (value := _label(entry, ROOT_LABEL)) is not None:
            yield name, value


def _rows(top: Bucket | None, *path: bytes) -> Iterator[tuple[bytes, Bucket]]:
    """The buckets below ``path``; plain keys are skipped."""
    bucket = top.bucket(*path) if top is not None else None
    for name, row in bucket.items() if bucket is not None else ():
        if isinstance(row, Bucket):
            yield name, row


def _kind(stored: bytes | None) -> Kind:
    if stored is None or len(stored) != 1 or stored[0] > Kind.COMMITTED:
        return Kind.UNKNOWN
    return Kind(stored[0])


def blob_size(stored: bytes | None) -> int | None:
    """Size of a blob in bytes, from ``size`` in its bucket (section 2); None if unknown.

    Decoded as by containerd: a malformed number is 0, and trailing bytes are ignored.
    """
    size = signed(stored)
    return size if size is not None and size > 0 else None


def _has_label(entry: Bucket, label: bytes) -> bool:
    return _label(entry, label) is not None


def _label(entry: Bucket, label: bytes) -> bytes | None:
    labels = entry.bucket(b"labels")
    return labels.get(label) if labels is not None else None


def _resources(lease: Bucket) -> Iterator[Resource]:
    content = lease.bucket(b"content")
    for digest, _ in content.items() if content is not None else ():
        yield "content", digest
    for snapshotter, names in _rows(lease, b"snapshots"):
        for name, _ in names.items():
            yield f"snapshots/{snapshotter.decode(errors='replace')}", name
