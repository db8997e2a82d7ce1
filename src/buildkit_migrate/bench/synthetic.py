"""Synthetic v1 worker roots of any size, as BuildKit v0.6.4 with an overlayfs OCI worker would leave them.

    python -m buildkit_migrate.bench.synthetic PATH SHAPE RECORDS [SEED]

Equal arguments give equal files. Values and proportions follow real roots: of a hundred records 82 are
committed, 8 mutable, and 10 form pairs of a mutable record and its equal-immutable one (spec
buildkit-metadata, section 2.1). A root takes about 8 kB per record, most of it in containerdmeta.db, where
each snapshot and blob has its own page because a bucket with nested buckets is never inline.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from buildkit_migrate._native.building import Builder
from buildkit_migrate.bench.parts import (
    ACTIVE,
    COMMITTED,
    SHAPES,
    START,
    VIEW,
    digests,
    identities,
    in_order,
    nested,
    stored_time,
    svarint,
    text_time,
    tree,
    uvarint,
    write,
    write_records,
)

SNAPSHOTTER = "overlayfs"
WORKER = f"runc-{SNAPSHOTTER}"
V1, CONTAINERD, SNAPSHOTS = DATABASES = ("metadata.db", "containerdmeta.db", "snapshots/metadata.db")

MUTABLE_SHARE = 0.13
EQUAL_MUTABLE_SHARE = 0.05
VIEW_SHARE = 0.1
BLOB_SHARE = 0.61  # of the committed records: half of all
PULLED_SHARE = 0.2  # of the bases, and of the children of pulled layers
MISSING_BLOB_SHARE = 0.01


@dataclass(frozen=True)
class Stats:
    """Statistics of a root. Depths are numbers of ancestors of committed snapshots; ``size`` is in bytes.

    ``hash_blocks``: 64-byte blocks to hash for all chain ids.
    """

    records: int
    committed: int
    mutable: int
    equal_mutable: int
    with_blob: int
    blobs_missing: int
    views: int
    mean_depth: float
    max_depth: int
    hash_blocks: int
    size: int


@dataclass
class World:
    """A cache before it is written. The lists are in order of creation.

    Snapshots: first the committed ones, then the active ones of mutable records, then leaked views. Records:
    the same without views, then the equal-immutable ones; the i-th of these belongs to the i-th mutable one.
    """

    committed: int
    mutable: int
    equal: int
    ids: list[bytes]
    snapshots: list[bytes]
    parents: list[int]
    depths: list[int]
    blobs: dict[int, bytes]
    diff_ids: dict[int, bytes]
    missing: set[int]
    nanoseconds: list[int]
    rnd: random.Random

    def name(self, i: int) -> bytes:
        """The snapshotter's name of a snapshot. Preparing and committing took one sequence number each."""
        sequence = 2 * (i + 1) if i < self.committed else self.committed + i + 1
        return b"buildkit/%d/%b" % (sequence, self.snapshots[i])

    def time(self, i: int) -> bytes:
        """Creation time of the i-th snapshot, in containerd's form (containerd-metadata-db, section 2)."""
        return stored_time(i, self.nanoseconds[i])

    def gc_root(self, i: int) -> bytes:
        """The same time as text, for the label that protects a snapshot or blob."""
        return text_time(i, self.nanoseconds[i])


def generate(path: Path, shape: str, records: int, seed: int = 1) -> Stats:
    """Writes the three databases of one worker below the root `path`, which must not have them yet."""
    world = _world(shape, records, seed)
    worker = path / WORKER
    (worker / "snapshots").mkdir(parents=True)
    sizes = [
        write(worker / V1, 0o600, lambda builder: write_metadata(builder, world)),
        write(worker / CONTAINERD, 0o644, lambda builder: _containerdmeta(builder, world)),
        write(worker / SNAPSHOTS, 0o600, lambda builder: _snapshotter(builder, world)),
    ]
    return Stats(
        records=records,
        committed=world.committed,
        mutable=world.mutable,
        equal_mutable=world.equal,
        with_blob=len(world.blobs),
        blobs_missing=len(world.missing),
        views=len(world.snapshots) - world.committed - world.mutable,
        mean_depth=sum(world.depths) / max(world.committed, 1),
        max_depth=max(world.depths, default=0),
        hash_blocks=_hash_blocks(world),
        size=sum(sizes),
    )


