"""For daemons that call this at each start: checking a root that is migrated already costs almost nothing."""

import os

from buildkit_migrate.choices import KNOWN_SNAPSHOTTERS, check_options
from buildkit_migrate.workspace.names import copied_from

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from buildkit_migrate.migration.report import Report

__all__ = ["ensure_migrated"]

_KINDS = ("runc-", "containerd-")

_MAGICS = {"bolt": b"\xed\xda\x0c\xed\x02\0\0\0", "lmdb": b"\xde\xc0\xef\xbe\x01\0\0\0"}
"""Magic number and version, by engine; as in `store.engines`, which is too expensive to import here."""
_MAGIC_AT = 16


def ensure_migrated(root: "str | os.PathLike[str]", **options: "Any") -> "list[Report]":
    """Migrates whatever needs it in a state or worker directory, whose daemon must be stopped.

    Returns [] if there is nothing to migrate. That is decided from file names and the first bytes of the v2
    stores, which show their engine, before the rest of the package is loaded. Otherwise calls `migrate_root`
    with these options, and returns and raises the same. A directory that does not exist has nothing to
    migrate. Raises ValueError if ``root`` is empty, and always for an invalid ``engine`` or ``on_broken``.
    """
    path = os.fspath(root)
    if not path:
        raise ValueError("the root is empty: is a variable not set?")
    if not isinstance(path, str):
        raise TypeError(f"the root must be a str or a path object, not {type(root).__name__}")
    if options:
        # Wrong options should fail at the first start, not on the day when there is something to migrate.
        names = ("on_broken", "engine", "verify")
        check_options(**{name: options[name] for name in names if name in options})
    if _is_settled(path, _MAGICS.get(options.get("engine", "bolt"))):
        return []
    from buildkit_migrate.api import migrate_root

    return migrate_root(root, **options)


def _is_settled(root: str, magic: bytes | None) -> bool:
    try:
        with os.scandir(root) as entries:
            names = {entry.name for entry in entries if entry.name.startswith(_KINDS)}
    except FileNotFoundError:
        return not _is_taken(root)  # a dangling link's target is perhaps not mounted
    except OSError:
        return False  # `migrate_root` will report the error
    workers = [f"{root}/{name}" for name in names if not _is_copy(name, names)]
    return all(_is_worker_settled(worker, magic) for worker in workers or [root])


def _is_copy(name: str, names: "set[str]") -> bool:
    """Whether it is named like a copy that was put aside; `migrate_root` recognises other copies."""
    kind, _, snapshotter = name.partition("-")
    if snapshotter in KNOWN_SNAPSHOTTERS:
        return False
    others = {other.partition("-")[2] for other in names if other.startswith(kind + "-")} - {snapshotter}
    return copied_from(snapshotter, KNOWN_SNAPSHOTTERS | others) is not None


def _is_worker_settled(worker: str, magic: bytes | None) -> bool:
    """A file that does not start like a store of this engine is left to `migrate_root`."""
    try:
        # O_NONBLOCK: opening a FIFO must not wait for a writer.
        fd = os.open(f"{worker}/metadata_v2.db", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return not _is_taken(f"{worker}/metadata.db")
    except OSError:
        return False
    try:
        return os.pread(fd, 8, _MAGIC_AT) == magic
    except OSError:
        return False
    finally:
        os.close(fd)


def _is_taken(path: str) -> bool:
    """Whether there is anything, a link that leads nowhere included; also if that can't be determined."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        pass
    return True
