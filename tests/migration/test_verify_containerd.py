"""`verify` of containerd's databases finds any change with the kept original, and most without it."""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import ondisk
from buildkit_migrate import migrate_root, verify_root
from buildkit_migrate.bolt.edits import Edits
from buildkit_migrate.migration import journal
from buildkit_migrate.migration.findings import DifferenceKind
from buildkit_migrate.migration.kept import open_kept
from buildkit_migrate.migration.rewritten import Migrated, rewrite_differences
from buildkit_migrate.migration.verification import Verdict
from containerd_faults import EXPIRE_LABEL, OF_BLOB, OTHERS, RULES, TIME, WHOLE, K, Plants
from dicts import file_of
from fixtures import FLAT_LABEL, NAMESPACE, bucket, buckets
from ondisk import OnDisk
from plain_bbolt import BucketDict


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> OnDisk:
    root = ondisk.sample(tmp_path_factory.mktemp("migrated"))
    ondisk.edit(root.containerd, OTHERS)
    root.migrate_here()
    return root


@pytest.fixture
def root(migrated: OnDisk, tmp_path: Path) -> OnDisk:
    """A migrated root that the test may change."""
    return ondisk.copy_of(migrated, tmp_path)


@pytest.mark.parametrize("is_kept", [True, False])
@pytest.mark.parametrize("name", RULES)
def test_each_rule_names_its_fault_with_and_without_the_original(
    name: str, is_kept: bool, root: OnDisk
) -> None:
    plant, kind, subject = RULES[name]
    sample = Plants(root)
    plant(sample)
    if not is_kept:
        root.kept.unlink()
    (worker,) = verify_root(root.root)
    found = [(difference.kind, difference.subject) for difference in worker.findings.differences]
    assert (kind, subject(sample)) in found
    # The original does not make it appear twice.
    assert not any(kind.startswith("containerd-") for kind, _ in found if kind is not K.VERSION)


@pytest.mark.parametrize("name", WHOLE)
def test_changes_elsewhere_in_the_file_need_the_original(name: str, root: OnDisk) -> None:
    plant, kind, subject = WHOLE[name]
    plant(Plants(root))
    (worker,) = verify_root(root.root)
    found = [(difference.kind, difference.subject) for difference in worker.findings.differences]
    assert found == [(kind, subject)]
    root.kept.unlink()
    (worker,) = verify_root(root.root)
    assert worker.verdict is Verdict.OK
    assert str(root.kept) in worker.findings.unchecked[0]


@pytest.mark.parametrize(
    ("edits", "kind", "key"),
    [
        ({b"labels": {OF_BLOB: None}}, K.REST_MISSING, b"labels/" + OF_BLOB),
        ({b"labels": {OF_BLOB: b"x"}}, K.REST_DIFFERS, b"labels/" + OF_BLOB),
        ({b"labels": None}, K.REST_MISSING, b"labels"),
        ({b"labels": {b"new": b"x"}}, K.REST_UNEXPECTED, b"labels/new"),
        ({b"size": b"\xff\x01"}, K.REST_DIFFERS, b"size"),
        ({b"size": None}, K.REST_MISSING, b"size"),
        ({b"createdat": TIME}, K.REST_DIFFERS, b"createdat"),
        ({b"updatedat": None}, K.REST_TIME, b"updatedat"),
        ({b"updatedat": TIME[:1] + bytes(14)}, K.REST_TIME, b"updatedat"),
    ],
)  # fmt: skip
def test_changed_blob_entries_are_named(edits: Edits, kind: DifferenceKind, key: bytes, root: OnDisk) -> None:
    sample = Plants(root)
    sample.edit_blob(edits)
    (worker,) = verify_root(root.root)
    # A changed size may also differ from the records' sizes.
    (found,) = [
        difference for difference in worker.findings.differences if difference.kind is not K.VALUE_DIFFERS
    ]
    assert (found.kind, found.subject) == (kind, b"v1/buildkit/content/blob/" + sample.blob + b"/" + key)


