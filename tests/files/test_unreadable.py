"""Paths that can't be looked at: an error that names them, and never "there is nothing"."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

import ondisk
import other_user
from buildkit_migrate import (
    clean_root,
    ensure_migrated,
    errors,
    migrate_root,
    open_store,
    root_status,
    undo_root,
    verify_root,
)
from buildkit_migrate.files import errors as files
from buildkit_migrate.files.durable import keep
from buildkit_migrate.migration.journal import journal_path
from buildkit_migrate.store.convert import convert
from ondisk import OnDisk

OWNER: Final = {"uid": 1000, "gid": 1000}
SOURCES: Final = Path(files.__file__).parents[1]

COMMANDS: dict[str, Callable[[Path], object]] = {
    "migrate": migrate_root,
    "migrate --dry-run": lambda root: migrate_root(root, dry_run=True),
    "verify": verify_root,
    "status": root_status,
    "undo": undo_root,
    "undo --dry-run": lambda root: undo_root(root, dry_run=True),
    "clean": clean_root,
    "clean --dry-run": lambda root: clean_root(root, dry_run=True),
    "ensure_migrated": ensure_migrated,
    "convert": lambda root: convert(root / "runc-overlayfs/metadata.db", root / "runc-overlayfs/new"),
}


@pytest.fixture(params=["v1", "v2"])
def root(request: pytest.FixtureRequest) -> Iterator[OnDisk]:
    """Of a user 1000, not migrated and migrated, where that user may go."""
    for directory in other_user.open_directory():
        root = ondisk.sample(directory)
        if request.param == "v2":
            root.migrate_here()
        yield other_user.owned(root, 1000, 1000)


@pytest.mark.parametrize("mode", [0o444, 0o000])
@pytest.mark.parametrize("name", [".", "runc-overlayfs"])
@pytest.mark.parametrize("command", COMMANDS)
def test_directory_without_search_permission_is_named(
    root: OnDisk, command: str, name: str, mode: int
) -> None:
    (root.root / name).chmod(mode)
    found = other_user.failure(OWNER, lambda: COMMANDS[command](root.root))
    (root.root / name).chmod(0o755)
    assert found.startswith(f"StorageError: {root.root}")
    assert found.endswith("Permission denied")


@pytest.mark.parametrize("command", ["status", "undo", "undo --dry-run", "clean", "clean --dry-run"])
def test_journal_without_search_permission_is_named(root: OnDisk, command: str) -> None:
    journal = journal_path(root.v2)
    if not root.v2.exists():
        journal.mkdir()
        (journal / "data.mdb").touch()
        other_user.owned(root, 1000, 1000)
    journal.chmod(0o444)
    found = other_user.failure(OWNER, lambda: COMMANDS[command](root.root))
    assert found.startswith(f"StorageError: {journal}/")
    assert found.endswith("Permission denied")


def test_skipped_copy_need_not_be_readable(root: OnDisk) -> None:
    copy = root.root / "runc-overlayfs.bak"
    copy.mkdir()
    copy.chmod(0o000)
    assert other_user.failure(OWNER, lambda: root_status(root.root)) == ""


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", ["metadata.db", "metadata_v2.db", ""])
def test_circular_links_are_named(tmp_path: Path, command: str, name: str) -> None:
    root = ondisk.sample(tmp_path)
    if name == "metadata_v2.db" and command == "convert":
        return
    path = root.worker / name if name else root.worker
    if path.exists():
        path.rename(path.with_name("before"))
    path.symlink_to(path.name)
    with pytest.raises(errors.StorageError, match="symbolic links"):
        COMMANDS[command](root.root)
    assert path.is_symlink()


@pytest.mark.parametrize("command", COMMANDS)
def test_name_that_is_too_long_is_an_error(tmp_path: Path, command: str) -> None:
    with pytest.raises(errors.StorageError, match="File name too long"):
        COMMANDS[command](tmp_path / ("n" * 256))


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "convert"])
def test_path_below_a_file_is_an_error(tmp_path: Path, command: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(errors.RootNotFoundError):
        COMMANDS[command](tmp_path / "file" / "root")


def test_convert_below_a_file_is_an_error(tmp_path: Path) -> None:
    root = ondisk.sample(tmp_path)
    (tmp_path / "file").touch()
    for source, target in ((tmp_path / "file/source", tmp_path / "new"), (root.v1, tmp_path / "file/target")):
        with pytest.raises(errors.StorageError, match="Not a directory") as caught:
            convert(source, target)
        assert str(tmp_path / "file") in str(caught.value)


def test_unreadable_target_of_convert_is_named(root: OnDisk) -> None:
    directory = root.root / "mine"
    directory.mkdir(0o700)
    found = other_user.failure(OWNER, lambda: convert(root.v1, directory / "new"))
    assert found == f"StorageError: {directory / 'new'}: Permission denied"


def test_convert_of_an_unreadable_directory_is_an_error(root: OnDisk) -> None:
    """The store that may be meant can't be found; that is no other error."""
    root.worker.chmod(0o000)
    found = other_user.failure(OWNER, lambda: convert(root.worker, root.root / "new"))
    assert found == f"CorruptDatabaseError: {root.worker}: not a regular file (a directory)"


