"""Roots on disk, the command run on them, and the content of their files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import fixtures
import plain_bbolt
from buildkit_migrate.api import migrate_root, undo_root, verify_root
from buildkit_migrate.bolt import Bucket, Builder, Database, Reader, check, encode, rewrite
from buildkit_migrate.bolt.edits import Edits
from buildkit_migrate.cli.exit_statuses import EXIT_STATUSES, STATUSES_OF
from buildkit_migrate.migration.verification import Verdict
from dicts import file_of
from fixtures import FLAT_LABEL, bucket, buckets
from plain_bbolt import BucketDict

__all__ = [
    "OnDisk",
    "copy_of",
    "docker",
    "docker_sample",
    "edit",
    "empty_database",
    "listing",
    "oci",
    "real",
    "run",
    "sample",
    "sample_of_containerd",
    "set_sequence",
    "timeless",
    "tmpfs",
    "tree",
    "two_workers",
]

SAMPLE = Path(__file__).parents[1] / "data" / "sample-root.tar.gz"
DOCKER_SAMPLE = SAMPLE.with_name("docker-root.tar.gz")


@dataclass(frozen=True)
class OnDisk:
    """A root with one worker, its databases, and the arguments that commands need for it."""

    root: Path
    worker: Path
    containerd: Path
    snapshots: Path
    snapshotter: str
    options: tuple[str, ...] = ()

    @property
    def v1(self) -> Path:
        return self.worker / "metadata.db"

    @property
    def v2(self) -> Path:
        return self.worker / "metadata_v2.db"

    @property
    def kept(self) -> Path:
        shared = f"-buildkit-{self.snapshotter}" if self.options else ""
        return self.containerd.with_name(f"{self.containerd.name}.before-v2{shared}")

    @property
    def left_behind(self) -> list[Path]:
        return [path for path in self.root.parent.rglob("*.tmp") if path.suffix == ".tmp"]

    def migrate(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run("migrate", *self.options, *arguments, str(self.root))

    def verify(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return run("verify", *self.options, *arguments, str(self.root))

    # The same without a new process, in a tenth of the time: for what hundreds of tests do before and after
    # what they test.

    def migrate_here(self) -> None:
        migrate_root(self.root, containerd_root=self._containerd_root)

    def verify_here(self) -> None:
        for result in verify_root(self.root, containerd_root=self._containerd_root):
            assert result.verdict == Verdict.OK, result

    def undo_here(self) -> None:
        undo_root(self.root, containerd_root=self._containerd_root)

    @property
    def _containerd_root(self) -> str | None:
        return self.options[1] if self.options else None


def sample(into: Path) -> OnDisk:
    """The small real root in the repository: the databases of an OCI worker, without layers."""
    with tarfile.open(SAMPLE) as archive:
        archive.extractall(into, filter="data")
    return oci(into / "root", "overlayfs")


def two_workers(into: Path) -> list[OnDisk]:
    """Two workers in one root that are alike but for the snapshotter, ``native`` and ``overlayfs``."""
    first = sample(into)
    shutil.copytree(first.worker, first.root / "runc-native")
    second = oci(first.root, "native")
    rows = bucket(tree(second.containerd), b"v1", b"buildkit", b"snapshots", b"overlayfs")
    snapshots: Edits = {b"overlayfs": None, b"native": rows}
    edit(second.containerd, {b"v1": {b"buildkit": {b"snapshots": snapshots}}})
    return [second, first]


def sample_of_containerd(into: Path) -> OnDisk:
    """The same, laid out as a containerd worker's root beside a containerd's root."""
    oci = sample(into)
    worker = oci.root / "containerd-overlayfs"
    containerd = into / "ctd" / "root"
    found = OnDisk(
        oci.root,
        worker,
        containerd / "io.containerd.metadata.v1.bolt" / "meta.db",
        containerd / "io.containerd.snapshotter.v1.overlayfs" / "metadata.db",
        "overlayfs",
        ("--containerd-root", str(containerd)),
    )
    for source, target in (
        (oci.v1, found.v1),
        (oci.containerd, found.containerd),
        (oci.snapshots, found.snapshots),
    ):
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
    shutil.rmtree(oci.worker)
    return found


def docker_sample(into: Path) -> OnDisk:
    """A small real data root of Docker Engine 18.09 in the repository: its builder and its layer store."""
    with tarfile.open(DOCKER_SAMPLE) as archive:
        archive.extractall(into, filter="data")
    return docker(into / "root")


def docker(data: Path) -> OnDisk:
    """Docker's builder in a data root."""
    builder = data / "buildkit"
    return OnDisk(builder, builder, builder / "containerdmeta.db", builder / "snapshots.db", "default")