def test_impossible_time_in_a_flat_label_is_named(root: OnDisk) -> None:
    sample = Plants(root)
    sample.edit_lease({b"labels": {FLAT_LABEL: b"yesterday"}})
    (worker,) = verify_root(root.root)
    (found,) = worker.findings.differences
    assert (found.kind, found.found) == (K.REST_TIME, b"yesterday")


def test_long_name_is_abbreviated(root: OnDisk) -> None:
    name = b"n" * 30_000 + b"\xff"
    Plants(root).edit_top({name: b"value"})
    (worker,) = verify_root(root.root)
    assert worker.findings.differences[0].subject == name
    (line,) = [line for line in root.verify().stdout.splitlines() if "nnn" in line]
    assert "... (30001 bytes)" in line
    assert len(line) < 400


def test_binary_value_is_abbreviated(root: OnDisk) -> None:
    sample = Plants(root)
    sample.edit_blob({b"createdat": bytes(range(256)) * 1000})
    result = root.verify()
    (line,) = [line for line in result.stdout.splitlines() if "createdat" in line]
    assert "\\x" not in line
    assert line.endswith("found 0x000102030405060708090a0b0c0d0e0f... (256000 bytes))")
    assert len(line) < 400


# --- Any edit at all


@functools.cache
def small_migration() -> tuple[BucketDict, BucketDict, Migrated]:
    """The original database, the migrated one, and what the migration did."""
    from buildkit_migrate.migration import verify as pure

    with tempfile.TemporaryDirectory() as directory:
        root = ondisk.sample(Path(directory))
        ondisk.edit(root.containerd, OTHERS)
        root.migrate_here()
        before, after = ondisk.tree(root.kept), ondisk.tree(root.containerd)
        found: list[Migrated] = []
        real = pure.best_explained
        pure.best_explained = lambda a, b, c, migrated, d: (
            found.append(migrated) or real(a, b, c, migrated, d)
        )  # type: ignore[func-returns-value]
        try:
            root.verify_here()
        finally:
            pure.best_explained = real
        return before, after, found[0]


def paths(tree: BucketDict, *above: bytes) -> list[tuple[bytes, ...]]:
    found = []
    for name, value in tree.items():
        found.append((*above, name))
        if isinstance(value, dict):
            found += paths(value, *above, name)
    return found


def copy_along(tree: BucketDict, path: tuple[bytes, ...]) -> BucketDict:
    """A copy in which the buckets along the path may be changed."""
    new = dict(tree)
    if path:
        new[path[0]] = copy_along(bucket(tree, path[0]), path[1:])
    return new


@functools.cache
def all_paths() -> list[tuple[bytes, ...]]:
    return paths(small_migration()[1])


@settings(
    max_examples=150, phases=[Phase.generate], suppress_health_check=[HealthCheck.too_slow], deadline=None
)
@given(st.data())
def test_any_change_is_a_difference(data: st.DataObject) -> None:
    before, after, done = small_migration()
    path = data.draw(st.sampled_from(all_paths()))
    *above, name = path
    edited = copy_along(after, tuple(above))
    at = bucket(edited, *above)
    value = at[name]
    match data.draw(st.sampled_from(["lose", "change", "rename", "add", "bucket"])):
        case "lose":
            del at[name]
        case "change":
            at[name] = b"other"
        case "rename":
            at[name + b"!"] = at.pop(name)
        case "add":
            at[name + b"!"] = b""
        case _:
            at[name] = {b"a": b"b"} if isinstance(value, bytes) else {}
    assert at != bucket(after, *above) or value == {}
    if at == bucket(after, *above):
        return
    assert list(rewrite_differences(before, edited, done))


