"""What du can say of a record beyond what a daemon shows: where its data is, and what keeps it."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from buildkit_migrate.errors import CorruptDatabaseError
from buildkit_migrate.maintenance.du import WorkerUsage
from buildkit_migrate.maintenance.usage import snapshot_directory
from buildkit_migrate.schema.columns import Index, Mask, Texts
from buildkit_migrate.text import named_text, printable

__all__ = ["Details", "RecordDetails"]

_NAMED = 3
"""How many children are named; the others are counted."""


@dataclass(frozen=True)
class RecordDetails:
    """``snapshot``: number of its snapshot, None if it has none; ``path``: where the files of that are, None
    if they are in no directory that is known. ``leases``: ids of those that are there. ``blob``: digest of
    the blob that containerd has. ``kept_by``: what keeps a prune from removing it, in words.
    ``dropped``: why the next start of the daemon drops it, None if it does not.
    """

    snapshot: int | None
    path: Path | None
    leases: tuple[bytes, ...]
    blob: bytes | None
    kept_by: tuple[str, ...]
    dropped: str | None

    def as_dict(self) -> dict[str, Any]:
        return {
            "snapshot": self.snapshot,
            **named_text("path", self.path),
            "leases": [printable(lease) for lease in self.leases],
            **named_text("blob", self.blob),
            "keptBy": list(self.kept_by),
            "dropped": self.dropped,
        }


class Details:
    """Details of the records of one worker, by row."""

    def __init__(self, usage: WorkerUsage) -> None:
        assert usage.loading is not None
        self._usage = usage
        self._worker = usage.worker
        self._loading = usage.loading

    def of(self, row: int) -> RecordDetails:
        number = self._number(row)
        return RecordDetails(
            number,
            None if number is None else snapshot_directory(self._worker, number),
            tuple(self._leases_of(row)),
            self._blob(row),
            tuple(self._keepers(row)),
            self._dropped(row),
        )

    # --- Where the data is

    def _number(self, row: int) -> int | None:
        """An immutable record of a pair has the snapshot of its partner."""
        if row in self._loading.paired:
            row = self._loading.pair[row]
        snapshot = self._loading.snapshot[row]
        if snapshot < 0 or self._worker.backend is None:
            return None
        stat = self._stats[snapshot]
        return self._worker.backend.id.values[stat] if stat >= 0 else None

    @cached_property
    def _stats(self) -> array[int]:
        assert self._worker.stat is not None
        return self._worker.stat

    @cached_property
    def _leases(self) -> Index | None:
        """None if they can't be read."""
        try:
            return self._worker.namespace.leases.index if self._worker.namespace is not None else None
        except CorruptDatabaseError:
            return None

    def _leases_of(self, row: int) -> Iterator[bytes]:
        if self._leases is None:
            return
        id = self._loading.records.ids[row] or b""
        for lease in (id, id + b"-variants"):
            if self._leases.row(lease) >= 0:
                yield lease

    def _blob(self, row: int) -> bytes | None:
        blob = self._blobs[row]
        namespace = self._worker.namespace
        return blob if blob and namespace is not None and namespace.blobs.index.row(blob) >= 0 else None

    @cached_property
    def _blobs(self) -> Texts:
        return self._loading.records.text(b"cache.blob")

    # --- What keeps it

    @cached_property
    def parents(self) -> dict[int, list[int]]:
        """For each record that du shows: those of its parents that du shows as well, each once."""
        shown = Mask(len(self._loading.records), self._usage.rows)
        return {
            row: [one for one in dict.fromkeys(self._loading.shown_parents_of(row)) if one in shown]
            for row in self._usage.rows
        }

    @cached_property
    def children(self) -> dict[int, list[int]]:
        """For each record: the rows of those built on it, as far as du shows them."""
        found: dict[int, list[int]] = {}
        for row in self._usage.rows:
            for parent in self.parents[row]:
                found.setdefault(parent, []).append(row)
        return found

    def _keepers(self, row: int) -> Iterator[str]:
        ids = self._loading.records.ids
        children = self.children.get(row, [])
        if children:
            named = ", ".join(printable(ids[child] or b"") for child in children[:_NAMED])
            more = f" and {len(children) - _NAMED} more" if len(children) > _NAMED else ""
            yield f"{'children' if len(children) > 1 else 'its child'} {named}{more}"
        partner = self._loading.pair[row]
        if partner >= 0 and row in self._loading.paired:
            yield f"the mutable record {printable(ids[partner] or b'')}, whose data it shares"
        if row in self._usage.shared:
            yield "an image that has it (a prune with --all takes it)"
        if (kind := self._usage.type_of(row)) in (b"internal", b"frontend"):
            yield f"its type, {kind.decode()} (a prune with --all takes it)"

    def _dropped(self, row: int) -> str | None:
        if row in self._loading.alive:
            return None
        failure = self._loading.failure(row)
        of = "" if failure.row == row else f"{printable(self._loading.records.ids[failure.row] or b'')} "
        return f"{of}{failure.cause.value}"
