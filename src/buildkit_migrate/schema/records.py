"""BuildKit's records, ``metadata_v2.db`` (specs buildkit-metadata and buildkit-v2-stores, sections 1 to 3).

records = Records(database.root)
parents = records.rows_of(records.text(keys.PARENT))
for row in between(parents, NOT_FOUND, NOT_FOUND):  # cache.parent names no record
    print(records.ids[row])
"""

from __future__ import annotations

import enum
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Final, NamedTuple, TypeVar

from buildkit_migrate.bolt import Bucket
from buildkit_migrate.schema.columns import Index, Integers, Mask, Texts, split_last
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

T = TypeVar("T")


class Kind(enum.Enum):
    """What BuildKit decodes the value of a key into."""

    TEXT = "string"
    INTEGER = "integer"
    FLAG = "bool"
    TEXTS = "list of strings"
    ANY = "any"


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

_OF_V1: Final = (b"local.sharedKey:", b"cache-dir:")
"""Keys that go on with their value: found through their index entries in v2, too."""


def kind_of(key: bytes) -> Kind | None:
    """None for a key that no version of BuildKit writes."""
    return KEYS.get(key) or (Kind.TEXT if key.startswith(_OF_V1) else None)


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

    def __init__(self, root: Bucket) -> None:
        self._root = root
        ids: list[bytes] = []
        plain = []
        cells = []
        for id, bucket in _items(root.bucket(keys.MAIN_BUCKET)):
            if isinstance(bucket, bytes):
                plain.append(id)
                continue
            for key, value in bucket.items():
                cells.append(Cell(len(ids), key, value if isinstance(value, bytes) else None))
            ids.append(id)
        self.ids: Texts = ids
        """Never None."""
        self.plain_keys: Sequence[bytes] = plain
        """Keys of ``_main`` that are no buckets."""
        self._cells = cells
        self._columns: dict[bytes, list[bytes | None]] = {}
        for cell in cells:
            if cell.value:
                column = self._columns.setdefault(cell.key, [None] * len(ids))
                column[cell.row] = cell.value

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def index(self) -> Index:
        """Finds records by id."""
        return Index(self.ids)

    def rows_of(self, ids: Texts) -> array[int]:
        """For each id the row of the record; NOT_FOUND; ABSENT also for ""."""
        return self.index.rows([id or None for id in ids])

    @cached_property
    def undecodable(self) -> Sequence[Cell]:
        """Values whose envelope Go can't decode, of any key: one of them stops the daemon (C8)."""
        return [cell for cell in self._cells if cell.value and not _decodes(cell.value)]

    @cached_property
    def nested(self) -> Sequence[Cell]:
        """Buckets below a record."""
        return [cell for cell in self._cells if cell.value is None]

    @cached_property
    def unknown(self) -> Sequence[Cell]:
        """Values of keys that no version of BuildKit writes."""
        return [cell for cell in self._cells if cell.value is not None and kind_of(cell.key) is None]

    @cached_property
    def mistyped(self) -> Sequence[Cell]:
        """Values that decode and are not of their key's type (C9)."""
        return [cell for cell in self._cells if cell.value and _is_mistyped(cell.key, cell.value)]

    def cell(self, row: int, key: bytes) -> bytes | None:
        """The value as it is stored; None if it is absent (or a bucket)."""
        bucket = self._root.bucket(keys.MAIN_BUCKET, self.ids[row] or b"")
        return bucket.get(key) if bucket is not None else None

    def stored(self, key: bytes) -> Texts:
        """The values of a key as they are stored, without cleared ones."""
        return self._columns.get(key) or [None] * len(self)

    def has(self, key: bytes) -> Mask:
        """Records with a value of this key that is not cleared, be it sound or not."""
        return Mask(len(self), (row for row, value in enumerate(self.stored(key)) if value))

    def text(self, key: bytes) -> Texts:
        """Decoded strings; None where there is none, or none that decodes; "" for ``null``."""
        return self._decoded(key, gojson.as_string)

    def integer(self, key: bytes) -> Integers:
        """Decoded numbers; not known where there is none, or none that decodes."""
        found = self._decoded(key, gojson.as_integer)
        values = array("q", (number or 0 for number in found))
        return Integers(values, Mask(len(self), (row for row, it in enumerate(found) if it is not None)))

    def flag(self, key: bytes) -> Mask:
        """Records for which the value is true."""
        found = self._decoded(key, gojson.as_flag)
        return Mask(len(self), (row for row, flag in enumerate(found) if flag))

    def lists(self, key: bytes) -> Lists:
        """Decoded lists of strings; none where there is none, or none that decodes."""
        rows = array("i")
        values: list[bytes] = []
        for row, strings in enumerate(self._decoded(key, gojson.as_strings)):
            for string in strings or ():
                rows.append(row)
                values.append(string)
        return Lists(rows, values)

    def indexes(self) -> Iterator[tuple[int, bytes, bytes]]:
        """(Row, key, index) of each value that has an index and decodes."""
        for row, key, value in self._cells:
            if value and (index := _index_of(value)):
                yield row, key, index

    def _decoded(self, key: bytes, into: Callable[[bytes | None], T]) -> list[T | None]:
        return [_decode(stored, into) if stored else None for stored in self.stored(key)]


