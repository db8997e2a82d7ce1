"""Records of a v1 store, seen as v2 records.

Parents and kinds, which v2 stores in the records, v1 took from the snapshots of the same names.
"""

from __future__ import annotations

from collections.abc import Container
from functools import cached_property

from buildkit_migrate.bolt import Bucket
from buildkit_migrate.containerd.docker import snapshots_named
from buildkit_migrate.containerd.driver_store import DriverStore
from buildkit_migrate.model import Kind
from buildkit_migrate.schema.columns import Mask, Texts, between, take
from buildkit_migrate.schema.containerd import Snapshots
from buildkit_migrate.schema.records import Records
from buildkit_migrate.schema.snapshots import COMMITTED, Backend
from buildkit_migrate.values import keys

__all__ = ["OldRecords", "OldRecordsOfDocker"]


class OldRecords(Records):
    """Records with the parents and kinds of their snapshots; without ``snapshots`` they have none.

    A record without a snapshot counts as mutable, so that a loader drops it, as v1 does.
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
        """For a record that shares the data of its partner: the partner's."""
        assert self._snapshots is not None
        own = self._snapshots.index.rows(self.ids)
        partners = self._snapshots.index.rows(self.text(keys.EQUAL_MUTABLE))
        for row in between(partners, 0, len(self._snapshots)):
            own[row] = partners[row]
        return take(self._snapshots.parent, own)

    @cached_property
    def _blobs(self) -> Texts:
        """Digests of blobs; v1 stores them in the same value as those of the layers."""
        return [_digest(stored) for stored in self.stored(keys.BLOB_MAPPING)]

    @cached_property
    def _committed(self) -> Mask:
        if self._snapshots is None or self._backend is None:
            return ~Mask(len(self))
        committed = between(self._backend.kind, COMMITTED, COMMITTED)
        of_snapshots = committed.take(self._backend.index.rows(self._snapshots.name))
        return of_snapshots.take(self._snapshots.index.rows(self.ids))


class OldRecordsOfDocker(OldRecords):
    """Records of Docker's builder, with the parents and kinds that the engine has for their snapshots."""

    def __init__(
        self, root: Bucket, kept: Container[bytes] | None, database: Bucket, driver: DriverStore
    ) -> None:
        """``database``: root bucket of ``snapshots.db``."""
        super().__init__(root, kept, None, None)
        self._database = database
        self._driver = driver

    def text(self, key: bytes) -> Texts:
        return self._parents if key == keys.PARENT else super().text(key)

    @cached_property
    def _known(self) -> dict[bytes, tuple[int, bytes]]:
        """Kind and parent of the snapshots that there are, by name."""
        named = {name for column in (self.ids, super().text(keys.EQUAL_MUTABLE)) for name in column if name}
        return {
            name: (kind, parent)
            for name, kind, parent, _ in snapshots_named(self._database, self._driver, sorted(named))
        }

    @cached_property
    def _parents(self) -> Texts:
        pairs = zip(self.ids, super().text(keys.EQUAL_MUTABLE), strict=True)
        found = (self._known.get(partner or b"") or self._known.get(id or b"") for id, partner in pairs)
        return [(row[1] or None) if row is not None else None for row in found]

    @cached_property
    def _committed(self) -> Mask:
        """Those with a partner are, as their data is the partner's."""
        pairs = zip(self.ids, super().text(keys.EQUAL_MUTABLE), strict=True)
        return Mask(
            len(self),
            [
                row
                for row, (id, partner) in enumerate(pairs)
                if partner in self._known or self._known.get(id or b"", (0, b""))[0] == Kind.COMMITTED
            ],
        )


def _digest(stored: bytes | None) -> bytes | None:
    import orjson

    try:
        digest = orjson.loads(stored or b"")["value"]["Blobsum"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    return digest.encode(errors="replace") if isinstance(digest, str) else None
