"""Synthetic v2 roots of any size, as BuildKit v0.32 with an overlayfs OCI worker leaves them: healthy ones.

    python -m buildkit_migrate.bench.synthetic_v2 PATH RECORDS [SHAPE] [--files]

Equal arguments give equal files. Of a hundred records 60 are layers (in trees of one of the SHAPES), 30 pairs
of a mutable record and its immutable one, 5 mutable ones that stand alone (cache mounts, sources), 5 merges
and diffs, half of which were never needed. A root takes about 16 kB for a record, most of it in
containerdmeta.db, where each lease has two pages of its own. With files there are the directories of
snapshots, empty, and the blobs, of the right size and nothing but zeros.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from buildkit_migrate._native.building import Builder
from buildkit_migrate.bench.parts import (
    ACTIVE,
    COMMITTED,
    SHAPES,
    START,
    in_order,
    nested,
    stored_time,
    svarint,
    uvarint,
    write,
    write_records,
)
from buildkit_migrate.bench.world_v2 import World, blob_size, log_size, make_world, snapshot_size

__all__ = ["DATABASES", "WORKER", "Stats", "generate"]

WORKER: Final = "runc-overlayfs"
DATABASES: Final = (
    f"{WORKER}/metadata_v2.db",
    f"{WORKER}/containerdmeta.db",
    f"{WORKER}/snapshots/metadata.db",
    "cache.db",
    "history.db",
)


_GZIP: Final = b"application/vnd.oci.image.layer.v1.tar+gzip"


@dataclass(frozen=True)
class Stats:
    """Statistics of a root. ``size``: of the databases, in bytes."""

    records: int
    layers: int
    mutable: int
    pairs: int
    merges: int
    diffs: int
    with_blob: int
    snapshots: int
    leases: int
    results: int
    builds: int
    size: int


def generate(path: Path, records: int, shape: str = "forest", seed: int = 1, *, files: bool = False) -> Stats:
    """Writes a root at ``path``, which must not exist yet. Raises ValueError for an unknown shape."""
    world = make_world(shape, records, seed)
    (path / WORKER / "snapshots" / "snapshots").mkdir(parents=True)
    (path / WORKER / "content" / "ingest").mkdir(parents=True)
    (path / WORKER / "workerid").write_bytes(world.worker)
    contents: list[tuple[int, Callable[[Builder, World], None]]] = [
        (0o600, _metadata),
        (0o644, _containerdmeta),
        (0o600, _snapshotter),
        (0o600, _solver_cache),
        (0o600, _history),
    ]
    sizes = [
        write(path / name, mode, lambda builder, fill=fill: fill(builder, world))  # type: ignore[misc]
        for name, (mode, fill) in zip(DATABASES, contents, strict=True)
    ]
    if files:
        _files(path / WORKER, world)
    return Stats(
        records=records,
        layers=len(world.layers),
        mutable=len(world.mutable),
        pairs=len(world.pairs),
        merges=len(world.merges),
        diffs=len(world.diffs),
        with_blob=len(world.blobs),
        snapshots=len(world.snapshots),
        leases=records - len(world.pairs) + len(world.blobs) + len(world.builds),
        results=len(world.keys),
        builds=len(world.builds),
        size=sum(sizes),
    )


def _value(value: bytes) -> bytes:
    return b'{"value":"%b"}' % value


def _indexed(value: bytes, index: bytes) -> bytes:
    return b'{"value":"%b","index":"%b"}' % (value, index)


# --- metadata_v2.db: specs buildkit-metadata, section 2.2, and buildkit-v2-stores, section 2


def _metadata(builder: Builder, world: World) -> None:
    ids = world.ids
    index = []
    for i, (chain, blob_chain) in world.chains.items():
        index += [b"chainid:%b::%b" % (chain, ids[i]), b"blobchainid:%b::%b" % (blob_chain, ids[i])]
    index += [b"%b::%b" % (_source(i)[2], ids[i]) for i in _alone(world)]
    write_records(builder, ids, world.rnd, index, lambda i: sorted(_values(world, i)))


def _alone(world: World) -> range:
    return world.mutable[len(world.pairs) :]


def _source(i: int) -> tuple[bytes, bytes, bytes, bytes]:
    """Key, value and index of a stand-alone mutable record, and its type."""
    if i % 3 == 0:
        value = b"context:context-%d:" % i
        return b"local.sharedKey", value, b"local.sharedKey:" + value, b"source.local"
    if i % 3 == 1:
        value = b"/root/.cache/go-build%d" % i
        return b"cache-dir", value, b"cache-dir:" + value, b"exec.cachemount"
    value = b"https://git.example.org/project-%d.git" % i
    return b"git-remote", value, b"git-remote::" + value, b"regular"


def _values(world: World, i: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys of a record, with their values."""
    created = (START + i) * 1_000_000_000 + world.nanoseconds[i]
    yield b"cache.createdAt", b'{"value":%d}' % created
    yield b"cache.lastUsedAt", b'{"value":%d}' % (created + 1_000_003 * (i % 86_400))
    yield b"cache.usageCount", b'{"value":%d}' % (1 + i % 7)
    yield b"snapshot.size", b'{"value":%d}' % snapshot_size(i)
    if world.parents[i] >= 0:
        yield b"cache.parent", _value(world.ids[world.parents[i]])
    if i not in world.mutable or i in _alone(world):
        yield b"cache.cachePolicy", b'{"value":1}'
    if i not in world.mutable:
        yield b"snapshot.committed", b'{"value":true}'
    if i in world.pairs:
        own = world.ids[i - len(world.mutable)]
        yield b"cache.equalMutable", _value(own)
    yield b"cache.snapshot", _value(world.ids[i])
    if i in _alone(world):
        key, value, index, record_type = _source(i)
        yield key, _indexed(value, index)
        yield b"cache.recordType", _value(record_type)
        yield b"cache.description", _value(b"source or mount number %d" % i)
    elif i in world.merges:
        parents = b",".join(b'"%b"' % world.ids[parent] for parent in world.several[i])
        yield b"cache.mergeParents", b'{"value":[%b]}' % parents
        yield b"cache.description", _value(b"merge number %d" % i)
    elif i in world.diffs:
        lower, upper = world.several[i]
        yield b"cache.lowerDiffParent", _value(world.ids[lower])
        yield b"cache.upperDiffParent", _value(world.ids[upper])
        yield b"cache.description", _value(b"diff number %d" % i)
    else:
        yield (
            b"cache.description",
            _value(b"mount / from exec /bin/sh -c make step-%d \\u003e /out/%d.log" % (i, i % 977)),
        )
    if i in world.layers:
        yield b"cache.equalMutable", b""
    if i in world.blobs:
        chain, blob_chain = world.chains[i]
        yield b"cache.blob", _value(world.blobs[i])
        yield b"cache.blobsize", b'{"value":%d}' % blob_size(i)
        yield b"cache.diffID", _value(world.diff_ids[i])
        yield b"cache.mediatype", _value(_GZIP)
        yield b"cache.chainID", _indexed(chain, b"chainid:" + chain)
        yield b"cache.blobChainID", _indexed(blob_chain, b"blobchainid:" + blob_chain)


