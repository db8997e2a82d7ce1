"""What `du` shows of roots that are damaged or lack something, and what it says of the rest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import planting
import v2_roots
from buildkit_migrate import du_root, errors
from buildkit_migrate.maintenance.du import DiskUsage
from ondisk import run
from v2_roots import V2Root

pytestmark = pytest.mark.slow

MOUNT = b"exec.cachemount"


def usage_of(root: V2Root, **options: object) -> DiskUsage:
    return du_root(root.root, **options)


def reasons(usage: DiskUsage) -> str:
    return "\n".join(f"{one.exit_code} {one.place.name}: {one.reason}" for one in usage.incomplete)


def edit_record(root: V2Root, id: bytes, edits: dict[bytes, bytes | None]) -> None:
    planting.edit(root.records, {b"_main": {id: edits}})


def mount(root: V2Root) -> bytes:
    """The id of a cache mount."""
    return next(record.id for _, record in usage_of(root) if record.record_type == MOUNT)


def number_of(root: V2Root, id: bytes) -> str:
    """The name of the directory of a record's snapshot."""
    with root.open() as stores:
        from buildkit_migrate.maintenance.facts import Facts

        worker = Facts(stores).workers[0]
        assert worker.snapshots is not None and worker.backend is not None
        name = worker.snapshots.name[worker.snapshots.index.row(id)]
        return str(worker.backend.id.values[worker.backend.index.row(name or b"")])


@pytest.mark.parametrize(
    ("store", "shown", "code"),
    [
        ("records", 0, 5),
        ("containerd", 199, 5),
        ("snapshots", 199, 5),
        ("cache", 199, 0),
        ("history", 199, 0),
    ],
)
@pytest.mark.parametrize("damage", ["meta", "page"])
def test_a_damaged_store_hides_only_what_it_has(
    store: str, shown: int, code: int, damage: str, tmp_path: Path
) -> None:
    root = v2_roots.healed(tmp_path)
    path: Path = getattr(root, store)
    if damage == "meta":
        planting.damage(path, 0, b"\xa5" * 2 * planting.page_size(path))
    else:
        pages = path.stat().st_size // planting.page_size(path)
        for page in range(2, pages):
            planting.damage_page(path, page)
    done = run("du", "--format", "json", str(root.root))
    document = json.loads(done.stdout)
    assert (done.returncode, len(document["records"])) == (code, shown)
    assert [path.name in one["place"] for one in document["incomplete"]] == [True] * bool(code)


@pytest.mark.parametrize(
    ("store", "shown", "after_start"), [("containerd", 199, 147), ("snapshots", 199, 147), ("records", 0, 0)]
)
def test_a_missing_store_hides_only_what_it_has(
    store: str, shown: int, after_start: int, tmp_path: Path
) -> None:
    """147 is what the daemon showed after its start (spec v2-faults, C2)."""
    root = v2_roots.healed(tmp_path)
    getattr(root, store).unlink()
    usage = usage_of(root)
    assert len(list(usage)) == shown
    if store != "records":
        assert reasons(usage).startswith(f"7 {getattr(root, store).name}")
    assert len(list(usage_of(root, after_start=True))) == after_start


def test_containerds_stores_are_elsewhere(tmp_path: Path) -> None:
    root = v2_roots.v2_root("containerd", tmp_path)
    usage = usage_of(root)
    assert len(list(usage)) == 160
    assert "--containerd-root" in reasons(usage)
    assert {one.exit_code for one in usage.incomplete} == {errors.ContainerdStateError.exit_code}


def test_a_value_that_does_not_decode_is_named(tmp_path: Path) -> None:
    root = v2_roots.healed(tmp_path)
    id = mount(root)
    edit_record(root, id, {b"cache.description": b'{"value":"cut'})
    usage = usage_of(root)
    assert len(list(usage)) == 199
    assert reasons(usage).startswith("5 metadata_v2.db: cache.description of the record " + id.decode())


def test_records_in_a_cycle_are_left_out_and_named(tmp_path: Path) -> None:
    root = v2_roots.healed(tmp_path)
    layer = next(record for _, record in usage_of(root) if not record.mutable and not record.parents)
    edit_record(root, layer.id, {b"cache.parent": b'{"value":"%s"}' % layer.id})
    usage = usage_of(root)
    assert layer.id not in {record.id for _, record in usage}
    assert layer.id.decode() in reasons(usage)
    assert {one.exit_code for one in usage.incomplete} == {5}


@pytest.mark.parametrize(
    ("value", "known"),
    [
        (None, False),
        (b"", False),
        (b'{"value":-1}', False),
        (b'{"value":"x"}', False),
        (b'{"value":5}', True),
    ],
)
def test_what_no_daemon_has_measured_is_measured(value: bytes | None, known: bool, tmp_path: Path) -> None:
    root = v2_roots.healed(tmp_path)
    if not root.directories.stat().st_blocks:
        pytest.skip(
            "directories take no blocks on this file system, so they measure less than the daemon stored"
        )
    before = {record.id: record.size for _, record in usage_of(root)}
    with root.open() as stores:
        from buildkit_migrate.maintenance.facts import Facts

        records = Facts(stores).workers[0].records
        assert records is not None
        ids = [id for id in records.ids if id is not None]
    planting.edit(root.records, {b"_main": {id: {b"snapshot.size": value} for id in ids}})
    usage = usage_of(root)
    assert not usage.incomplete
    found = {record.id: record.size for _, record in usage}
    assert found == (dict.fromkeys(before, 5) if known else before)


