"""What the databases of a stopped containerd say, as plain Python objects (spec containerd-metadata-db).

The native survey reads the same; this is its double for those who do not trust it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from buildkit_migrate.bolt import Bucket
from buildkit_migrate.migration.model import Kind, PlainState, Resource, Snapshot

__all__ = ["read_state"]

_ROOT_LABEL: Final = b"containerd.io/gc.root"
_FLAT_LABEL: Final = b"containerd.io/gc.flat"


def read_state(metadata: Bucket, snapshots: Bucket, namespace: str, snapshotter: str) -> PlainState:
    """Of the root buckets of containerd's database and the snapshotter's (sections 3 to 5).

    A snapshot that the snapshotter does not have is left out, as containerd does.
    """
    state = PlainState(snapshotter)
    top = metadata.bucket(b"v1", namespace.encode())
    backend = snapshots.bucket(b"v1", b"snapshots")
    for name, entry in _rows(top, b"snapshots", snapshotter.encode()):
        own = backend.bucket(entry.get(b"name") or b"") if backend is not None else None
        if own is not None:
            parent = entry.get(b"parent") or b""
            state.snapshots[name] = Snapshot(_kind(own.get(b"kind")), parent, _has_label(entry, _ROOT_LABEL))
    for digest, entry in _rows(top, b"content", b"blob"):
        state.blobs[digest] = _has_label(entry, _ROOT_LABEL)
    for id, entry in _rows(top, b"leases"):
        state.leases[id] = set(_resources(entry))
        if _has_label(entry, _FLAT_LABEL):
            state.flat_leases.add(id)
    return state


def _rows(top: Bucket | None, *path: bytes) -> Iterator[tuple[bytes, Bucket]]:
    """The buckets below ``path``; plain keys beside them are something else."""
    bucket = top.bucket(*path) if top is not None else None
    for name, row in bucket.items() if bucket is not None else ():
        if isinstance(row, Bucket):
            yield name, row


def _kind(stored: bytes | None) -> Kind:
    if stored is None or len(stored) != 1 or stored[0] > Kind.COMMITTED:
        return Kind.UNKNOWN
    return Kind(stored[0])


def _has_label(entry: Bucket, label: bytes) -> bool:
    labels = entry.bucket(b"labels")
    return labels is not None and labels.get(label) is not None


def _resources(lease: Bucket) -> Iterator[Resource]:
    content = lease.bucket(b"content")
    for digest, _ in content.items() if content is not None else ():
        yield "content", digest
    for snapshotter, names in _rows(lease, b"snapshots"):
        for name, _ in names.items():
            yield f"snapshots/{snapshotter.decode(errors='replace')}", name
