"""C25, C46 and C47: files of blobs, and what was being written."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults import Healthy, check, found

from buildkit_migrate.bolt.edits import Edits
from buildkit_migrate.maintenance.check import check_stores
from buildkit_migrate.maintenance.disk import ingest_name
from planting import below

pytestmark = pytest.mark.slow


def used(healthy: Healthy) -> bytes:
    return next(it.digest for it in healthy.last if it.digest)


def test_the_file_of_a_blob_is_gone(healthy: Healthy) -> None:
    healthy.blob_file(used(healthy)).unlink()
    assert found(healthy.root) == {("C25", "B", used(healthy).decode())}


@pytest.mark.parametrize("size", [0, 5, 100_000])
def test_the_file_of_a_blob_has_another_size(healthy: Healthy, size: int) -> None:
    healthy.blob_file(used(healthy)).write_bytes(b"x" * size)
    assert found(healthy.root) == {("C25", "B", used(healthy).decode())}


def test_a_directory_in_the_place_of_a_blob(healthy: Healthy) -> None:
    healthy.blob_file(used(healthy)).unlink()
    healthy.blob_file(used(healthy)).mkdir()
    assert found(healthy.root) == {("C25", "B", used(healthy).decode())}


@pytest.mark.parametrize("content", [False, True])
def test_the_file_of_a_blob_has_other_content(
    healthy: Healthy, monkeypatch: pytest.MonkeyPatch, content: bool
) -> None:
    monkeypatch.setattr("buildkit_migrate.maintenance.check.MANY_BYTES", 1000)
    file = healthy.blob_file(used(healthy))
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with healthy.root.open() as stores:
        checked = check_stores(stores, content=content)
    assert {(it.rule, it.subject) for it in checked.findings} == (
        {("C25", used(healthy).decode())} if content else set()
    )
    assert [it.rules for it in checked.not_tested] == ([] if content else [("C25",)])


def test_few_blobs_are_read_unasked(healthy: Healthy) -> None:
    file = healthy.blob_file(used(healthy))
    data = file.read_bytes()
    file.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    assert found(healthy.root) == {("C25", "B", used(healthy).decode())}


@pytest.mark.parametrize("content", [False, True])
def test_files_are_counted_if_they_are_few_or_somebody_asks(
    healthy: Healthy, monkeypatch: pytest.MonkeyPatch, content: bool
) -> None:
    monkeypatch.setattr("buildkit_migrate.maintenance.check.MANY_FILES", 10)
    (healthy.directory(healthy.last[0]) / "fs" / "more").write_bytes(b"")
    with healthy.root.open() as stores:
        checked = check_stores(stores, content=content)
    assert {it.rule for it in checked.findings} == ({"C49"} if content else set())
    assert [it.rules for it in checked.not_tested] == ([] if content else [("C49",)])


def test_the_file_of_a_log_is_gone(healthy: Healthy) -> None:
    log = sorted(healthy.logs)[0]
    healthy.blob_file(log).unlink()
    assert found(healthy.root) == {("C25", "H", log.decode())}


def test_no_file_of_any_blob(healthy: Healthy) -> None:
    for digest in {*healthy.blobs, *healthy.logs}:
        healthy.blob_file(digest).unlink(missing_ok=True)
    assert found(healthy.root) == {("C25", "B", "blobs")}


def test_a_file_that_nobody_lists(healthy: Healthy) -> None:
    digest = b"sha256:" + b"7" * 64
    healthy.blob_file(digest).write_bytes(b"x" * 3)
    (finding,) = check(healthy.root)
    assert (finding.rule, finding.severity, finding.subject) == ("C46", "L", digest.decode())
    assert finding.bytes == 3


def test_a_file_that_is_expected(healthy: Healthy) -> None:
    digest = b"sha256:" + b"7" * 64
    healthy.blob_file(digest).write_bytes(b"x" * 3)
    ingest(healthy, b"mine", {b"expected": digest})
    assert found(healthy.root) == set()


def ingest(healthy: Healthy, ref: bytes, more: Edits, *, directory: bool = True) -> None:
    backend = healthy.namespace + b"/1/" + ref
    entry = {b"ref": backend, **more}
    healthy.in_containerd(below((b"content", b"ingests"), {ref: entry}))
    if directory:
        (healthy.root.worker / "content" / "ingest" / ingest_name(backend)).mkdir(parents=True)


def test_an_ingest_that_is_complete(healthy: Healthy) -> None:
    ingest(healthy, b"mine", {})
    assert found(healthy.root) == set()


def test_an_ingest_without_directory(healthy: Healthy) -> None:
    ingest(healthy, b"mine", {}, directory=False)
    assert found(healthy.root) == {("C47", "H", "mine")}


def test_an_ingest_that_is_expired(healthy: Healthy) -> None:
    ingest(healthy, b"mine", {b"expireat": b"\x01" + bytes(12) + b"\xff\xff"})
    assert found(healthy.root) == {("C47", "H", "mine")}


def test_a_directory_without_ingest(healthy: Healthy) -> None:
    directory = healthy.root.worker / "content" / "ingest" / ("5" * 64)
    directory.mkdir(parents=True)
    (directory / "data").write_bytes(b"x" * 10_000)
    (finding,) = check(healthy.root)
    assert (finding.rule, finding.severity, finding.subject) == ("C47", "L", f"ingest/{'5' * 64}")
    assert finding.bytes
    assert finding.bytes >= 10_000


def test_a_link_that_leads_nowhere_in_the_place_of_a_blob(healthy: Healthy) -> None:
    file = healthy.blob_file(used(healthy))
    file.unlink()
    file.symlink_to(file)
    assert found(healthy.root, content=True) == {("C25", "B", used(healthy).decode())}


@pytest.mark.parametrize("size", [None, b"\xff" * 12])
def test_a_size_of_containerd_that_can_not_be_read(healthy: Healthy, size: bytes | None) -> None:
    healthy.blob(used(healthy), {b"size": size})
    assert found(healthy.root, content=True) == {("C25", "B", used(healthy).decode())}


def test_what_takes_space_among_the_files(healthy: Healthy, tmp_path: Path) -> None:
    """A link takes none of the bytes that it leads to; a directory takes those of its files."""
    (tmp_path / "large").write_bytes(b"x" * 50_000)
    blobs = healthy.blob_file(used(healthy)).parent
    (blobs / "link").symlink_to(tmp_path / "large")
    (blobs / "directory").mkdir()
    (blobs / "directory" / "file").write_bytes(b"x" * 20_000)
    taken = {it.subject: it.bytes or 0 for it in check(healthy.root) if it.rule == "C46"}
    assert taken["sha256:link"] < 20_000 <= taken["sha256:directory"] < 50_000