@pytest.mark.parametrize("create", ["bolt", "lmdb"])
def test_unreadable_store_is_named(root: OnDisk, create: str) -> None:
    root.worker.chmod(0o000)
    found = other_user.failure(OWNER, lambda: open_store(root.worker / "store", create=create))
    assert found == f"StorageError: {root.worker / 'store'}: Permission denied"


def test_undone_store_does_not_replace_a_link(tmp_path: Path) -> None:
    """One that leads nowhere is something, too."""
    root = ondisk.sample(tmp_path)
    root.migrate_here()
    link = root.v2.with_name("metadata_v2.db.undone")
    link.symlink_to("nowhere")
    (undone,) = undo_root(root.root)
    assert undone.moved == link.with_name(f"{link.name}.2")
    assert link.is_symlink()


def test_kept_name_is_never_a_link(tmp_path: Path) -> None:
    """A link to the file is not the file: it would lead to what replaces it."""
    path, name = tmp_path / "path", tmp_path / "name"
    path.write_text("old")
    name.symlink_to("path")
    for _ in range(2):
        keep(path, name)
        assert name.samefile(path)
        assert not name.is_symlink()
    assert (tmp_path / "name.~1~").is_symlink()


# --- The functions that look


def test_path_checks_tell_files_directories_and_links_apart(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "directory").symlink_to(".")
    (tmp_path / "lost").symlink_to("nowhere")
    seen = {
        name: (
            files.exists(tmp_path / name),
            files.exists(tmp_path / name, follow_symlinks=False),
            files.is_file(tmp_path / name),
            files.is_directory(tmp_path / name),
            files.is_link(tmp_path / name),
        )
        for name in (".", "file", "link", "directory", "lost", "nowhere")
    }
    assert seen == {
        ".": (True, True, False, True, False),
        "file": (True, True, True, False, False),
        "link": (True, True, True, False, True),
        "directory": (True, True, False, True, True),
        "lost": (False, True, False, False, True),
        "nowhere": (False, False, False, False, False),
    }
    assert not files.is_file(tmp_path / "link", follow_symlinks=False)
    assert not files.is_directory(tmp_path / "directory", follow_symlinks=False)


QUIET: Final = {
    *("exists", "is_dir", "is_file", "is_symlink", "is_mount", "is_socket", "is_fifo", "glob", "rglob"),
    *(
        "is_block_device",
        "is_char_device",
        "rglob",
        "lexists",
        "isfile",
        "isdir",
        "islink",
        "ismount",
        "walk",
    ),
}
"""Of `pathlib` and `os.path`: what takes an error for "no", or lets it out as it is."""

EXEMPT: Final = {"workspace/places.py"}
"""Looks for roots all over the host: what can't be seen there is not where the root is."""


def test_sources_use_no_call_that_hides_errors_of_paths() -> None:
    found = [
        f"{path.relative_to(SOURCES)}:{node.lineno}: {node.func.attr}"
        for path in sorted(SOURCES.rglob("*.py"))
        if str(path.relative_to(SOURCES)) not in EXEMPT
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in QUIET
    ]
    assert found == []
