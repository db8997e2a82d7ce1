"""Several faults at once, mended with all classes: then nothing is left to mend, wherever that is cut off."""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import test_builds
import test_dropped
import test_record_properties
import test_several_faults
from faults import FLAT, TIME
from hypothesis import given, settings
from mending import Place, everything, plan
from test_dropped import World
from test_record_properties import as_edits, edits

from buildkit_migrate.bolt import Bucket, Builder, Reader, encode, rewrite
from buildkit_migrate.maintenance.finding import Severity
from buildkit_migrate.maintenance.mend import (
    Change,
    EditStore,
    MakeDirectory,
    MoveAside,
    RemoveDirectory,
    RepairClass,
    RewriteStore,
    WriteFile,
)
from buildkit_migrate.maintenance.repair import RepairPlan
from planting import edit
from v2_roots import V2Root

pytestmark = pytest.mark.slow

Plant = Callable[[World, random.Random], object]


def _of_records(plant: test_dropped.Plant) -> Plant:
    return lambda world, chosen: plant(world)


def _of_layers(plant) -> Plant:  # type: ignore[no-untyped-def]
    return lambda world, chosen: plant(world.it, chosen.choice(world.it.last))


def _of_mounts(plant) -> Plant:  # type: ignore[no-untyped-def]
    return lambda world, chosen: plant(world.it, chosen.choice(world.it.mounts))


def _of_builds(plant) -> Plant:  # type: ignore[no-untyped-def]
    return lambda world, chosen: plant(world.it, chosen.choice(sorted(world.it.builds)))


def _of_the_root(plant) -> Plant:  # type: ignore[no-untyped-def]
    return lambda world, chosen: plant(world.it)


def orphan(world: World, chosen: random.Random) -> None:
    digest = chosen.choice(sorted(world.it.blobs))
    world.it.lease(b"1" * 25, {b"createdat": TIME, b"labels": {FLAT: b"1"}, b"content": {digest: b""}})


def no_cache(world: World, chosen: random.Random) -> None:
    chosen.choice(test_builds.DAMAGES)(world.root.cache)


def description(world: World, chosen: random.Random) -> None:
    world.plant.put(chosen.choice(sorted(world.plant.records)), b"cache.description", b"{")


def entry(world: World, chosen: random.Random) -> None:
    world.plant.put_index(chosen.choice(world.plant.index), there=False)


def torn_history(world: World, chosen: random.Random) -> None:
    edit(world.root.history, {b"_records": {chosen.choice(sorted(world.it.builds)): None}})


CATALOGUE: list[Plant] = [
    *(_of_records(plant) for _, plant in test_dropped.FAULTS),
    *map(_of_layers, test_several_faults.OF_LAYERS),
    *map(_of_mounts, test_several_faults.OF_MOUNTS),
    *map(_of_the_root, test_several_faults.OF_THE_ROOT),
    *map(
        _of_builds,
        (
            test_builds.undecodable,
            test_builds.under_another_name,
            test_builds.without_lease,
            test_builds.with_an_empty_lease,
        ),
    ),
    orphan,
    no_cache,
    description,
    entry,
    torn_history,
]


@pytest.mark.parametrize("seed", range(10))
def test_nothing_is_left_that_a_repair_mends(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time_ns()
    monkeypatch.setattr("time.time_ns", lambda: now)  # leases that are made have a time
    world = planted(tmp_path / "first", random.Random(seed))
    root = world.root
    aside = tmp_path / "planted"
    copy(root.root.parent, aside)
    planned = mend(root)
    assert planned.changes or not planned.mends
    again = plan(root, *RepairClass)
    assert again.mends == ()
    assert again.changes == ()
    end = content(root)
    for cut in range(1, len(planned.changes)):
        shutil.rmtree(root.root.parent)
        copy(aside, root.root.parent)
        carry_out(plan(root, *RepairClass).changes[:cut])
        mend(root)
        assert content(root) == end, cut


def planted(into: Path, chosen: random.Random) -> World:
    """A root with several faults; what does not fit beside another is left out."""
    into.mkdir()
    world = World(into)
    for plant in chosen.sample(CATALOGUE, chosen.randint(2, 7)):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            plant(world, chosen)
    return world


def copy(source: Path, target: Path) -> None:
    target.mkdir()
    subprocess.run(["cp", "-a", "--reflink=auto", f"{source}/.", str(target)], check=True)


def mend(root: V2Root) -> RepairPlan:
    planned = plan(root, *RepairClass)
    carry_out(planned.changes)
    return planned


def carry_out(changes: Sequence[Change]) -> None:
    """Makes the changes in place, one after the other, as if each was all that came through."""
    for change in changes:
        if isinstance(change, EditStore | RewriteStore):
            assert change.store.path is not None
            write(change.store.path, change)
        elif isinstance(change, MakeDirectory):
            change.path.mkdir()
        elif isinstance(change, WriteFile):
            change.path.write_bytes(change.content)
        elif isinstance(change, RemoveDirectory):
            shutil.rmtree(change.path)
        elif isinstance(change, MoveAside):
            change.path.rename(change.path.with_name(f"{change.path.name}.{'0' * 25}.bak"))


def write(path: Path, change: EditStore | RewriteStore) -> None:
    previous = isinstance(change, RewriteStore) and change.previous
    reader = Reader(path.read_bytes(), str(path), previous=previous)
    operations = encode(change.edits, change.sequences) if isinstance(change, EditStore) else encode({})
    image = bytearray()
    builder = Builder(image.extend, reader.page_size)
    rewrite(Bucket(reader), builder, operations)
    metas = builder.finish(reader.transaction + 1)
    image[: len(metas)] = metas
    path.write_bytes(image)


def content(root: V2Root) -> dict[Place, object]:
    """What is in the root, but for the times of files."""
    return {place: it if len(place) > 1 else None for place, it in everything(root).items()}


def test_a_healthy_root_is_left_as_it_is(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert plan(world.root, *RepairClass).mends == ()


class Edited(test_record_properties.World):
    """A healthy root whose records are edited."""

    def __init__(self, into: Path) -> None:
        super().__init__(into)
        self.files = {path: path.read_bytes() for path in self.root.databases}


@pytest.fixture(scope="module")
def edited() -> Iterator[Edited]:
    with tempfile.TemporaryDirectory() as into:
        yield Edited(Path(into))


@settings(max_examples=40)
@given(operations=edits)
def test_whatever_happened_to_records_one_repair_is_enough(
    edited: Edited, operations: list[tuple[str, int, int, int]]
) -> None:
    root = edited.root
    for path, whole in edited.files.items():
        path.write_bytes(whole)
    for operation in operations:
        edit(root.records, as_edits(edited, *operation))
    mend(root)
    again = plan(root, *RepairClass)
    assert again.mends == ()
    assert again.changes == ()
    assert Severity.START not in {it.severity for it in again.left}  # a daemon starts
