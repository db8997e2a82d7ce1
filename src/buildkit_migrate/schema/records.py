"""BuildKit's records, ``metadata_v2.db`` (specs buildkit-metadata and buildkit-v2-stores, sections 1 to 3).

records = Records(database.root)
parents = records.rows_of(records.text(keys.PARENT))
for row in between(parents, NOT_FOUND, NOT_FOUND):  # cache.parent names no record
    print(records.ids[row])
"""

from __future__ import annotations

import contextlib
import enum
from array import array
from collections.abc import Callable, Container, Iterator, Sequence, Set
from functools import cached_property
from operator import itemgetter
from typing import Any, Final, NamedTuple

from buildkit_migrate._native import cells
from buildkit_migrate._native.bolt import items
from buildkit_migrate.bolt import Bucket, Column
from buildkit_migrate.schema.columns import (
    ABSENT,
    Index,
    Integers,
    Mask,
    Texts,
    between,
    column,
    equal_to,
    lengths,
    split_last,
    take,
)
from buildkit_migrate.schema.tables import below, names_in
from buildkit_migrate.values import gojson, keys
from buildkit_migrate.values.gojson import UndecodableValueError

__all__ = [
    "KEYS",
    "Cell",
    "External",
    "IndexDifferences",
    "IndexEntries",
    "Kind",
    "Lists",
    "Records",
    "index_differences",
    "kind_of",
]


class Kind(enum.IntEnum):
    """The type into which BuildKit decodes the value of a key."""

    TEXT = cells.TEXT
    INTEGER = cells.INTEGER
    FLAG = cells.FLAG
    TEXTS = cells.TEXTS  # a list of strings
    ANY = cells.ANY


KEYS: Final[dict[bytes, Kind]] = {
    b"blobmapping.blob": Kind.ANY,  # of v1, and read by nobody in v2
    b"cache-dir": Kind.TEXT,
    b"cache.blob": Kind.TEXT,
    b"cache.blobChainID": Kind.TEXT,
    b"cache.blobonly": Kind.FLAG,
    b"cache.blobsize": Kind.INTEGER,
    b"cache.cachePolicy": Kind.INTEGER,
    b"cache.chainID": Kind.TEXT,
    b"cache.createdAt": Kind.INTEGER,
    b"cache.deleted": Kind.FLAG,
    b"cache.description": Kind.TEXT,
    b"cache.diffID": Kind.TEXT,
    b"cache.equalMutable": Kind.TEXT,
    b"cache.imageRefs": Kind.TEXTS,
    b"cache.lastUsedAt": Kind.INTEGER,
    b"cache.layer.urls": Kind.TEXTS,
    b"cache.layerType": Kind.TEXT,
    b"cache.lowerDiffParent": Kind.TEXT,
    b"cache.mediatype": Kind.TEXT,
    b"cache.mergeParents": Kind.TEXTS,
    b"cache.parent": Kind.TEXT,
    b"cache.recordType": Kind.TEXT,
    b"cache.snapshot": Kind.TEXT,
    b"cache.upperDiffParent": Kind.TEXT,
    b"cache.usageCount": Kind.INTEGER,
    b"etag": Kind.TEXT,
    b"git-remote": Kind.TEXT,
    b"git-snapshot": Kind.TEXT,
    b"http.checksum": Kind.TEXT,
    b"http.modtime": Kind.TEXT,
    b"local.sharedKey": Kind.TEXT,
    b"snapshot.committed": Kind.FLAG,
    b"snapshot.size": Kind.INTEGER,
}
"""All keys of v2, of any version."""

_DESCRIPTIVE: Final = frozenset(
    (
        b"blobmapping.blob",
        b"cache.createdAt",
        b"cache.description",
        b"cache.imageRefs",
        b"cache.lastUsedAt",
        b"cache.layer.urls",
        b"cache.layerType",
        b"cache.mediatype",
        b"cache.recordType",
        b"cache.usageCount",
    )
)
"""Keys that refer to no other record and to nothing in another store."""

_OF_V1: Final = (b"local.sharedKey:", b"cache-dir:")
"""Keys that go on with their value: found through their index entries in v2, too."""


def kind_of(key: bytes) -> Kind | None:
    """None for a key that no version of BuildKit writes."""
    return KEYS.get(key, Kind.TEXT if key.startswith(_OF_V1) else None)


class Cell(NamedTuple):
    """A value of a record. ``value``: as it is stored; None for a bucket."""

    row: int
    key: bytes
    value: bytes | None


