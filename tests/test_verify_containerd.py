"""`verify` of containerd's databases: nothing can be changed beside the kept original, little without it."""

from __future__ import annotations

import functools
import os
import shutil
import struct
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
from buildkit_migrate.migration.kept import opened_kept
from buildkit_migrate.migration.rewritten import Migrated, rewrite_differences
from buildkit_migrate.migration.verification import Verdict
from dicts import file_of
from fixtures import FLAT_LABEL, ROOT_LABEL, Tree, bucket, buckets
from ondisk import OnDisk
from test_verify_root import Sample

EXPIRE_LABEL = b"containerd.io/gc.expire"
OF_BLOB = b"containerd.io/uncompressed"
TIME = struct.pack(">BqIh", 1, 62135596800 + 1_600_000_000, 0, -1)

OTHERS: Edits = {
    b"v1": {
        b"k8s.io": {
            b"leases": {b"pod": {b"createdat": TIME, b"labels": {EXPIRE_LABEL: b"2020-09-13T12:26:40Z"}}},
            b"snapshots": {b"overlayfs": {}},
            b"content": {b"blob": {b"sha256:" + b"1" * 64: {b"size": b"\x02"}}},
            b"images": {b"pause": {b"target": {b"size": b"\x02"}}},
        },
        b"buildkit": {
            b"content": {b"ingests": {b"layer": {b"ref": b"1", b"expireat": TIME}}},
            b"images": {b"docker.io/library/a": {b"createdat": TIME}},
            b"labels": {b"owner": b"me"},
            b"leases": {b"of somebody": {b"createdat": TIME, b"content": {b"sha256:x": b""}}},
        },
    },
    b"sandboxes": {b"k8s.io": {b"one": b"more"}},
}
"""What else a containerd may have, and a migration has to leave alone."""


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> OnDisk:
    root = ondisk.sample(tmp_path_factory.mktemp("migrated"))
    ondisk.edit(root.containerd, OTHERS)
    root.migrate_here()
    return root


@pytest.fixture
def root(migrated: OnDisk, tmp_path: Path) -> OnDisk:
    """A migrated root of one's own."""
    shutil.copytree(migrated.root, tmp_path / "root")
    return ondisk.oci(tmp_path / "root", migrated.snapshotter)


class Plants(Sample):
    """Things to spoil in a root: those of `Sample`, and more of containerd's."""

    def __init__(self, root: OnDisk) -> None:
        super().__init__(root)
        top = bucket(self.containerd, b"v1", b"buildkit")
        self.rows = buckets(bucket(top, b"snapshots", b"overlayfs"))
        self.blob_row = bucket(top, b"content", b"blob", self.blob)
        self.parent = self.snapshots[self.layer].parent
        # Without a dangling child.
        self.only_child = next(
            (name, *children)
            for name, row in self.rows.items()
            if len(children := bucket(row, b"children")) == 1 and children.keys() <= self.rows.keys()
        )
        self.stored = buckets(bucket(self.backend, b"v1", b"snapshots"))
        self.name, self.other_name = self.backend_name(self.layer), self.backend_name(self.leaf)

    def edit_top(self, edits: Edits) -> None:
        ondisk.edit(self.root.containerd, edits)

    def edit_blob(self, edits: Edits | None) -> None:
        self.edit_containerd({b"content": {b"blob": {self.blob: edits}}})

    def edit_links(self, edits: Edits) -> None:
        ondisk.edit(self.root.snapshots, {b"v1": {b"parents": edits}})

    def set_sequence(self, sequence: int) -> None:
        ondisk.set_sequence(self.root.containerd, (b"v1", b"buildkit", b"snapshots", b"overlayfs"), sequence)

    def link(self) -> bytes:
        links = bucket(self.backend, b"v1", b"parents")
        return next(key for key, name in links.items() if name == self.name)


K = DifferenceKind
Plant = Callable[[Plants], object]
Subject = Callable[[Plants], bytes]

