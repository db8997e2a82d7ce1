"""Records of a v1 store: what v2 keeps in them v1 took from the snapshots, each named like its record."""

from __future__ import annotations

from collections.abc import Container
from functools import cached_property

from buildkit_migrate.bolt import Bucket
from buildkit_migrate.schema.columns import Mask, Texts, between, take
from buildkit_migrate.schema.containerd import Snapshots
from buildkit_migrate.schema.records import Records
from buildkit_migrate.schema.snapshots import COMMITTED, Backend
from buildkit_migrate.values import keys

__all__ = ["OldRecords"]


class OldRecords(Records):
    """With the parents and kinds of their snapshots; without snapshots they have none.

    A record without a snapshot counts as mutable: as v1 itself does, a loader then drops it.
    """

    def __init__(
        self,
        root: Bucket,
        kept: Container[bytes] | None,
        snapshots: Snapshots | None,
        backend: Backend | None,
    ) -> None:
        super().__init__(root, kept)
        self._snapshots = snapshots
        self._backend = backend

    def text(self, key: bytes) -> Texts:
        if key == keys.PARENT and self._snapshots is not None:
            return self._parents
        return self._blobs if key == keys.BLOB else super().text(key)

    def flag(self, key: bytes) -> Mask:
        return self._committed if key == keys.COMMITTED else super().flag(key)

    @cached_property
    def _parents(self) -> Texts:
        """Of a record that shares data those of its partner."""
        assert self._snapshots is not None
        own = self._snapshots.index.rows(self.ids)
        partners = self._snapshots.index.rows(self.text(keys.EQUAL_MUTABLE))
        for row in between(partners, 0, len(self._snapshots)):
            own[row] = partners[row]
        return take(self._snapshots.parent, own)

    @cached_property
    def _blobs(self) -> Texts:
        """Digests, which v1 kept with those of the layers."""
        return [_digest(stored) for stored in self.stored(keys.BLOB_MAPPING)]

    @cached_property
    def _committed(self) -> Mask:
        if self._snapshots is None or self._backend is None:
            return ~Mask(len(self))
        committed = between(self._backend.kind, COMMITTED, COMMITTED)
        of_snapshots = committed.take(self._backend.index.rows(self._snapshots.name))
        return of_snapshots.take(self._snapshots.index.rows(self.ids))


def _digest(stored: bytes | None) -> bytes | None:
    import orjson

    try:
        digest = orjson.loads(stored or b"")["value"]["Blobsum"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    return digest.encode(errors="replace") if isinstance(digest, str) else None