class Lists(NamedTuple):
    """A column of lists of strings. ``rows``: for each string its row, ascending; type code "i"."""

    rows: array[int]
    values: Texts


class Records:
    """The records of ``_main`` in key order: row i is the record ``ids[i]``. A missing ``_main`` has none.

    Values are decoded as BuildKit does it. A value of zero length is a cleared one: as absent.
    """

    def __init__(self, root: Bucket, kept: Container[bytes] | None = None) -> None:
        """``kept``: the keys to read at once; a second walk reads the others when one is asked for.

        By default it is those that a daemon needs to load records: less memory where nobody wants the others.
        """
        self._root = root
        self._kept = KEYS.keys() - _DESCRIPTIVE if kept is None else {key for key in KEYS if key in kept}
        self._cells = self._read(self._kept)
        self.ids = self._cells.ids
        """Never None."""
        self.plain_keys = [key for key in self._cells.plain if key is not None]
        """Keys of ``_main`` that are not buckets."""
        self.undecodable: list[Cell] = []
        """Values whose envelope Go can't decode, of any key: one of them stops the daemon (C8)."""
        self.mistyped: list[Cell] = []
        """Values that decode, but not into the type of their key (C9)."""
        self.nested: list[Cell] = []
        """Buckets below a record."""
        self.unknown: list[Cell] = []
        """Values of keys that no version of BuildKit writes."""
        self._unusual: dict[bytes, dict[int, Any]] = {}
        for cell in self._cells.odd():
            self._judge(Cell(*cell))

    def _read(self, kept: Set[bytes], *, unchecked: bool = False) -> cells.Cells:
        wanted = ((key, kind, key in kept) for key, kind in KEYS.items())
        main = self._root.bucket(keys.MAIN_BUCKET)
        return cells.Cells(self._root.reader, main, wanted, unchecked=unchecked)

    @cached_property
    def _others(self) -> cells.Cells:
        return self._read(KEYS.keys() - self._kept, unchecked=True)

    def forget(self, keys: Set[bytes]) -> None:
        """Gives back the memory of the values of these keys. If asked for again they are read anew."""
        self._cells.drop(self._kept & keys)
        self._kept -= keys
        self.__dict__.pop("_others", None)

    def _with(self, key: bytes) -> cells.Cells:
        return self._cells if key in self._kept else self._others

    def _judge(self, cell: Cell) -> None:
        """A value that is not in the form in which BuildKit writes it, which may mean nothing."""
        row, key, stored = cell
        kind = kind_of(key)
        if stored is None:
            self.nested.append(cell)
            return
        if kind is None:
            self.unknown.append(cell)
        if not stored:
            return
        try:
            value = gojson.decode(stored)
        except UndecodableValueError:
            self.undecodable.append(cell)
            return
        if value.index:
            self._cells.want(row, value.index)
        if kind in (None, Kind.ANY):
            return
        try:
            self._unusual.setdefault(key, {})[row] = _INTO[kind](value.raw)
        except UndecodableValueError:
            self.mistyped.append(cell)

    def __len__(self) -> int:
        return len(self._cells)

    @cached_property
    def index(self) -> Index:
        """Finds records by id."""
        return Index(self.ids)

    def rows_of(self, ids: Texts) -> array[int]:
        """For each id the row of the record; NOT_FOUND; ABSENT also for ""."""
        rows = self.index.rows(ids)
        for row in equal_to(ids, b""):
            rows[row] = ABSENT
        return rows

    def cell(self, row: int, key: bytes) -> bytes | None:
        """The value as it is stored; None if it is absent (or a bucket)."""
        bucket = self._root.bucket(keys.MAIN_BUCKET, self.ids[row] or b"")
        return bucket.get(key) if bucket is not None else None

    # Each call of the following makes a new column. KeyError for a key that is not one of KEYS, or is of
    # another kind.

    def stored(self, key: bytes) -> Texts:
        """The values of a key of Kind.ANY as they are stored, without cleared ones."""
        return self._with(key).stored(key)

    def has(self, key: bytes) -> Mask:
        """Records with a value of this key that is not cleared, whether it decodes or not."""
        return self._with(key).has(key)

    def text(self, key: bytes) -> Texts:
        """Decoded strings; None where there is none, or none that decodes; "" for ``null``."""
        return self._with(key).texts(key, self._unusual.get(key, {}))

    def integer(self, key: bytes) -> Integers:
        """Decoded numbers; not known where there is none, or none that decodes; 0 for ``null``."""
        found = Integers(*self._with(key).integers(key))
        for row, number in self._unusual.get(key, {}).items():
            found.values[row] = number
            found.known.add(row)
        return found

    def flag(self, key: bytes) -> Mask:
        """Records for which the value is true."""
        return between(self.integer(key).values, 1, 1)

    def lists(self, key: bytes) -> Lists:
        """Decoded lists of strings; none where there is none, or none that decodes."""
        rows, values = self._with(key).lists(key)
        unusual = self._unusual.get(key)
        if not unusual:
            return Lists(rows, values)
        pairs = [*zip(rows, values, strict=True)]
        pairs += [(row, string) for row, strings in unusual.items() for string in strings]
        pairs.sort(key=itemgetter(0))
        return Lists(array("i", (row for row, _ in pairs)), column(string for _, string in pairs))

    def values(self, row: int) -> frozenset[tuple[bytes, bytes]]:
        """Keys and values as they are stored, without cleared ones."""
        bucket = self._root.bucket(keys.MAIN_BUCKET, self.ids[row] or b"")
        items = bucket.items() if bucket is not None else ()
        return frozenset((key, stored) for key, stored in items if isinstance(stored, bytes) and stored)

    def indexes(self, row: int) -> Iterator[tuple[bytes, bytes]]:
        """(Key, index) of each value of a record that has an index and decodes."""
        bucket = self._root.bucket(keys.MAIN_BUCKET, self.ids[row] or b"")
        for key, stored in bucket.items() if bucket is not None else ():
            with contextlib.suppress(UndecodableValueError):
                if isinstance(stored, bytes) and stored and (index := gojson.decode(stored).index):
                    yield key, index

    def compare(self, entries: Column) -> tuple[array[int], Mask]:
        """See `Cells.compare`."""
        return self._cells.compare(entries)


