"""The solver cache, ``cache.db`` (spec buildkit-v2-stores, section 5)."""

from __future__ import annotations

from functools import cached_property
from typing import Final

from buildkit_migrate._native.solver import plain_links, plain_results
from buildkit_migrate.bolt import Bucket
from buildkit_migrate.schema.columns import Index, Texts, split_last
from buildkit_migrate.schema.tables import Entries, read_table

__all__ = ["BUCKETS", "SEPARATOR", "SolverCache", "plain_links", "plain_results", "workers_and_records"]

RESULTS, BY_RESULT, LINKS, BACKLINKS = BUCKETS = (b"_result", b"_byresult", b"_links", b"_backlinks")

SEPARATOR: Final = b"::"
"""Between worker and record in the id of a result."""


class SolverCache:
    """Each bucket as its row names (``keys`` and the like) and the entries below them, of which only those of
    `results` have values.
    """

    def __init__(self, root: Bucket) -> None:
        self._root = root
        self._tables: dict[bytes, tuple[Texts, Entries]] = {}

    @cached_property
    def missing(self) -> list[bytes]:
        """Which of BUCKETS are missing; a daemon creates them at its next start."""
        return [name for name in BUCKETS if self._root.bucket(name) is None]

    def _read(self, name: bytes) -> tuple[Texts, Entries]:
        """Both in one walk."""
        if name not in self._tables:
            bucket = self._root.bucket(name)
            names, _, (entries,) = read_table(bucket, (), [((), b"")], keys_only=name != RESULTS)
            self._tables[name] = names, entries
        return self._tables[name]

    def _below(self, name: bytes) -> Entries:
        return self._read(name)[1]

    def _names(self, name: bytes) -> Texts:
        return self._read(name)[0]

    def forget_mirrors(self) -> None:
        """Gives back the memory of keys by result and backlinks. If asked for again they are read anew."""
        for name in (BY_RESULT, BACKLINKS):
            self._tables.pop(name, None)

    @cached_property
    def keys(self) -> Texts:
        """Key ids in ``_result``: rows of `results`."""
        return self._names(RESULTS)

    @cached_property
    def key_index(self) -> Index:
        """Finds rows of `keys`."""
        return Index(self.keys)

    @cached_property
    def results(self) -> Entries:
        """For each key its results: result id and the stored JSON."""
        return self._below(RESULTS)

    @property
    def result_ids(self) -> Texts:
        """Result ids in ``_byresult``: rows of `by_result`."""
        return self._names(BY_RESULT)

    @property
    def by_result(self) -> Entries:
        """For each result the ids of its keys."""
        return self._below(BY_RESULT)

    @cached_property
    def linked(self) -> Texts:
        """Key ids in ``_links``: rows of `links`."""
        return self._names(LINKS)

    @cached_property
    def linked_index(self) -> Index:
        """Finds rows of `linked`."""
        return Index(self.linked)

    @cached_property
    def links(self) -> Entries:
        """For each key its links, ``<link>@<id of the target key>``."""
        return self._below(LINKS)

    @property
    def link_parts(self) -> tuple[Texts, Texts]:
        """Of each of `links` what it is, and the key that it leads to: made anew each time."""
        return split_last(self.links.keys, b"@")

    @property
    def targets(self) -> Texts:
        """Key ids in ``_backlinks``: rows of `backlinks`."""
        return self._names(BACKLINKS)

    @property
    def backlinks(self) -> Entries:
        """For each target the ids of the keys that link to it."""
        return self._below(BACKLINKS)


def workers_and_records(result_ids: Texts) -> tuple[Texts, Texts]:
    """The two parts of result ids; both None where there are not two, or the id does not split."""
    return split_last(result_ids, SEPARATOR)