def real(name: str, into: Path) -> OnDisk:
    """One of the shared real roots; without its layers if device nodes can't be made here."""
    archive = fixtures.directory() / name / "v1.tar.zst"
    if shutil.which("zstd") is None:
        pytest.skip("no zstd")
    members = [] if os.geteuid() == 0 else ["--wildcards", "*.db"]
    subprocess.run(
        ["tar", "--xattrs", "-I", "zstd", "-xf", str(archive), "-C", str(into), *members], check=True
    )
    snapshotter = fixtures.REAL_ROOTS[name]
    if (into / "ctd").exists():
        containerd = into / "ctd" / "root"
        return OnDisk(
            into / "root",
            into / "root" / f"containerd-{snapshotter}",
            containerd / "io.containerd.metadata.v1.bolt" / "meta.db",
            containerd / f"io.containerd.snapshotter.v1.{snapshotter}" / "metadata.db",
            snapshotter,
            ("--containerd-root", str(containerd)),
        )
    return oci(into / "root", snapshotter)


def copy_of(root: OnDisk, into: Path) -> OnDisk:
    """A copy of an OCI worker's root, in the directory ``into``."""
    shutil.copytree(root.root, into / "root")
    return oci(into / "root", root.snapshotter)


def oci(root: Path, snapshotter: str) -> OnDisk:
    worker = root / f"runc-{snapshotter}"
    snapshots = worker / "snapshots" / "metadata.db"
    return OnDisk(root, worker, worker / "containerdmeta.db", snapshots, snapshotter)


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Runs the command in a new process. Its exit status must be one of those that its help lists."""
    done = subprocess.run(
        [sys.executable, "-m", "buildkit_migrate", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environ},
        check=False,
    )
    if arguments and done.returncode >= 0:
        assert done.returncode in STATUSES_OF.get(arguments[0], EXIT_STATUSES), done.stderr
    return done


def tree(path: Path) -> BucketDict:
    """Content of a database, by the plain reader; the file must be sound."""
    data = path.read_bytes()
    assert check(Reader(data)) == []
    return plain_bbolt.load(data)


@contextlib.contextmanager
def tmpfs(path: Path, size: str) -> Iterator[Path]:
    """Mounts a file system of this size at a new directory; skips the test where that is not possible."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("can't mount a tmpfs here")
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


def timeless(containerd: BucketDict) -> BucketDict:
    """containerd's database without the times that differ from run to run."""
    namespace = bucket(containerd, b"v1", b"buildkit")
    for lease in buckets(bucket(namespace, b"leases")).values():
        lease[b"createdat"] = b""
        bucket(lease, b"labels")[FLAT_LABEL] = b""
    for path in ((b"snapshots", b"overlayfs"), (b"content", b"blob")):
        for object in buckets(bucket(namespace, *path)).values():
            object[b"updatedat"] = b""
    return containerd


def edit(path: Path, edits: Edits) -> None:
    """Changes a database, as a transaction does."""
    with Database.open(path) as database:
        image = bytearray()
        builder = Builder(image.extend, database.reader.page_size)
        rewrite(database.root, builder, encode(edits))
        metas = builder.finish(database.reader.transaction + 1)
        image[: len(metas)] = metas
    path.write_bytes(image)


def set_sequence(path: Path, bucket: tuple[bytes, ...], sequence: int) -> None:
    """Changes the sequence number of one bucket of a database."""
    with Database.open(path) as database:
        image = bytearray()
        builder = Builder(image.extend, database.reader.page_size)
        _copy(database.root, builder, (), {bucket: sequence})
        metas = builder.finish()
        image[: len(metas)] = metas
    path.write_bytes(image)


def _copy(
    source: Bucket, builder: Builder, path: tuple[bytes, ...], sequences: dict[tuple[bytes, ...], int]
) -> None:
    for key, value in source.items():
        if isinstance(value, bytes):
            builder.put(key, value)
        else:
            at = (*path, key)
            builder.open_bucket(key, sequences.get(at, value.sequence))
            _copy(value, builder, at, sequences)
            builder.close_bucket()


def empty_database(path: Path) -> None:
    path.write_bytes(file_of({}))


def listing(directory: Path, without: Iterable[str] = ()) -> dict[str, tuple[object, ...]]:
    """Everything below a directory: kind and mode, owner, size (0 of directories), time, inode, content."""
    found: dict[str, tuple[object, ...]] = {}
    for path in [directory, *directory.rglob("*")]:
        if path.name in without:
            continue
        info = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(info.st_mode) else ""
        found[str(path.relative_to(directory))] = (
            info.st_mode,
            info.st_uid,
            info.st_gid,
            0 if stat.S_ISDIR(info.st_mode) else info.st_size,
            info.st_mtime_ns,
            info.st_ino,
            content,
        )
    return found