def _world(shape: str, records: int, seed: int) -> World:
    if shape not in SHAPES:
        raise ValueError(f"no such shape: {shape}")
    rnd = random.Random(f"{shape} {records} {seed}")
    mutable = int(records * MUTABLE_SHARE)
    equal = int(records * EQUAL_MUTABLE_SHARE)
    committed = records - mutable - equal
    views = int(records * VIEW_SHARE)

    parents, depths = tree(shape, committed, rnd)
    ids = identities(records, rnd)
    blobs, diff_ids = _layers(ids, parents, committed, rnd)
    missing = {i for i in blobs if rnd.random() < MISSING_BLOB_SHARE}
    snapshots = ids[: committed + mutable] + identities(views, rnd)
    for _ in range(mutable):
        orphan = shape == "flat" or committed == 0 or rnd.random() < 0.3
        parents.append(-1 if orphan else rnd.randrange(committed))
    parents += [rnd.randrange(committed) for _ in range(views)]
    # The last digit is never 0, as Go would drop it from a time's text.
    nanoseconds = [10 * rnd.randrange(99_999_999) + 3 for _ in range(records + views)]
    return World(
        committed, mutable, equal, ids, snapshots, parents, depths, blobs, diff_ids, missing, nanoseconds, rnd
    )


def _layers(
    ids: list[bytes], parents: list[int], committed: int, rnd: random.Random
) -> tuple[dict[int, bytes], dict[int, bytes]]:
    """Blob and diff id of records that have a blob. The id of a pulled layer is its chainID."""
    fresh = digests(2 * committed, rnd)
    blobs, diff_ids = {}, {}
    pulled: set[int] = set()
    for i in range(committed):
        parent = parents[i]
        is_pulled = (parent < 0 or parent in pulled) and rnd.random() < PULLED_SHARE
        if not is_pulled and rnd.random() >= BLOB_SHARE:
            continue
        blobs[i], diff_ids[i] = next(fresh), next(fresh)
        if is_pulled:
            pulled.add(i)
            chain = ids[parent] + b" " + diff_ids[i] if parent >= 0 else b""
            ids[i] = b"sha256:" + sha256(chain).hexdigest().encode() if chain else diff_ids[i]
    return blobs, diff_ids


def _hash_blocks(world: World) -> int:
    """Number of blocks to hash for all chain ids.

    Three for H(blob + " " + diffID). Three for each of the two ids of a child, but the first of them lies
    within the parent's id, and is shared by all children. Without a blob the parent's ids are empty.
    """
    layers = world.blobs.keys() - world.missing
    parents = [world.parents[i] for i in layers if world.parents[i] >= 0]
    return 3 * len(layers) + 4 * len(parents) + 2 * len(layers.intersection(parents))


# --- metadata.db: spec buildkit-metadata, sections 1 and 2.1 ---


def write_metadata(builder: Builder, world: World) -> None:
    """Writes the v1 store of a world."""
    ids = world.ids
    first_alone, end = world.committed + world.equal, world.committed + world.mutable
    sources = {i: _source(i) for i in range(first_alone, end, 4)}
    index = [b"blobmap::%b::%b" % (blob, ids[i]) for i, blob in world.blobs.items()]
    index += [b"%b::%b" % (source.name, ids[i]) for i, source in sources.items()]
    write_records(builder, ids, world.rnd, index, lambda i: _values(world, i, sources.get(i)))


@dataclass(frozen=True)
class Source:
    """How a mutable record is found again. `name` is the index string, and the value under `key`."""

    key: bytes
    name: bytes
    description: bytes
    record_type: bytes


def _source(i: int) -> Source:
    kind = i // 4 % 4
    if kind == 0:
        name = b"local.sharedKey:context:context-%d:" % i
        return Source(name, name, b"local source for context", b"source.local")
    if kind == 1:
        name = b"cache-dir:/root/.cache/go-build%d" % i
        return Source(
            name, name, b"cached mount /root/.cache/go-build from exec go build", b"exec.cachemount"
        )
    if kind == 2:
        name = b"git-snapshot::%040x:" % (i * 0x9E3779B97F4A7C15)
        return Source(b"git-snapshot", name, b"git snapshot for project %d" % i, b"source.git.checkout")
    name = b"git-remote::https://git.example.org/project-%d.git" % i
    return Source(b"git-remote", name, b"shared git repo for project %d" % i, b"regular")


def _values(world: World, i: int, source: Source | None) -> list[tuple[bytes, bytes]]:
    """Keys of a record in byte order, with their values."""
    created = (START + i) * 1_000_000_000 + world.nanoseconds[i]
    committed, equal = i < world.committed, i >= world.committed + world.mutable
    pulled = world.ids[i].startswith(b"sha256:")
    values = []
    if committed and (blob := world.blobs.get(i)):
        pair = (blob, world.diff_ids[i], blob)
        mapping = b'{"value":{"Blobsum":"%b","DiffID":"%b"},"index":"blobmap::%b"}' % pair
        values.append((b"blobmapping.blob", mapping))
    if equal or (committed and not pulled):
        values.append((b"cache.cachePolicy", b'{"value":1}'))
    values.append((b"cache.createdAt", b'{"value":%d}' % created))
    if pulled:
        description = b"pulled from registry.example.org/base:%d" % (i % 50)
    elif source:
        description = source.description
    else:
        description = b"mount / from exec /bin/sh -c make step-%d \\u003e /out/%d.log" % (i, i % 977)
    values.append((b"cache.description", b'{"value":"%b"}' % description))
    if equal:
        values.append((b"cache.equalMutable", b'{"value":"%b"}' % world.ids[i - world.mutable]))
    elif committed and not pulled:
        values.append((b"cache.equalMutable", b""))
    values.append((b"cache.lastUsedAt", b'{"value":%d}' % (created + 1_000_003 * (i % 86_400))))
    values.append((b"cache.usageCount", b'{"value":%d}' % (1 + i % 7)))
    if committed or equal:
        values.append((b"snapshot.size", b'{"value":%d}' % _size(i)))
    if source:
        values.append((source.key, b'{"value":"%b","index":"%b"}' % (source.name, source.name)))
        values.append((b"cache.recordType", b'{"value":"%b"}' % source.record_type))
        values.sort()
    return values