@settings(max_examples=25, phases=[Phase.generate], deadline=None)
@given(st.data())
def test_any_changed_sequence_is_a_difference(data: st.DataObject) -> None:
    at_buckets = [path for path in all_paths() if isinstance(at_path(small_migration()[1], path), dict)]
    path = data.draw(st.sampled_from(at_buckets))
    with tempfile.TemporaryDirectory() as directory:
        root = ondisk.sample(Path(directory))
        ondisk.edit(root.containerd, OTHERS)
        root.migrate_here()
        ondisk.set_sequence(root.containerd, path, 99_999)
        (worker,) = verify_root(root.root)
        (found,) = worker.findings.differences
        assert (found.kind, found.subject) == (K.SEQUENCE, b"/".join(path))


def at_path(tree: BucketDict, path: tuple[bytes, ...]) -> bytes | BucketDict:
    return bucket(tree, *path[:-1])[path[-1]]


# --- Which original


def test_damaged_original_is_not_used(root: OnDisk) -> None:
    data = bytearray(root.kept.read_bytes())
    data[3 * 4096 : 5 * 4096] = bytes(2 * 4096)
    root.kept.write_bytes(data)
    shutil.rmtree(root.v2.with_name(root.v2.name + ".journal"))
    (worker,) = verify_root(root.root)
    assert worker.verdict is Verdict.OK
    assert worker.findings.unchecked == (
        f"containerd's database as a whole: {root.kept} is damaged or can't be read",
    )


def test_unrelated_original_is_not_used(root: OnDisk) -> None:
    root.kept.unlink()
    root.kept.write_bytes(file_of({b"v1": {}}))
    (worker,) = verify_root(root.root)
    assert worker.verdict is Verdict.OK
    assert "is not the file that was kept" in worker.findings.unchecked[0]


@pytest.mark.parametrize("plant", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to(path)])
@pytest.mark.parametrize("has_journal", [True, False])
def test_original_that_is_not_a_regular_file_is_not_used(
    plant: Callable[[Path], object], has_journal: bool, root: OnDisk
) -> None:
    root.kept.unlink()
    plant(root.kept)
    if not has_journal:
        shutil.rmtree(root.v2.with_name(root.v2.name + ".journal"))
    (worker,) = verify_root(root.root)
    assert worker.verdict is Verdict.OK
    assert str(root.kept) in worker.findings.unchecked[0]


def test_original_is_not_used_after_a_daemon_ran_in_between(root: OnDisk) -> None:
    """A daemon may have used the root before the run continued: its changes are not differences."""
    found = journal.Journal.open(journal.journal_path(root.v2))
    assert found is not None
    with found:
        found.update(used=True)
    Plants(root).edit_top({b"v1": {b"k8s.io": {b"leases": {b"pod": None}}}})
    (worker,) = verify_root(root.root)
    assert worker.verdict is Verdict.OK
    assert "between an interrupted migration and its end" in worker.findings.unchecked[0]
    result = root.verify()
    assert result.returncode == 0
    assert f"  not checked: {worker.findings.unchecked[0]}\n" in result.stdout


def test_original_is_found_by_its_name_without_a_journal(root: OnDisk) -> None:
    shutil.rmtree(root.v2.with_name(root.v2.name + ".journal"))
    Plants(root).edit_top({b"v1": {b"k8s.io": None}})
    (worker,) = verify_root(root.root)
    assert [difference.subject for difference in worker.findings.differences] == [b"v1/k8s.io"]


def test_leases_from_before_the_migration_are_compared_with_the_original(tmp_path: Path) -> None:
    root = ondisk.sample(tmp_path)
    ids = sorted(buckets(bucket(ondisk.tree(root.v1), b"_main")))
    flat = {FLAT_LABEL: b"2020-09-13T12:26:40Z"}
    ondisk.edit(
        root.containerd,
        {
            b"v1": {
                b"buildkit": {
                    b"leases": {
                        ids[0]: {b"createdat": TIME, b"labels": flat},
                        ids[1]: {b"createdat": TIME, b"labels": {**flat, EXPIRE_LABEL: b"x"}},
                        ids[2]: {b"createdat": TIME, b"labels": flat, b"content": {b"sha256:x": b""}},
                    }
                }
            }
        },
    )  # fmt: skip
    root.migrate_here()
    root.verify_here()
    ondisk.edit(
        root.containerd, {b"v1": {b"buildkit": {b"leases": {ids[2]: {b"content": {b"sha256:x": None}}}}}}
    )
    (worker,) = verify_root(root.root)
    (found,) = worker.findings.differences
    assert (found.kind, found.subject.split(b"/")[-2:]) == (K.REST_MISSING, [b"content", b"sha256:x"])


