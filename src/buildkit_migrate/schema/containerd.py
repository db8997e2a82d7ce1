"""containerd's metadata database, of either kind of worker (spec containerd-metadata-db, section 3).

namespace = Namespace(database.root, b"buildkit")
content = namespace.leases.content
for row in between(namespace.blobs.index.rows(content.keys), NOT_FOUND, NOT_FOUND):
    print(namespace.leases.keys[content.rows[row]], "lists the missing", content.keys[row])
"""

from __future__ import annotations

from array import array
from functools import cached_property
from typing import Final, NamedTuple

from buildkit_migrate.bolt import Bucket
from buildkit_migrate.schema.columns import Index, Integers, Mask, Texts, chosen, equal_to, present, take
from buildkit_migrate.schema.tables import (
    Entries,
    Path,
    Times,
    below,
    buckets_in,
    integers,
    read_table,
    read_times,
)
from buildkit_migrate.values import numbers

__all__ = [
    "GC_ROOT",
    "MERGE_USAGE",
    "REMOTE",
    "VARIANT",
    "Blobs",
    "Containers",
    "Images",
    "Ingests",
    "Leases",
    "Marks",
    "Namespace",
    "Sandboxes",
    "Snapshots",
    "namespaces",
    "version",
]

_V1: Final = b"v1"

_LABELS: Final = (b"labels",)
REMOTE: Final = b"containerd.io/snapshot/remote"
"""Label of snapshots whose data the snapshotter fetches when it is used."""
MERGE_USAGE: Final = b"buildkit.mergeUsage"
"""Beginning of the labels with the size of a merge."""
GC_ROOT: Final = b"containerd.io/gc.root"
"""Beginning of the labels of what is never collected."""
VARIANT: Final = b"containerd.io/gc.ref.content.blob-"
"""Beginning of the labels that name the other variants of a blob."""


def namespaces(root: Bucket) -> list[bytes]:
    """Names of all namespaces."""
    return buckets_in(root.bucket(_V1))


def version(root: Bucket) -> int | None:
    """Version of the layout; None if it is missing (Docker's builder writes none) or does not decode."""
    top = root.bucket(_V1)
    return numbers.signed(top.get(b"version")) if top is not None else None


class _Table:
    """Rows in key order. ``bucket``: None if it is missing, which is a table without rows.

    ``_columns`` and ``_lists``: what is read in the first walk, as that is what takes time. ``_keys_only``:
    the lists without their values.
    """

    _columns: tuple[Path, ...] = ()
    _lists: tuple[tuple[Path, bytes], ...] = ()
    _keys_only = False

    def __init__(self, bucket: Bucket | None, lists: tuple[tuple[Path, bytes], ...] = ()) -> None:
        self.bucket = bucket
        lists += self._lists
        self.keys, columns, entries = read_table(bucket, self._columns, lists, keys_only=self._keys_only)
        self._values = dict(zip(self._columns, columns, strict=True))
        self._entries = dict(zip(lists, entries, strict=True))

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def index(self) -> Index:
        """Finds rows by key."""
        return Index(self.keys)

    @property
    def sequence(self) -> int:
        """Of the bucket."""
        return self.bucket.sequence if self.bucket is not None else 0

    def below(self, *path: bytes, prefix: bytes = b"") -> Entries:
        """Items of the bucket at this path in each row."""
        read = self._entries.get((path, prefix))
        return read if read is not None else below(self.bucket, *path, prefix=prefix)

    @cached_property
    def labels(self) -> Entries:
        """Keys and values of all labels."""
        return self.below(b"labels")

    def label(self, name: bytes) -> Texts:
        """Values of one label."""
        return read_table(self.bucket, [(b"labels", name)], ())[1][0]

    def labelled(self, name: bytes) -> Mask:
        """Rows with this label."""
        labels = self.below(b"labels", prefix=name)
        named = equal_to(labels.keys, name) & present(labels.values)
        return Mask(len(self), chosen(labels.rows, named))

    def times(self, key: bytes) -> Times:
        """``createdat`` or ``updatedat``, read when asked for."""
        path = (key,)
        stored = self._values.get(path)
        return read_times(stored if stored is not None else read_table(self.bucket, [path], ())[1][0])


class Snapshots(_Table):
    """Of one snapshotter. ``keys``: what BuildKit calls them; ``name``: the snapshotter's name of each,
    ``parent``: key of the parent, None if there is none. ``sequence``: last one that is in a name.
    ``broken_times``: snapshots with a time that can't be read.
    """

    _columns = ((b"name",), (b"parent",), (b"createdat",), (b"updatedat",))
    _lists = ((_LABELS, REMOTE), (_LABELS, MERGE_USAGE), (_LABELS, GC_ROOT))

    def __init__(self, bucket: Bucket | None) -> None:
        super().__init__(bucket)
        created, updated = (read_times(self._values.pop((key,))) for key in (b"createdat", b"updatedat"))
        self.broken_times = created.broken | updated.broken

    @property
    def name(self) -> Texts:
        return self._values[(b"name",)]

    @property
    def parent(self) -> Texts:
        return self._values[(b"parent",)]

    @cached_property
    def parent_rows(self) -> array[int]:
        """Rows of the parents; NOT_FOUND and ABSENT as for `Index.rows`."""
        return self.index.rows(self.parent)

    @cached_property
    def children(self) -> Entries:
        """Keys of children, of which some may be gone."""
        return self.below(b"children")