def _size(i: int) -> int:
    return 8192 + i * 7919 % 100_000_007


# --- containerdmeta.db: spec containerd-metadata-db, section 3 ---


def _containerdmeta(builder: Builder, world: World) -> None:
    with nested(builder, b"v1") as put:
        with nested(builder, b"buildkit"):
            with nested(builder, b"content"):
                with nested(builder, b"blob"):
                    _blobs(builder, world)
                with nested(builder, b"ingests"):
                    pass
            with nested(builder, b"leases"):
                pass
            sequence = world.committed + len(world.snapshots)
            with nested(builder, b"snapshots"), nested(builder, b"overlayfs", sequence):
                _snapshots(builder, world)
        put(b"version", svarint(3))


def _blobs(builder: Builder, world: World) -> None:
    open_bucket, put, close_bucket = builder.open_bucket, builder.put, builder.close_bucket
    for digest, i in sorted((blob, i) for i, blob in world.blobs.items() if i not in world.missing):
        made = world.time(i)
        open_bucket(digest)
        put(b"createdat", made)
        open_bucket(b"labels")
        put(b"containerd.io/gc.root", world.gc_root(i))
        put(b"containerd.io/uncompressed", world.diff_ids[i])
        close_bucket()
        put(b"size", svarint(_size(i) // 3))
        put(b"updatedat", made)
        close_bucket()


def _snapshots(builder: Builder, world: World) -> None:
    open_bucket, put, close_bucket = builder.open_bucket, builder.put, builder.close_bucket
    keys, parents = world.snapshots, world.parents
    children: dict[int, list[bytes]] = {}
    for key, parent in zip(keys, parents, strict=True):
        children.setdefault(parent, []).append(key)
    for i in in_order(keys, range(len(keys))):
        made = world.time(i)
        open_bucket(keys[i])
        if i in children:
            open_bucket(b"children")
            for child in sorted(children[i]):
                put(child, b"")
            close_bucket()
        put(b"createdat", made)
        open_bucket(b"labels")
        put(b"containerd.io/gc.root", world.gc_root(i))
        close_bucket()
        put(b"name", world.name(i))
        if parents[i] >= 0:
            put(b"parent", keys[parents[i]])
        put(b"updatedat", made)
        close_bucket()


# --- snapshots/metadata.db: spec containerd-metadata-db, section 4 ---


def _snapshotter(builder: Builder, world: World) -> None:
    parents, count = world.parents, len(world.snapshots)
    names = [world.name(i) for i in range(count)]
    numbers = [uvarint(i + 1) for i in range(count)]
    with nested(builder, b"v1"):
        with nested(builder, b"parents") as put:
            links = (
                (b"%b\0%b" % (numbers[p], numbers[i]), names[i]) for i, p in enumerate(parents) if p >= 0
            )
            for link, name in sorted(links):
                put(link, name)
        with nested(builder, b"snapshots", count) as put:
            for i in in_order(names, range(count)):
                made = world.time(i)
                builder.open_bucket(names[i])
                put(b"createdat", made)
                put(b"id", numbers[i])
                if i < world.committed:
                    put(b"inodes", svarint(3 + i % 400))
                    put(b"kind", COMMITTED)
                else:
                    put(b"kind", ACTIVE if i < world.committed + world.mutable else VIEW)
                if parents[i] >= 0:
                    put(b"parent", names[parents[i]])
                if i < world.committed:
                    put(b"size", svarint(_size(i)))
                put(b"updatedat", made)
                builder.close_bucket()


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a synthetic v1 worker root.")
    parser.add_argument("path", type=Path)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("records", type=int)
    parser.add_argument("seed", type=int, nargs="?", default=1)
    arguments = parser.parse_args()
    stats = generate(arguments.path, arguments.shape, arguments.records, arguments.seed)
    for key, value in asdict(stats).items():
        print(f"{key:15}{value:>15,}")


if __name__ == "__main__":
    main()