_INTO: Final[dict[Kind | None, Callable[[bytes | None], object]]] = {
    Kind.TEXT: gojson.as_string,
    Kind.INTEGER: gojson.as_integer,
    Kind.FLAG: gojson.as_flag,
    Kind.TEXTS: gojson.as_strings,
}


class IndexEntries:
    """The keys of ``_index``. ``text`` and ``record``: before and after the last ``::``; None without one."""

    def __init__(self, root: Bucket) -> None:
        self._bucket = root.bucket(keys.INDEX_BUCKET)
        self.keys = items(self._bucket)[0] if self._bucket is not None else column(())

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def _parts(self) -> tuple[Texts, Texts]:
        return split_last(self.keys, b"::")

    @property
    def text(self) -> Texts:
        return self._parts[0]

    @property
    def record(self) -> Texts:
        return self._parts[1]

    def have(self, key: bytes) -> bool:
        """Whether this is one of the records."""
        bucket = self._bucket
        return bucket is not None and (bucket.get(key) is not None or bucket.bucket(key) is not None)


class External:
    """The buckets of ``_external``. ``ids``: of their records; ``sizes``: bytes of their keys and values."""

    def __init__(self, root: Bucket) -> None:
        bucket = root.bucket(keys.EXTERNAL_BUCKET)
        self.ids = names_in(bucket)
        entries = below(bucket)
        self.sizes = array("q", bytes(8 * len(self.ids)))
        for sizes in (lengths(entries.keys), lengths(entries.values)):
            for row, size in zip(entries.rows, sizes, strict=True):
                self.sizes[row] += size

    def __len__(self) -> int:
        return len(self.ids)


class IndexDifferences(NamedTuple):
    """Between the indexes that the values name and the entries that there are.

    ``missing``: (row of the record, key, index) of values whose entry is missing (C17). ``stray``: rows of
    entries whose record exists and has no value with this index (C19).
    """

    missing: Sequence[tuple[int, bytes, bytes]]
    stray: Sequence[int]


def index_differences(records: Records, entries: IndexEntries) -> IndexDifferences:
    """Compares the two; both sequences are empty if all is well."""
    lacking, unwanted = records.compare(entries.keys)
    missing = [
        (row, key, index)
        for row in sorted(set(lacking))
        for key, index in records.indexes(row)
        if not entries.have(keys.index_key(index, records.ids[row] or b""))
    ]
    stray = array("i", unwanted)
    owners = records.index.rows(take(entries.record, stray)) if stray else ()
    return IndexDifferences(missing, [row for row, owner in zip(stray, owners, strict=True) if owner >= 0])