class Blobs(_Table):
    """``keys``: digests."""

    _columns = ((b"size",),)
    _lists = ((_LABELS, VARIANT), (_LABELS, GC_ROOT))

    @cached_property
    def size(self) -> Integers:
        """Bytes."""
        return integers(self._values[(b"size",)])


class Marks(NamedTuple):
    """Of leases. ``temporary``: deleted at the next start. ``flat``: they keep no more than what they list,
    and the parents of snapshots. ``ending``: rows of those that say when they expire, type code "i";
    ``times``: when, in text.
    """

    temporary: Mask
    flat: Mask
    ending: array[int]
    times: Texts


_MARKS: Final = (
    (b"labels", b"buildkit/lease.temporary"),
    (b"labels", b"containerd.io/gc.flat"),
    (b"labels", b"containerd.io/gc.expire"),
)
_RESOURCES: Final = (b"content", b"snapshots", b"ingests", b"images")


def _holds(bucket: Bucket | None) -> bool:
    return bucket is not None and next(iter(bucket.items()), None) is not None


class Leases(_Table):
    """``keys``: ids. What they hold are the keys of the following entries, and may be missing."""

    _columns = _MARKS  # with what they list in one walk: each has pages of its own
    _lists = (((b"content",), b""),)
    _keys_only = True  # a resource has no value

    def __init__(self, bucket: Bucket | None, snapshotter: bytes | None = None) -> None:
        """``snapshotter``: whose snapshots are read in the first walk."""
        super().__init__(bucket, (((b"snapshots", snapshotter), b""),) if snapshotter is not None else ())
        temporary, flat, expire = (self._values.pop(path) for path in _MARKS)
        ending = array("i", present(expire))
        self.marks = Marks(present(temporary), present(flat), ending, take(expire, ending))
        """Labels about how long a lease stays and what it keeps."""

    @cached_property
    def content(self) -> Entries:
        """Digests."""
        return self.below(b"content")

    def lists_anything(self, row: int) -> bool:
        """Whether this lease names any resource, existing or not."""
        lease = self.bucket.bucket(self.keys[row] or b"") if self.bucket is not None else None
        return lease is not None and any(_holds(lease.bucket(name)) for name in _RESOURCES)

    def snapshots(self, snapshotter: bytes) -> Entries:
        """Keys of snapshots."""
        return self.below(b"snapshots", snapshotter)

    @cached_property
    def snapshotters(self) -> Entries:
        """Names of the snapshotters below which leases list snapshots."""
        return self.below(b"snapshots")

    @cached_property
    def ingests(self) -> Entries:
        return self.below(b"ingests")

    @cached_property
    def images(self) -> Entries:
        return self.below(b"images")


class Images(_Table):
    """``keys``: names."""

    _columns = (
        (b"target", b"digest"),
        (b"target", b"mediatype"),
        (b"target", b"size"),
        (b"createdat",),
        (b"updatedat",),
    )

    @property
    def digest(self) -> Texts:
        return self._values[(b"target", b"digest")]

    @property
    def media_type(self) -> Texts:
        return self._values[(b"target", b"mediatype")]


class Ingests(_Table):
    """``keys``: refs. ``sequence`` of each is not needed: ``ref`` has the name in the content store."""

    _columns = ((b"ref",), (b"expireat",), (b"expected",))

    @property
    def ref(self) -> Texts:
        return self._values[(b"ref",)]

    @property
    def expires(self) -> Times:
        return self.times(b"expireat")

    @property
    def expected(self) -> Texts:
        """Digests."""
        return self._values[(b"expected",)]


class Containers(_Table):
    _columns = ((b"snapshotter",), (b"snapshotKey",), (b"image",))

    @property
    def snapshotter(self) -> Texts:
        return self._values[(b"snapshotter",)]

    @property
    def snapshot(self) -> Texts:
        return self._values[(b"snapshotKey",)]


class Sandboxes(_Table):
    """Of containerd 2.x."""


class Namespace:
    """One namespace. Tables that it does not have are empty."""

    def __init__(self, root: Bucket, name: bytes, snapshotter: bytes | None = None) -> None:
        """``snapshotter``: the one whose snapshots will be asked for."""
        self.name = name
        self._snapshotter = snapshotter
        self._top = root.bucket(_V1, name)
        self._snapshots: dict[bytes, Snapshots] = {}

    @property
    def exists(self) -> bool:
        return self._top is not None

    def _bucket(self, *path: bytes) -> Bucket | None:
        return self._top.bucket(*path) if self._top is not None else None

    @property
    def snapshotters(self) -> list[bytes]:
        """Names of snapshotters with snapshots."""
        return buckets_in(self._bucket(b"snapshots"))

    def snapshots(self, snapshotter: bytes) -> Snapshots:
        """Read once, and kept."""
        if snapshotter not in self._snapshots:
            self._snapshots[snapshotter] = Snapshots(self._bucket(b"snapshots", snapshotter))
        return self._snapshots[snapshotter]

    @cached_property
    def blobs(self) -> Blobs:
        return Blobs(self._bucket(b"content", b"blob"))

    @cached_property
    def leases(self) -> Leases:
        return Leases(self._bucket(b"leases"), self._snapshotter)

    @cached_property
    def images(self) -> Images:
        return Images(self._bucket(b"images"))

    @cached_property
    def ingests(self) -> Ingests:
        return Ingests(self._bucket(b"content", b"ingests"))

    @cached_property
    def containers(self) -> Containers:
        return Containers(self._bucket(b"containers"))

    @cached_property
    def sandboxes(self) -> Sandboxes:
        return Sandboxes(self._bucket(b"sandboxes"))
