"""Rules that must hold in and between the databases of a stopped containerd, no matter who wrote them.

Pure; spec containerd-metadata-db, sections 3 to 5 and 7. Dangling entries in ``children`` are normal, and so
are snapshots of the snapshotter that containerd does not know (it removes them at startup).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from buildkit_migrate.bolt.tree import Tree, sequence_of
from buildkit_migrate.migration.findings import Difference, DifferenceKind, shown
from buildkit_migrate.model import Kind
from buildkit_migrate.values.numbers import signed, stored_unsigned, unsigned
from buildkit_migrate.values.times import is_readable_time

__all__ = ["descend", "rule_differences", "snapshot_numbers"]

_USABLE: Final = (Kind.VIEW, Kind.ACTIVE, Kind.COMMITTED)
_TIMES: Final = (b"createdat", b"updatedat")
_USAGE: Final = (b"inodes", b"size")


@dataclass(frozen=True)
class _Stored:
    """A snapshot in the snapshotter's database. ``id``: None if missing or malformed."""

    id: int | None
    kind: bytes
    parent: bytes


def rule_differences(
    metadata: Tree, snapshots: Tree, namespace: bytes, snapshotter: bytes
) -> Iterator[Difference]:
    """Broken rules, given the root buckets of containerd's database and of the snapshotter's."""
    yield from _version(metadata)
    backend = descend(snapshots, b"v1", b"snapshots")
    stored = {
        name: _Stored(_number(_value(row, b"id")), _value(row, b"kind") or b"", _value(row, b"parent") or b"")
        for name, row in backend.items()
        if not isinstance(row, bytes)
    }
    yield from _ids(stored, backend)
    yield from _kinds(stored)
    yield from _usage(stored, backend)
    yield from _times(DifferenceKind.SNAPSHOT_TIME, backend)
    yield from _links(stored, descend(snapshots, b"v1", b"parents"))
    path = (b"v1", namespace, b"snapshots", snapshotter)
    yield from _snapshots(descend(metadata, *path), stored, path)
    yield from _times(DifferenceKind.SNAPSHOT_TIME, descend(metadata, *path))
    blobs = descend(metadata, b"v1", namespace, b"content", b"blob")
    yield from _times(DifferenceKind.BLOB_TIME, blobs)


def snapshot_numbers(
    metadata: Tree, snapshots: Tree, namespace: bytes, snapshotter: bytes, names: Iterable[bytes]
) -> dict[bytes, int]:
    """The snapshotter's number of each of these snapshots that it knows."""
    entries = descend(metadata, b"v1", namespace, b"snapshots", snapshotter)
    backend = descend(snapshots, b"v1", b"snapshots")
    numbers = {}
    for key in names:
        name = _value(descend(entries, key), b"name")
        number = _number(_value(descend(backend, name), b"id")) if name is not None else None
        if number is not None:
            numbers[key] = number
    return numbers


def descend(tree: Tree, *path: bytes) -> Tree:
    """The bucket at ``path``, an empty one if it does not exist."""
    for name in path:
        found = tree.get(name)
        tree = {} if found is None or isinstance(found, bytes) else found
    return tree


def _number(stored: bytes | None) -> int | None:
    """A snapshot's number, from 1 up; None if it is invalid."""
    number = unsigned(stored)
    return number if number and stored == stored_unsigned(number) else None


def _value(row: Tree, key: bytes) -> bytes | None:
    value = row.get(key)
    return value if isinstance(value, bytes) else None


def _version(metadata: Tree) -> Iterator[Difference]:
    """containerd creates ``v1`` with a version; without one it takes the file for one of its first."""
    stored = _value(descend(metadata, b"v1"), b"version")
    version = signed(stored)
    if b"v1" in metadata and (version is None or version < 1):
        yield Difference(DifferenceKind.VERSION, b"v1/version", found=shown(stored))


def _times(kind: DifferenceKind, rows: Tree) -> Iterator[Difference]:
    """Checks times in buckets: a missing one is the zero time, a malformed one is an error."""
    for name, row in rows.items():
        for key in _TIMES:
            stored = None if isinstance(row, bytes) else row.get(key)
            if stored is not None and not (isinstance(stored, bytes) and is_readable_time(stored)):
                yield Difference(kind, name, key, found=shown(stored))


# --- The snapshotter's database


