"""A root with a damaged database: one clear error, and nothing changes."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import ondisk
import other_user
from buildkit_migrate import cli
from crafted import sign
from ondisk import OnDisk

DATABASES = ("v1", "containerd", "snapshots")
PAGE = 4096


def newest(data: bytes) -> int:
    return max((0, PAGE), key=lambda page: struct.unpack_from("<Q", data, page + 64)[0])


def top(data: bytes) -> int:
    """Offset of the root page."""
    root: int = struct.unpack_from("<Q", data, newest(data) + 32)[0]
    return root * PAGE


def put(form: str, where: Callable[[bytes], int], offset: int, value: int) -> Callable[[bytearray], None]:
    return lambda data: struct.pack_into(form, data, where(data) + offset, value)


def in_metas(form: str, offset: int, value: int, *, signed: bool = True) -> Callable[[bytearray], None]:
    def damage(data: bytearray) -> None:
        for page in (0, PAGE):
            struct.pack_into(form, data, page + offset, value)
        if signed:
            sign(data, PAGE)

    return damage


def cut(end: int) -> Callable[[bytearray], None]:
    return lambda data: data.__delitem__(slice(end, None))


def first_bucket_is_the_root(data: bytearray) -> None:
    """The first element of the root page leads back to the root page."""
    page = top(data)
    position, key_size = struct.unpack_from("<II", data, page + 16 + 4)
    struct.pack_into("<Q", data, page + 16 + position + key_size, page // PAGE)


DAMAGES: dict[str, tuple[Callable[[bytearray], None], str]] = {
    "zeros": (lambda data: data.__setitem__(slice(None), bytes(len(data))), "page 0: not a bbolt file"),
    "text": (lambda data: data.__setitem__(slice(None), b"text" * 2000), "page 0: not a bbolt file"),
    "magic": (in_metas("<I", 16, 7), "page 0: not a bbolt file"),
    "byte order": (in_metas(">I", 16, 0xED0CDAED), "page 0: written on a big-endian"),
    "version": (in_metas("<I", 20, 1), "page 0: unknown format version"),
    "both checksums": (in_metas("<Q", 72, 7, signed=False), "page 0: wrong checksum"),
    "page size": (in_metas("<I", 24, 4095), "page 0: impossible page size"),
    "high-water mark": (in_metas("<Q", 56, 2**60), "truncated"),
    "root beyond the end": (in_metas("<Q", 32, 10**9), "root bucket is not in the file"),
    "one byte": (cut(1), "too short"),
    "one page": (cut(PAGE), "truncated"),
    "two pages": (cut(2 * PAGE), "truncated"),
    "cut within a page": (cut(5 * PAGE + 7), "truncated"),
    "page of another place": (put("<Q", top, 0, 2**40), "another page"),
    "page type": (put("<H", top, 8, 16), "wrong type of page"),
    "run beyond the end": (put("<I", top, 12, 2**32 - 1), "beyond the pages in use"),
    "element table": (put("<H", top, 10, 65535), "element table"),
    "key beyond the page": (put("<I", top, 16 + 4, 2**31), "outside of the page"),
}


@pytest.mark.parametrize("name", DATABASES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_one_clear_error(
    root: OnDisk, damage: str, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    spoil, text = DAMAGES[damage]
    victim: Path = getattr(root, name)
    data = bytearray(victim.read_bytes())
    spoil(data)
    victim.write_bytes(data)
    before = ondisk.listing(root.worker)
    status = cli.main(["migrate", str(root.root)])
    output, errors = capfd.readouterr()
    assert status == 5, errors
    error, hint = errors.splitlines()
    assert error.startswith(f"buildkit-migrate: error: {victim}: ")
    assert text in error
    assert hint.startswith("buildkit-migrate: hint: ")
    assert output == ""
    assert ondisk.listing(root.worker) == before


@pytest.mark.parametrize(("name", "status"), [("v1", 5), ("containerd", 7), ("snapshots", 7)])
def test_bucket_that_contains_itself_ends_in_an_error(
    root: OnDisk, name: str, status: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """v1 is read in full; in the other databases only the needed buckets are missing."""
    victim: Path = getattr(root, name)
    data = bytearray(victim.read_bytes())
    first_bucket_is_the_root(data)
    victim.write_bytes(data)
    assert cli.main(["migrate", str(root.root)]) == status
    if name == "v1":
        assert f"{victim}: page {top(data) // PAGE}: page is reached twice" in capfd.readouterr().err
    assert not root.v2.exists()
    assert root.left_behind == []
    assert victim.read_bytes() == data


@pytest.mark.parametrize("name", ["containerd", "snapshots"])
@pytest.mark.parametrize("kind", ["directory", "fifo", "device"])
def test_database_that_is_not_a_regular_file_is_refused(
    root: OnDisk, name: str, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    victim: Path = getattr(root, name)
    victim.unlink()
    match kind:
        case "directory":
            victim.mkdir()
        case "fifo":
            os.mkfifo(victim)
        case _:
            try:
                os.mknod(victim, 0o600 | stat.S_IFCHR, os.makedev(1, 5))
            except PermissionError:
                pytest.skip("can't make a device here")
    assert cli.main(["migrate", str(root.root)]) == 5
    assert f"{victim}: not a regular file" in capfd.readouterr().err
    assert root.left_behind == []


@pytest.mark.parametrize(("name", "status"), [("containerd", 7), ("snapshots", 7)])
def test_empty_containerd_database_is_refused(root: OnDisk, name: str, status: int) -> None:
    """0 bytes are a valid, empty database, so the records lack what they need."""
    victim: Path = getattr(root, name)
    victim.write_bytes(b"")
    before = ondisk.listing(root.worker)
    assert cli.main(["migrate", str(root.root)]) == status
    assert ondisk.listing(root.worker) == before


@pytest.mark.parametrize("name", ["containerd", "snapshots"])
def test_unreadable_database_is_named(root: OnDisk, name: str) -> None:
    victim: Path = getattr(root, name)
    victim.chmod(0)
    before = ondisk.listing(root.worker) if os.geteuid() == 0 else None
    result = other_user.run_without_override("migrate", str(root.root))
    assert result.returncode == 8
    assert result.stderr.startswith(f"buildkit-migrate: error: {victim}: Permission denied")
    assert before is None or ondisk.listing(root.worker) == before


def test_sparse_file_takes_little_memory(root: OnDisk) -> None:
    """A 16 GiB hole, all marked as in use: only one bit is kept per page, and holes are not read."""
    pages = 1 << 22
    data = bytearray(root.v1.read_bytes())
    in_metas("<Q", 56, pages)(data)
    put("<I", top, 12, pages // 2)(data)  # half of the file is the root page's run
    root.v1.write_bytes(data)
    os.truncate(root.v1, pages * PAGE)
    code = """
import pathlib, sys
from buildkit_migrate import cli
status = cli.main(["migrate", "--dry-run", sys.argv[1]])
# Not ru_maxrss, which begins with what the parent had.
print(next(line.split()[1] for line in pathlib.Path("/proc/self/status").open() if line.startswith("VmHWM")))
sys.exit(status)
"""
    result = subprocess.run(
        [sys.executable, "-c", code, str(root.root)], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode in (0, 5), result.stderr
    kilobytes = int(result.stdout.splitlines()[-1])
    assert kilobytes < 200_000