RULES: dict[str, tuple[Plant, DifferenceKind, Subject]] = {
    "lease expired": (
        lambda s: s.edit_lease({b"labels": {EXPIRE_LABEL: b"2020-09-13T12:26:40Z"}}),
        K.LEASE_EXPIRED,
        lambda s: s.layer,
    ),
    "lease will expire": (
        lambda s: s.edit_lease({b"labels": {EXPIRE_LABEL: b"9020-09-13T12:26:40Z"}}),
        K.LEASE_EXPIRES,
        lambda s: s.layer,
    ),
    "lease without createdat": (
        lambda s: s.edit_lease({b"createdat": None}),
        K.LEASE_UNDATED,
        lambda s: s.layer,
    ),
    "createdat cut": (
        lambda s: s.edit_lease({b"createdat": TIME[:14]}),
        K.LEASE_UNDATED,
        lambda s: s.layer,
    ),
    "createdat of zero": (
        lambda s: s.edit_lease({b"createdat": b"\1" + bytes(12) + b"\xff\xff"}),
        K.LEASE_UNDATED,
        lambda s: s.layer,
    ),
    "createdat of no version": (
        lambda s: s.edit_lease({b"createdat": b"\x07" + TIME[1:]}),
        K.LEASE_UNDATED,
        lambda s: s.layer,
    ),
    "version gone": (
        lambda s: s.edit_top({b"v1": {b"version": None}}),
        K.VERSION,
        lambda s: b"v1/version",
    ),
    "version of 0": (
        lambda s: s.edit_top({b"v1": {b"version": b"\0"}}),
        K.VERSION,
        lambda s: b"v1/version",
    ),
    "version that is none": (
        lambda s: s.edit_top({b"v1": {b"version": b"\xff"}}),
        K.VERSION,
        lambda s: b"v1/version",
    ),
    "name of another snapshot": (
        lambda s: s.edit_snapshot(s.layer, {b"name": s.other_name}),
        K.SNAPSHOT_NAME,
        lambda s: s.layer,
    ),
    "name of another namespace": (
        lambda s: s.edit_snapshot(s.layer, {b"name": s.name.replace(b"buildkit/", b"k8s.io/")}),
        K.SNAPSHOT_NAME,
        lambda s: s.layer,
    ),
    "name that nobody has": (
        lambda s: s.edit_snapshot(s.layer, {b"name": b"buildkit/1/" + s.layer}),
        K.SNAPSHOT_MISSING,
        lambda s: s.layer,
    ),
    "no name": (
        lambda s: s.edit_snapshot(s.view, {b"name": None}),
        K.SNAPSHOT_NAME,
        lambda s: s.view,
    ),
    "child not listed": (
        lambda s: s.edit_snapshot(s.parent, {b"children": {s.layer: None}}),
        K.SNAPSHOT_CHILD,
        lambda s: s.parent,
    ),
    "no children": (
        lambda s: s.edit_snapshot(s.only_child[0], {b"children": None}),
        K.SNAPSHOT_CHILD,
        lambda s: s.only_child[0],
    ),
    "sequence too low": (
        lambda s: s.set_sequence(3),
        K.SEQUENCE,
        lambda s: b"v1/buildkit/snapshots/overlayfs",
    ),
    # In the snapshotter's database:
    "another parent": (
        lambda s: s.edit_backend(s.layer, {b"parent": s.other_name}),
        K.SNAPSHOT_PARENT,
        lambda s: s.layer,
    ),
    "no parent": (
        lambda s: s.edit_backend(s.layer, {b"parent": None}),
        K.SNAPSHOT_PARENT,
        lambda s: s.layer,
    ),
    "parent that nobody is": (
        lambda s: s.edit_backend(s.layer, {b"parent": b"buildkit/1/nobody"}),
        K.SNAPSHOT_PARENT,
        lambda s: s.layer,
    ),
    "parent is not committed": (
        lambda s: s.edit_backend(s.parent, {b"kind": b"\x02"}),
        K.SNAPSHOT_KIND,
        lambda s: s.backend_name(s.parent),
    ),
    "no kind": (
        lambda s: s.edit_backend(s.mutable, {b"kind": None}),
        K.SNAPSHOT_KIND,
        lambda s: s.backend_name(s.mutable),
    ),
    "kind of 9": (
        lambda s: s.edit_backend(s.mutable, {b"kind": b"\x09"}),
        K.SNAPSHOT_KIND,
        lambda s: s.backend_name(s.mutable),
    ),
    "no id": (lambda s: s.edit_backend(s.layer, {b"id": None}), K.SNAPSHOT_ID, lambda s: s.name),
    "id cut": (lambda s: s.edit_backend(s.layer, {b"id": b"\x80"}), K.SNAPSHOT_ID, lambda s: s.name),
    "id of 0": (lambda s: s.edit_backend(s.layer, {b"id": b"\0"}), K.SNAPSHOT_ID, lambda s: s.name),
    "id and more": (lambda s: s.edit_backend(s.layer, {b"id": b"\1\1"}), K.SNAPSHOT_ID, lambda s: s.name),
    "id of another": (
        lambda s: s.edit_backend(s.layer, {b"id": s.stored[s.other_name][b"id"]}),
        K.SNAPSHOT_ID,
        lambda s: max(s.name, s.other_name),
    ),
    "id too high": (
        lambda s: ondisk.set_sequence(s.root.snapshots, (b"v1", b"snapshots"), 3),
        K.SEQUENCE,
        lambda s: b"v1/snapshots",
    ),
    "time of a snapshot cut": (
        lambda s: s.edit_snapshot(s.layer, {b"createdat": TIME[:14]}),
        K.SNAPSHOT_TIME,
        lambda s: s.layer,
    ),
    "time of a snapshot empty": (
        lambda s: s.edit_snapshot(s.layer, {b"updatedat": b""}),
        K.SNAPSHOT_TIME,
        lambda s: s.layer,
    ),
    "time in the snapshotter of no version": (
        lambda s: s.edit_backend(s.layer, {b"updatedat": b"\0" + TIME[1:]}),
        K.SNAPSHOT_TIME,
        lambda s: s.name,
    ),
    "time in the snapshotter too long": (
        lambda s: s.edit_backend(s.layer, {b"createdat": TIME + b"\0"}),
        K.SNAPSHOT_TIME,
        lambda s: s.name,
    ),
    "time of a blob cut": (
        lambda s: s.edit_blob({b"createdat": TIME[:14]}),
        K.BLOB_TIME,
        lambda s: s.blob,
    ),
    "new time of a blob is none": (
        lambda s: s.edit_blob({b"updatedat": b"x" * 15}),
        K.BLOB_TIME,
        lambda s: s.blob,
    ),
    "size of a snapshot gone": (
        lambda s: s.edit_backend(s.layer, {b"size": None}),
        K.SNAPSHOT_USAGE,
        lambda s: s.name,
    ),
    "inodes of a snapshot cut": (
        lambda s: s.edit_backend(s.layer, {b"inodes": b"\x80"}),
        K.SNAPSHOT_USAGE,
        lambda s: s.name,
    ),
    "size of a snapshot below 0": (
        lambda s: s.edit_backend(s.layer, {b"size": b"\1"}),
        K.SNAPSHOT_USAGE,
        lambda s: s.name,
    ),
    "no entry in parents": (
        lambda s: s.edit_links({s.link(): None}),
        K.SNAPSHOT_LINK,
        lambda s: s.name,
    ),
    "entry in parents of another": (
        lambda s: s.edit_links({s.link(): s.other_name}),
        K.SNAPSHOT_LINK,
        lambda s: s.name,
    ),
    "entry in parents of nobody": (
        lambda s: s.edit_links({b"\x01\x00\x7f": b"buildkit/1/nobody"}),
        K.SNAPSHOT_LINK,
        lambda s: b"buildkit/1/nobody",
    ),
    "all entries in parents": (
        lambda s: ondisk.edit(s.root.snapshots, {b"v1": {b"parents": None}}),
        K.SNAPSHOT_LINK,
        lambda s: s.name,
    ),
    "parent of a view gone": (
        lambda s: s.edit_snapshot(s.snapshots[s.view].parent, None),
        K.SNAPSHOT_MISSING,
        lambda s: s.snapshots[s.view].parent,
    ),
}