# --- Several workers of one containerd


@pytest.fixture
def two(tmp_path: Path) -> OnDisk:
    """A second worker of the same containerd, with the same snapshots under another snapshotter."""
    root = ondisk.sample_of_containerd(tmp_path)
    second = root.root / "containerd-native"
    shutil.copytree(root.worker, second)
    top = bucket(ondisk.tree(root.containerd), b"v1", b"buildkit", b"snapshots")
    ondisk.edit(root.containerd, {**OTHERS, b"v1": {
        **OTHERS[b"v1"], b"buildkit": {b"snapshots": {b"native": top[b"overlayfs"]}}}})  # type: ignore[dict-item]  # fmt: skip
    ondisk.set_sequence(root.containerd, (b"v1", b"buildkit", b"snapshots", b"native"), 1000)
    snapshots = root.snapshots.parent.with_name("io.containerd.snapshotter.v1.native")
    shutil.copytree(root.snapshots.parent, snapshots)
    migrate_root(root.root, containerd_root=root.options[1])
    return root


def test_two_workers_of_one_containerd_verify(two: OnDisk) -> None:
    results = verify_root(two.root, containerd_root=two.options[1])
    assert [(result.verdict, result.findings.unchecked) for result in results] == [(Verdict.OK, ())] * 2


def test_namespace_lost_with_two_workers_is_named(two: OnDisk) -> None:
    ondisk.edit(two.containerd, {b"v1": {b"k8s.io": None}})
    results = verify_root(two.root, containerd_root=two.options[1])
    found = [difference for result in results for difference in result.findings.differences]
    assert [(difference.kind, difference.subject) for difference in found] == [(K.REST_MISSING, b"v1/k8s.io")]


def test_namespace_lost_by_the_first_of_two_workers_is_named(two: OnDisk) -> None:
    """The second one kept the file without it."""
    first, second = sorted(two.containerd.parent.glob("meta.db.before-v2-*"))
    later = min(first, second, key=lambda path: -path.stat().st_mtime_ns)
    ondisk.edit(two.containerd, {b"v1": {b"k8s.io": None}})
    times = later.stat()
    ondisk.edit(later, {b"v1": {b"k8s.io": None}})
    os.utime(later, ns=(times.st_atime_ns, times.st_mtime_ns))
    shutil.rmtree(two.root / "containerd-native" / "metadata_v2.db.journal")
    shutil.rmtree(two.root / "containerd-overlayfs" / "metadata_v2.db.journal")
    results = verify_root(two.root, containerd_root=two.options[1])
    subjects = {difference.subject for result in results for difference in result.findings.differences}
    assert subjects == {b"v1/k8s.io"}


def test_open_kept_has_the_originals_of_all_workers(two: OnDisk) -> None:
    usual = two.kept
    with open_kept(None, two.containerd, usual) as kept:
        assert kept.original is not None
        assert kept.original.reader.path == str(usual)
        assert [other.path.name for other in kept.others] == ["meta.db.before-v2-buildkit-native"]
        # The original of the second worker is what the migration of the first one made.
        first, second = (
            {id for id, _ in root.bucket(*NAMESPACE, b"leases").items()}  # type: ignore[union-attr]
            for root in (*(other.root for other in kept.others), kept.original)
        )
        assert (len(first), len(second)) == (0, 287)