def _items(bucket: Bucket | None) -> Iterator[tuple[bytes, bytes | Bucket]]:
    return bucket.items() if bucket is not None else iter(())


def _decodes(stored: bytes) -> bool:
    try:
        gojson.decode(stored)
    except UndecodableValueError:
        return False
    return True


def _decode(stored: bytes, into: Callable[[bytes | None], T]) -> T | None:
    try:
        return into(gojson.decode(stored).raw)
    except UndecodableValueError:
        return None


_INTO: Final[dict[Kind, Callable[[bytes | None], object]]] = {
    Kind.TEXT: gojson.as_string,
    Kind.INTEGER: gojson.as_integer,
    Kind.FLAG: gojson.as_flag,
    Kind.TEXTS: gojson.as_strings,
}


def _is_mistyped(key: bytes, stored: bytes) -> bool:
    into = _INTO.get(kind_of(key) or Kind.ANY)
    return into is not None and _decodes(stored) and _decode(stored, into) is None


def _index_of(stored: bytes) -> bytes:
    try:
        return gojson.decode(stored).index
    except UndecodableValueError:
        return b""


class IndexEntries:
    """The keys of ``_index``. ``text`` and ``record``: before and after the last ``::``; None without one."""

    def __init__(self, root: Bucket) -> None:
        self.keys: Texts = [key for key, _ in _items(root.bucket(keys.INDEX_BUCKET))]
        self.text, self.record = split_last(self.keys, b"::")

    def __len__(self) -> int:
        return len(self.keys)


class External:
    """The buckets of ``_external``. ``ids``: of their records; ``sizes``: bytes of their keys and values."""

    def __init__(self, root: Bucket) -> None:
        ids = []
        sizes = array("q")
        for id, bucket in _items(root.bucket(keys.EXTERNAL_BUCKET)):
            if isinstance(bucket, Bucket):
                ids.append(id)
                sizes.append(
                    sum(
                        len(key) + len(it) if isinstance(it, bytes) else len(key)
                        for key, it in bucket.items()
                    )
                )
        self.ids: Texts = ids
        self.sizes = sizes

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
    wanted: dict[bytes, list[tuple[int, bytes, bytes]]] = {}
    for row, key, index in records.indexes():
        id = records.ids[row]
        assert id is not None
        wanted.setdefault(keys.index_key(index, id), []).append((row, key, index))
    there = set(entries.keys)
    missing = [found for entry, values in wanted.items() if entry not in there for found in values]
    stray = [
        row
        for row, (entry, id) in enumerate(zip(entries.keys, entries.record, strict=True))
        if id is not None and entry not in wanted and records.index.row(id) >= 0
    ]
    return IndexDifferences(sorted(missing), stray)
