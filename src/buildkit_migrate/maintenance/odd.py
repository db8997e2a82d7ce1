"""Records with an unreadable value among those that say what a record is.

Whatever else looks wrong with such a record follows from that, so it is not reported.
"""

from __future__ import annotations

from typing import Final

from buildkit_migrate.schema.columns import Mask, present, split_last
from buildkit_migrate.schema.records import Records

__all__ = ["STRUCTURAL", "odd_records"]

STRUCTURAL: Final = frozenset(
    {
        b"cache.blob",
        b"cache.blobChainID",
        b"cache.blobonly",
        b"cache.chainID",
        b"cache.deleted",
        b"cache.diffID",
        b"cache.equalMutable",
        b"cache.lowerDiffParent",
        b"cache.mediatype",
        b"cache.mergeParents",
        b"cache.parent",
        b"cache.snapshot",
        b"cache.upperDiffParent",
        b"snapshot.committed",
    }
)
"""Keys that say what a record is and where its data is."""


def odd_records(records: Records) -> Mask:
    """Records with such an unreadable value, or with an id that index entries can't name."""
    found = present(split_last(records.ids, b"::")[0])
    for cells in (records.undecodable, records.mistyped):
        for row, key, _ in cells:
            if key in STRUCTURAL:
                found.add(row)
    return found
