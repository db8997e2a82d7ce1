"""Records that are not what they were, as a value that says what they are can't be read.

What else looks wrong with them follows from that, and nobody is told of it.
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
    """Those with such a value, and those with an id that index entries can't name."""
    found = present(split_last(records.ids, b"::")[0])
    for cells in (records.undecodable, records.mistyped):
        for row, key, _ in cells:
            if key in STRUCTURAL:
                found.add(row)
    return found