# --- containerdmeta.db: spec containerd-metadata-db, section 3


def _containerdmeta(builder: Builder, world: World) -> None:
    with nested(builder, b"v1") as put:
        with nested(builder, b"buildkit"):
            with nested(builder, b"content"):
                with nested(builder, b"blob"):
                    _blobs(builder, world)
                with nested(builder, b"ingests"):
                    pass
            with nested(builder, b"leases"):
                _leases(builder, world)
            with (
                nested(builder, b"snapshots"),
                nested(builder, b"overlayfs", 2 * len(world.snapshots)),
            ):
                _snapshots(builder, world)
        if world.builds:
            with nested(builder, b"buildkit_history"):
                _history_of_containerd(builder, world)
        put(b"version", svarint(4))


def _blobs(builder: Builder, world: World) -> None:
    open_bucket, put, close_bucket = builder.open_bucket, builder.put, builder.close_bucket
    for digest, i in sorted((blob, i) for i, blob in world.blobs.items()):
        made = world.time(i)
        open_bucket(digest)
        put(b"createdat", made)
        open_bucket(b"labels")
        put(b"buildkit.io/blob/annotation.containerd.io/uncompressed", world.diff_ids[i])
        put(b"buildkit.io/blob/mediatype", _GZIP)
        put(b"containerd.io/gc.ref.content.blob-" + digest, digest)
        put(b"containerd.io/uncompressed", world.diff_ids[i])
        close_bucket()
        put(b"size", svarint(blob_size(i)))
        put(b"updatedat", made)
        close_bucket()