def test_a_missing_directory_is_why_du_fails_as_a_whole(tmp_path: Path) -> None:
    root = v2_roots.healed(tmp_path)
    id = mount(root)
    directory = root.directories / number_of(root, id)
    with root.open() as stores:
        from buildkit_migrate.maintenance.facts import Facts

        loading = Facts(stores).workers[0].loading
        assert loading is not None
        row = loading.records.index.row(id)
        partner = loading.records.ids[loading.pair[row]]
        assert partner is not None
    for one in (id, partner):
        edit_record(root, one, {b"snapshot.size": None})
    directory.rename(root.root / "aside")
    usage = usage_of(root)
    assert len(list(usage)) == 199
    assert {record.size for _, record in usage if record.id == id} == {0}
    assert f"7 metadata_v2.db: the size of {id.decode()}" in reasons(usage)
    assert str(directory / "fs") in reasons(usage)
    assert "du fails as a whole" in reasons(usage)


@pytest.mark.parametrize("which", ["lock", "records"])
def test_a_daemon_that_runs_is_named_and_nothing_is_done(
    which: str, tmp_path: Path, locked: Callable[[Path], int]
) -> None:
    root = v2_roots.healed(tmp_path)
    path = root.root / "buildkitd.lock" if which == "lock" else root.records
    path.touch()
    pid = locked(path)
    done = run("du", str(root.root))
    assert done.returncode == errors.BusyError.exit_code
    assert str(pid) in done.stderr
    assert done.stdout == ""


@pytest.fixture
def locked() -> Callable[[Path], int]:
    """Holds a lock in this process, as a daemon does; returns whose it is."""
    import fcntl
    import os

    held = []

    def lock(path: Path) -> int:
        file = path.open("rb")
        held.append(file)
        fcntl.flock(file, fcntl.LOCK_EX)
        return os.getpid()

    return lock


def test_a_damaged_database_of_the_snapshotter_costs_all_mutable_records(tmp_path: Path) -> None:
    """147 is what the daemon showed after its start (spec v2-faults, C1)."""
    root = v2_roots.healed(tmp_path)
    planting.damage(root.snapshots, 0, b"\xa5" * 2 * planting.page_size(root.snapshots))
    assert len(list(usage_of(root))) == 199
    assert len(list(usage_of(root, after_start=True))) == 147


def test_a_record_that_cant_be_looked_up_is_listed(tmp_path: Path) -> None:
    """As one more record (spec v2-faults, C20)."""
    root = v2_roots.healed(tmp_path)
    edit_record(root, b"odd::id\xff", {b"snapshot.committed": b'{"value":true}'})
    done = run("du", "--format", "json", str(root.root))
    assert done.returncode == 0
    records = json.loads(done.stdout)["records"]
    assert len(records) == 200
    (odd,) = [one for one in records if "::" in one["id"]]
    assert odd["id_b64"] == "b2RkOjppZP8="
    assert odd["size"] == 0
    assert odd["createdAt"] is None


def test_a_usage_that_is_no_number_makes_du_fail(tmp_path: Path) -> None:
    """As long as the size is unknown (spec v2-faults, C50)."""
    root = v2_roots.healed(tmp_path)
    merge = next(record for _, record in usage_of(root) if len(record.parents) > 1 and record.size > 0)
    key = (b"v1", b"buildkit", b"snapshots", b"overlayfs", merge.id, b"labels")
    label = planting.below(key, {b"buildkit.mergeUsageSize": b"8k"})
    planting.edit(root.containerd, label)
    assert not usage_of(root).incomplete
    edit_record(root, merge.id, {b"snapshot.size": None})
    assert "the label buildkit.mergeUsageSize of its snapshot is no number" in reasons(usage_of(root))
    assert "du fails as a whole" in reasons(usage_of(root))


def test_the_first_of_many_are_named_and_the_others_counted(tmp_path: Path) -> None:
    root = v2_roots.v2_root("containerd", tmp_path)
    with root.open() as stores:
        from buildkit_migrate.maintenance.facts import Facts

        records = Facts(stores).workers[0].records
        assert records is not None
        ids = [id for id in records.ids if id is not None]
    planting.edit(root.records, {b"_main": {id: {b"snapshot.size": None} for id in ids}})
    usage = usage_of(root)
    unsized = [one.reason for one in usage.incomplete if "size" in one.reason]
    assert len(unsized) == 21
    assert unsized[-1].startswith("and ")
    assert unsized[-1].endswith(" more records of no known size")


@pytest.mark.parametrize("how", ["missing", "empty", "new"])
def test_no_records_beside_snapshots(tmp_path: Path, how: str) -> None:
    """A daemon's du shows nothing then, and the disk stays full."""
    root = v2_roots.healed(tmp_path)
    if how == "missing":
        root.records.unlink()
    elif how == "empty":
        root.records.write_bytes(b"")
    else:
        planting.edit(root.records, {b"_main": None, b"_index": None, b"_external": None})
    result = run("du", str(root.root))
    assert result.returncode == 0
    assert "there are no records, but 233 snapshots" in result.stderr
    assert list(usage_of(root)) == []