def _ids(stored: dict[bytes, _Stored], backend: Tree) -> Iterator[Difference]:
    users: dict[int, bytes] = {}
    for name in sorted(stored):
        id = stored[name].id
        if id is None:
            yield Difference(DifferenceKind.SNAPSHOT_ID, name, found=shown(_raw_id(backend, name)))
        elif users.setdefault(id, name) != name:
            yield Difference(DifferenceKind.SNAPSHOT_ID, name, users[id], found=b"%d" % id)
    yield from _sequence(b"v1/snapshots", backend, max(users, default=0))


def _raw_id(backend: Tree, name: bytes) -> bytes | Tree | None:
    return descend(backend, name).get(b"id")


def _sequence(path: bytes, bucket: Tree, used: int) -> Iterator[Difference]:
    """The sequence is the last number given out; if it is too low, numbers are given out again."""
    sequence = sequence_of(bucket)
    if sequence < used:
        yield Difference(DifferenceKind.SEQUENCE, path, expected=b"%d or more" % used, found=b"%d" % sequence)


def _kinds(stored: dict[bytes, _Stored]) -> Iterator[Difference]:
    committed = bytes([Kind.COMMITTED])
    parents = {row.parent for row in stored.values()}
    for name in sorted(stored):
        kind = stored[name].kind
        if len(kind) != 1 or kind[0] not in _USABLE:
            yield Difference(DifferenceKind.SNAPSHOT_KIND, name, b"kind", found=shown(kind))
        elif name in parents and kind != committed:
            yield Difference(
                DifferenceKind.SNAPSHOT_KIND, name, b"kind", b"committed", Kind(kind[0]).name.lower().encode()
            )


def _usage(stored: dict[bytes, _Stored], backend: Tree) -> Iterator[Difference]:
    """BuildKit uses it to compute the size of a record, and for pruning."""
    for name in sorted(stored):
        if stored[name].kind == bytes([Kind.COMMITTED]):
            row = descend(backend, name)
            for key in _USAGE:
                number = signed(_value(row, key))
                if number is None or number < 0:
                    yield Difference(DifferenceKind.SNAPSHOT_USAGE, name, key, found=shown(row.get(key)))


def _links(stored: dict[bytes, _Stored], links: Tree) -> Iterator[Difference]:
    """``parents`` must have an entry for each snapshot with a parent, made of both numbers."""
    expected: dict[bytes, bytes] = {}
    for name in sorted(stored):
        row = stored[name]
        parent = stored.get(row.parent)
        if parent is not None and parent.id is not None and row.id is not None:
            expected[stored_unsigned(parent.id) + b"\0" + stored_unsigned(row.id)] = name
        elif row.parent and parent is None:
            yield Difference(DifferenceKind.SNAPSHOT_PARENT, name, b"", shown(row.parent))
    found = dict(links.items())
    for key in sorted({*expected, *found}):
        wanted, link = expected.get(key), found.get(key)
        if wanted != link:
            subject = wanted or (link if isinstance(link, bytes) else None) or key
            yield Difference(DifferenceKind.SNAPSHOT_LINK, subject, b"", shown(wanted), shown(link))


# --- Both databases


def _snapshots(entries: Tree, stored: dict[bytes, _Stored], path: tuple[bytes, ...]) -> Iterator[Difference]:
    rows = {key: row for key, row in entries.items() if not isinstance(row, bytes)}
    names = {key: _value(row, b"name") for key, row in rows.items()}
    numbers = [0]
    for key, row in rows.items():
        name = names[key]
        number = _number_in(name, path[1], key)
        if name is None or number is None:
            yield Difference(DifferenceKind.SNAPSHOT_NAME, key, found=shown(row.get(b"name")))
            continue
        numbers.append(number)
        parent = _value(row, b"parent")
        if name in stored and (parent is None or parent in names):
            expected = names[parent] if parent is not None else b""
            if stored[name].parent != expected:
                yield Difference(
                    DifferenceKind.SNAPSHOT_PARENT, key, b"", expected or None, stored[name].parent or None
                )
        if parent in rows and key not in descend(rows[parent], b"children"):
            yield Difference(DifferenceKind.SNAPSHOT_CHILD, parent, key)
    yield from _sequence(b"/".join(path), entries, max(numbers))


def _number_in(name: bytes | None, namespace: bytes, key: bytes) -> int | None:
    """The number in ``<namespace>/<number>/<key>``, the name of a snapshot in the snapshotter."""
    head, tail = namespace + b"/", b"/" + key
    if name is None or not name.startswith(head) or not name.endswith(tail):
        return None
    number = name[len(head) : -len(tail)]
    return int(number) if number.isdigit() and len(number) <= 20 else None