def _leases(builder: Builder, world: World) -> None:
    open_bucket, put, close_bucket = builder.open_bucket, builder.put, builder.close_bucket
    ids, blobs, pairs = world.ids, world.blobs, world.pairs
    for i in in_order(ids, range(len(ids))):
        if i in pairs:
            continue
        blob = blobs.get(i)
        open_bucket(ids[i])
        if blob:
            open_bucket(b"content")
            put(blob, b"")
            close_bucket()
        put(b"createdat", world.time(i))
        open_bucket(b"labels")
        put(b"containerd.io/gc.flat", world.text(i))
        close_bucket()
        open_bucket(b"snapshots")
        open_bucket(b"overlayfs")
        put(ids[i], b"")
        close_bucket()
        close_bucket()
        close_bucket()
        if blob:
            open_bucket(ids[i] + b"-variants")
            open_bucket(b"content")
            put(blob, b"")
            close_bucket()
            put(b"createdat", world.time(i))
            close_bucket()


def _snapshots(builder: Builder, world: World) -> None:
    open_bucket, put, close_bucket = builder.open_bucket, builder.put, builder.close_bucket
    ids = world.ids
    children: dict[int, list[bytes]] = {}
    for i in world.snapshots:
        children.setdefault(world.base(i), []).append(ids[i])
    for i in in_order(ids, world.snapshots):
        made = world.time(i)
        open_bucket(ids[i])
        if i in children:
            open_bucket(b"children")
            for child in sorted(children[i]):
                put(child, b"")
            close_bucket()
        put(b"createdat", made)
        if i in world.merges:
            open_bucket(b"labels")
            put(b"buildkit.mergeUsageInodes", b"2")
            put(b"buildkit.mergeUsageSize", b"%d" % snapshot_size(i))
            close_bucket()
        put(b"name", world.name(i))
        if world.base(i) >= 0:
            put(b"parent", ids[world.base(i)])
        put(b"updatedat", made)
        close_bucket()


def _history_of_containerd(builder: Builder, world: World) -> None:
    made = [stored_time(i, 3) for i in range(len(world.builds))]
    with nested(builder, b"content"), nested(builder, b"blob"):
        for digest, i in sorted((digest, i) for i, digest in enumerate(world.logs)):
            with nested(builder, digest) as put:
                put(b"createdat", made[i])
                put(b"size", svarint(log_size(i)))
                put(b"updatedat", made[i])
    with nested(builder, b"leases"):
        for i in in_order(world.builds, range(len(world.builds))):
            with nested(builder, b"ref_" + world.builds[i]) as put:
                with nested(builder, b"content") as put_resource:
                    put_resource(world.logs[i], b"")
                put(b"createdat", made[i])


# --- snapshots/metadata.db: spec containerd-metadata-db, section 4


def _snapshotter(builder: Builder, world: World) -> None:
    numbers = {i: uvarint(number) for i, number in world.number.items()}
    names = {i: world.name(i) for i in world.snapshots}
    with nested(builder, b"v1"):
        with nested(builder, b"parents") as put:
            links = (
                (b"%b\0%b" % (numbers[world.base(i)], numbers[i]), names[i])
                for i in world.snapshots
                if world.base(i) >= 0
            )
            for link, name in sorted(links):
                put(link, name)
        with nested(builder, b"snapshots", len(world.snapshots)) as put:
            for i in sorted(world.snapshots, key=names.__getitem__):
                made = world.time(i)
                builder.open_bucket(names[i])
                put(b"createdat", made)
                put(b"id", numbers[i])
                if i not in world.mutable:
                    put(b"inodes", svarint(1))
                put(b"kind", ACTIVE if i in world.mutable else COMMITTED)
                if world.base(i) >= 0:
                    put(b"parent", names[world.base(i)])
                if i not in world.mutable:
                    put(b"size", svarint(snapshot_size(i)))
                put(b"updatedat", made)
                builder.close_bucket()