@pytest.mark.parametrize("is_kept", [True, False])
@pytest.mark.parametrize("name", RULES)
def test_rules(name: str, is_kept: bool, root: OnDisk) -> None:
    plant, kind, subject = RULES[name]
    sample = Plants(root)
    plant(sample)
    if not is_kept:
        root.kept.unlink()
    (worker,) = verify_root(root.root)
    found = [(difference.kind, difference.subject) for difference in worker.findings.differences]
    assert (kind, subject(sample)) in found
    # With the original it is not told a second time.
    assert not any(kind.startswith("containerd-") for kind, _ in found if kind is not K.VERSION)


WHOLE: dict[str, tuple[Plant, DifferenceKind, bytes]] = {
    "a foreign namespace": (lambda s: s.edit_top({b"v1": {b"k8s.io": None}}), K.REST_MISSING, b"v1/k8s.io"),
    "a foreign lease": (
        lambda s: s.edit_top({b"v1": {b"k8s.io": {b"leases": {b"pod": None}}}}),
        K.REST_MISSING,
        b"v1/k8s.io/leases/pod",
    ),
    "a foreign blob": (
        lambda s: s.edit_top({b"v1": {b"k8s.io": {b"content": {b"blob": None}}}}),
        K.REST_MISSING,
        b"v1/k8s.io/content/blob",
    ),
    "an image": (
        lambda s: s.edit_containerd({b"images": {b"docker.io/library/a": None}}),
        K.REST_MISSING,
        b"v1/buildkit/images/docker.io/library/a",
    ),
    "an ingest": (
        lambda s: s.edit_containerd({b"content": {b"ingests": {b"layer": {b"ref": b"2"}}}}),
        K.REST_DIFFERS,
        b"v1/buildkit/content/ingests/layer/ref",
    ),
    "labels of the namespace": (
        lambda s: s.edit_containerd({b"labels": None}),
        K.REST_MISSING,
        b"v1/buildkit/labels",
    ),
    "a lease of somebody": (
        lambda s: s.edit_containerd({b"leases": {b"of somebody": {b"createdat": None}}}),
        K.REST_MISSING,
        b"v1/buildkit/leases/of somebody/createdat",
    ),
    "a lease more": (
        lambda s: s.edit_containerd({b"leases": {b"more": {b"createdat": TIME}}}),
        K.REST_UNEXPECTED,
        b"v1/buildkit/leases/more",
    ),
    "version 4": (lambda s: s.edit_top({b"v1": {b"version": b"\x08"}}), K.REST_DIFFERS, b"v1/version"),
    "a bucket at the top": (lambda s: s.edit_top({b"sandboxes": None}), K.REST_MISSING, b"sandboxes"),
    "a key at the top": (lambda s: s.edit_top({b"new": b"key"}), K.REST_UNEXPECTED, b"new"),
    "a sequence": (lambda s: s.set_sequence(12345), K.SEQUENCE, b"v1/buildkit/snapshots/overlayfs"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_the_file_as_a_whole(name: str, root: OnDisk) -> None:
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
def test_blobs(edits: Edits, kind: DifferenceKind, key: bytes, root: OnDisk) -> None:
    sample = Plants(root)
    sample.edit_blob(edits)
    (worker,) = verify_root(root.root)
    # A size that containerd does not say, or another, is also one that records have differently, or not.
    (found,) = [
        difference for difference in worker.findings.differences if difference.kind is not K.VALUE_DIFFERS
    ]
    assert (found.kind, found.subject) == (kind, b"v1/buildkit/content/blob/" + sample.blob + b"/" + key)


def test_time_of_a_label_that_leases_have(root: OnDisk) -> None:
    sample = Plants(root)
    sample.edit_lease({b"labels": {FLAT_LABEL: b"yesterday"}})
    (worker,) = verify_root(root.root)
    (found,) = worker.findings.differences
    assert (found.kind, found.found) == (K.REST_TIME, b"yesterday")


def test_a_long_name_is_shown_short(root: OnDisk) -> None:
    name = b"n" * 30_000 + b"\xff"
    Plants(root).edit_top({name: b"value"})
    (worker,) = verify_root(root.root)
    assert worker.findings.differences[0].subject == name
    (line,) = [line for line in root.verify().stdout.splitlines() if "nnn" in line]
    assert "... (30001 bytes)" in line
    assert len(line) < 400


def test_binary_is_shown_short(root: OnDisk) -> None:
    sample = Plants(root)
    sample.edit_blob({b"createdat": bytes(range(256)) * 1000})
    result = root.verify()
    (line,) = [line for line in result.stdout.splitlines() if "createdat" in line]
    assert "\\x" not in line
    assert line.endswith("found 0x000102030405060708090a0b0c0d0e0f... (256000 bytes))")
    assert len(line) < 400


# --- Any edit at all


@functools.cache
def small() -> tuple[Tree, Tree, Migrated]:
    """A migrated database, the original, and what was done."""
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


def paths(tree: Tree, *above: bytes) -> list[tuple[bytes, ...]]:
    found = []
    for name, value in tree.items():
        found.append((*above, name))
        if isinstance(value, dict):
            found += paths(value, *above, name)
    return found


def copied(tree: Tree, path: tuple[bytes, ...]) -> Tree:
    """A copy in which the buckets on the way may be changed."""
    new = dict(tree)
    if path:
        new[path[0]] = copied(bucket(tree, path[0]), path[1:])
    return new


@functools.cache
def all_paths() -> list[tuple[bytes, ...]]:
    return paths(small()[1])


TIMES = (b"createdat", b"updatedat", FLAT_LABEL)


@settings(
    max_examples=150, phases=[Phase.generate], suppress_health_check=[HealthCheck.too_slow], deadline=None
)
@given(st.data())
def test_nothing_can_be_changed(data: st.DataObject) -> None:
    before, after, done = small()
    path = data.draw(st.sampled_from(all_paths()))
    *above, name = path
    edited = copied(after, tuple(above))
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
def test_no_sequence_can_be_changed(data: st.DataObject) -> None:
    at_buckets = [path for path in all_paths() if isinstance(at_path(small()[1], path), dict)]
    path = data.draw(st.sampled_from(at_buckets))
    with tempfile.TemporaryDirectory() as directory:
        root = ondisk.sample(Path(directory))
        ondisk.edit(root.containerd, OTHERS)
        root.migrate_here()
        ondisk.set_sequence(root.containerd, path, 99_999)
        (worker,) = verify_root(root.root)
        (found,) = worker.findings.differences
        assert (found.kind, found.subject) == (K.SEQUENCE, b"/".join(path))


def at_path(tree: Tree, path: tuple[bytes, ...]) -> bytes | Tree:
    return bucket(tree, *path[:-1])[path[-1]]


# --- Which original


def test_a_damaged_original(root: OnDisk) -> None:
    data = bytearray(root.kept.read_bytes())
    data[3 * 4096 : 5 * 4096] = bytes(2 * 4096)
    root.kept.write_bytes(data)
    shutil.rmtree(root.v2.with_name(root.v2.name + ".journal"))
    (worker,) = verify_root(root.root)
    assert worker.verdict is Verdict.OK
    assert worker.findings.unchecked == (
        f"containerd's database as a whole: {root.kept} is damaged or can't be read",
    )


def test_another_file_under_the_name_of_the_original(root: OnDisk) -> None:
    root.kept.unlink()
    root.kept.write_bytes(file_of({b"v1": {}}))
    (worker,) = verify_root(root.root)
    assert worker.verdict is Verdict.OK
    assert "is not the file that was kept" in worker.findings.unchecked[0]


@pytest.mark.parametrize("plant", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to(path)])
@pytest.mark.parametrize("has_journal", [True, False])
def test_no_file_under_the_name_of_the_original(
    plant: Callable[[Path], object], has_journal: bool, root: OnDisk
) -> None:
    root.kept.unlink()
    plant(root.kept)
    if not has_journal:
        shutil.rmtree(root.v2.with_name(root.v2.name + ".journal"))
    (worker,) = verify_root(root.root)
    assert worker.verdict is Verdict.OK
    assert str(root.kept) in worker.findings.unchecked[0]


def test_original_of_before_somebody_else_used_the_file(root: OnDisk) -> None:
    """The run went on after a daemon may have used the root: what that has changed is no difference."""
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


def test_without_a_journal_the_name_tells(root: OnDisk) -> None:
    shutil.rmtree(root.v2.with_name(root.v2.name + ".journal"))
    Plants(root).edit_top({b"v1": {b"k8s.io": None}})
    (worker,) = verify_root(root.root)
    assert [difference.subject for difference in worker.findings.differences] == [b"v1/k8s.io"]


def test_leases_that_were_there_before(tmp_path: Path) -> None:
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


def test_two_workers_of_one_containerd(two: OnDisk) -> None:
    results = verify_root(two.root, containerd_root=two.options[1])
    assert [(result.verdict, result.findings.unchecked) for result in results] == [(Verdict.OK, ())] * 2


def test_a_namespace_lost_with_two_workers(two: OnDisk) -> None:
    ondisk.edit(two.containerd, {b"v1": {b"k8s.io": None}})
    results = verify_root(two.root, containerd_root=two.options[1])
    found = [difference for result in results for difference in result.findings.differences]
    assert [(difference.kind, difference.subject) for difference in found] == [(K.REST_MISSING, b"v1/k8s.io")]


def test_a_namespace_lost_by_the_first_of_two(two: OnDisk) -> None:
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


def test_opened_kept_has_the_others(two: OnDisk) -> None:
    usual = two.kept
    with opened_kept(None, two.containerd, usual) as kept:
        assert kept.original is not None
        assert kept.original.path == usual
        assert [other.path.name for other in kept.others] == ["meta.db.before-v2-buildkit-native"]
    assert ROOT_LABEL  # both were rewritten
