"""Synthetic data roots of Docker Engine 19.03, with v1 records of its builder, of any size.

    python -m buildkit_migrate.bench.synthetic_docker PATH SHAPE RECORDS [SEED] [--layers SHARE]

Equal arguments give equal files. Records are those of `synthetic`, without blobs. Layers have their four
small files, which is all that the engine reads of them at its start; they have no content.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from buildkit_migrate._native.building import Builder
from buildkit_migrate.bench.parts import SHAPES, digests, identities, in_order, tree, write
from buildkit_migrate.bench.synthetic import EQUAL_MUTABLE_SHARE, MUTABLE_SHARE, World, write_metadata

__all__ = ["LAYERS", "Stats", "generate"]

LAYERS: Final = 0.6
"""Share of the committed snapshots on nothing or on a layer that are layers themselves, as in real roots."""
_IMAGE_SHARE: Final = 0.25
"""Share of the layers on images that are in images; their records have the chain id as their id."""


@dataclass(frozen=True)
class Stats:
    """Statistics of a root. ``images``: records of layers of images. ``size``: of the databases in bytes."""

    records: int
    committed: int
    mutable: int
    equal_mutable: int
    layers: int
    images: int
    mean_depth: float
    size: int


@dataclass(frozen=True)
class _Layer:
    chain_id: bytes
    diff_id: bytes
    parent: bytes


def generate(path: Path, shape: str, records: int, seed: int = 1, layers: float = LAYERS) -> Stats:
    """Writes ``buildkit/`` and ``image/`` of a data root at ``path``, which must not have them yet."""
    if shape not in SHAPES:
        raise ValueError(f"no such shape: {shape}")
    rnd = random.Random(f"docker {shape} {records} {seed}")
    mutable, equal = int(records * MUTABLE_SHARE), int(records * EQUAL_MUTABLE_SHARE)
    committed = records - mutable - equal
    parents, depths = tree(shape, committed, rnd)
    ids = identities(records, rnd)
    made = _layers(ids, parents, layers, rnd)
    images = sum(1 for id in ids if id.startswith(b"sha256:"))
    parents += [rnd.randrange(-1, committed) for _ in range(mutable)]
    nanoseconds = [10 * rnd.randrange(99_999_999) + 3 for _ in range(records)]
    alone = ids[: committed + mutable]
    world = World(committed, mutable, equal, ids, alone, parents, depths, {}, {}, set(), nanoseconds, rnd)
    builder = path / "buildkit"
    builder.mkdir(parents=True, mode=0o711)
    active = identities(committed, rnd)
    sizes = [
        write(builder / "metadata.db", 0o600, lambda builder: write_metadata(builder, world)),
        write(builder / "snapshots.db", 0o600, lambda builder: _snapshots(builder, world, active, made)),
        write(builder / "cache.db", 0o600, lambda builder: None),
    ]
    layerdb = path / "image" / "overlay2" / "layerdb" / "sha256"
    layerdb.mkdir(parents=True, mode=0o700)
    for layer in made.values():
        _write_layer(layerdb, layer)
    (path / "overlay2" / "l").mkdir(parents=True, mode=0o700)
    mean = sum(depths) / max(committed, 1)
    return Stats(records, committed, mutable, equal, len(made), images, mean, sum(sizes))


def _layers(ids: list[bytes], parents: list[int], share: float, rnd: random.Random) -> dict[int, _Layer]:
    """The layers among the committed snapshots. Those of images have their chain id as their id."""
    fresh = digests(len(parents), rnd)
    made: dict[int, _Layer] = {}
    images: set[int] = set()
    for i, parent in enumerate(parents):
        if (parent >= 0 and parent not in made) or rnd.random() >= share:
            continue
        diff_id, above = next(fresh), made[parent].chain_id if parent >= 0 else b""
        chain_id = b"sha256:%b" % sha256(above + b" " + diff_id).hexdigest().encode() if above else diff_id
        made[i] = _Layer(chain_id, diff_id, above)
        if (parent < 0 or parent in images) and rnd.random() < _IMAGE_SHARE:
            images.add(i)
            ids[i] = chain_id
    return made


def _snapshots(builder: Builder, world: World, active: list[bytes], made: dict[int, _Layer]) -> None:
    """``snapshots.db``: of a committed snapshot, the bucket with its parent is that of the active one."""
    names = [*world.snapshots, *active]
    of_images = {i for i in made if world.ids[i].startswith(b"sha256:")}
    first = len(world.snapshots)
    for at in in_order(names, (at for at in range(len(names)) if at - first not in of_images)):
        builder.open_bucket(names[at])
        i = at - first if at >= first else at
        if at < world.committed and i not in of_images:
            if i in made:
                builder.put(b"chainid", made[i].chain_id)
            builder.put(b"committed", active[i])
        elif at >= world.committed:
            parent = world.parents[i]
            builder.put(b"parent", world.snapshots[parent] if parent >= 0 else b"")
        builder.close_bucket()


def _write_layer(layerdb: Path, layer: _Layer) -> None:
    place = layerdb / layer.chain_id.decode().partition(":")[2]
    place.mkdir(mode=0o700)
    (place / "diff").write_bytes(layer.diff_id)
    (place / "size").write_bytes(b"4096")
    (place / "cache-id").write_bytes(layer.diff_id.partition(b":")[2])
    if layer.parent:
        (place / "parent").write_bytes(layer.parent)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a synthetic data root of Docker Engine.")
    parser.add_argument("path", type=Path)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("records", type=int)
    parser.add_argument("seed", type=int, nargs="?", default=1)
    parser.add_argument("--layers", metavar="SHARE", type=float, default=LAYERS, help="default: %(default)s")
    arguments = parser.parse_args()
    stats = generate(arguments.path, arguments.shape, arguments.records, arguments.seed, arguments.layers)
    for key, value in asdict(stats).items():
        print(f"{key:15}{value:>15,}")


if __name__ == "__main__":
    main()