# --- cache.db and history.db: spec buildkit-v2-stores, sections 5 and 6


def _solver_cache(builder: Builder, world: World) -> None:
    """One key per layer, linked from the key of its parent."""
    keys = world.keys
    results = [b"%b::%b" % (world.worker, world.ids[i]) for i in world.layers]
    order = in_order(keys, world.layers)
    links: dict[int, list[bytes]] = {}
    for i in world.layers:
        if world.parents[i] >= 0:
            links.setdefault(world.parents[i], []).append(_link(i) + keys[i])
    with nested(builder, b"_backlinks"):
        for i in order:
            if world.parents[i] >= 0:
                _one(builder, keys[i], keys[world.parents[i]], b"")
    with nested(builder, b"_byresult"):
        for i in in_order(results, world.layers):
            _one(builder, results[i], keys[i], b"")
    with nested(builder, b"_links"):
        for i in order:
            builder.open_bucket(keys[i])
            for link in sorted(links.get(i, ())):
                builder.put(link, b"")
            builder.close_bucket()
    with nested(builder, b"_result"):
        for i in order:
            value = b'{"CreatedAt":"%b","ID":"%b"}' % (world.text(i), results[i])
            _one(builder, keys[i], results[i], value)


def _one(builder: Builder, row: bytes, key: bytes, value: bytes) -> None:
    builder.open_bucket(row)
    builder.put(key, value)
    builder.close_bucket()


def _link(i: int) -> bytes:
    digest = b"%064x" % (i * 0x9E3779B97F4A7C15)
    return b'{"Digest":"sha256:%b","Selector":"sha256:%b"}@' % (digest, digest[::-1])


def _history(builder: Builder, world: World) -> None:
    from buildkit_migrate.schema import history_pb2 as messages

    with nested(builder, b"_records") as put:
        for i in in_order(world.builds, range(len(world.builds))):
            record = messages.BuildHistoryRecord(
                ref=world.builds[i],
                created_at=messages.Timestamp(seconds=START + i),
                completed_at=messages.Timestamp(seconds=START + i + 1),
                logs=messages.Descriptor(digest=world.logs[i], size=log_size(i)),
                generation=1,
            )
            put(world.builds[i], record.SerializeToString(deterministic=True))
    with nested(builder, b"_version") as put:
        put(b"version", b"2")


# --- Directories and blobs


def _files(worker: Path, world: World) -> None:
    for i in world.snapshots:
        directory = worker / "snapshots" / "snapshots" / str(world.number[i])
        (directory / "fs").mkdir(parents=True)
        if i in world.mutable:
            (directory / "work").mkdir()
    blobs = worker / "content" / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    sizes = {blob: blob_size(i) for i, blob in world.blobs.items()}
    sizes |= {digest: log_size(i) for i, digest in enumerate(world.logs)}
    for digest, size in sizes.items():
        with (blobs / digest.decode().removeprefix("sha256:")).open("xb") as file:
            file.truncate(size)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a synthetic v2 root.")
    parser.add_argument("path", type=Path)
    parser.add_argument("records", type=int)
    parser.add_argument("shape", choices=SHAPES, nargs="?", default="forest")
    parser.add_argument("--files", action="store_true", help="directories of snapshots, and blobs, too")
    arguments = parser.parse_args()
    stats = generate(arguments.path, arguments.records, arguments.shape, files=arguments.files)
    for key, value in asdict(stats).items():
        print(f"{key:15}{value:>15,}")


if __name__ == "__main__":
    main()
