"""The store interface: what BuildKit asks of its record metadata (spec buildkit-metadata, section 1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from buildkit_migrate.metadata.gojson import Value

__all__ = ["Item", "MetadataStore"]


@dataclass(frozen=True)
class Item:
    """One record: its decoded values by metadata key; cleared ones are left out."""

    id: bytes
    exists: bool = False
    values: Mapping[bytes, Value] = field(default_factory=dict)

    def indexes(self) -> list[bytes]:
        """The indexes under which the values are found, in order of their keys."""
        return [value.index for value in self.values.values() if value.index]


class MetadataStore(Protocol):
    """Where records live. ``all`` and ``search`` raise BrokenRecordsError at a value that does not decode."""

    def get(self, id: bytes) -> Item:
        """The record; one without values and ``exists`` if it is missing.

        At a value that does not decode, the item ends before it.
        """

    def all(self) -> Iterator[Item]:
        """All records, in order of their ids."""

    def search(self, index: bytes, *, prefix_only: bool = False) -> Iterator[Item]:
        """Records with this index, in order of the index keys; index entries without record are skipped.

        ``prefix_only``: of all indexes that begin with ``index``; a record comes once for each index key.
        """

    def probe(self, index: bytes) -> bool:
        """Whether there is any entry of this index, be it of a record that is missing."""

    def external(self, id: bytes, name: bytes) -> bytes | None:
        """External data of a record, None if there is none; empty data counts as some."""
