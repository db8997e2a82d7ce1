"""For daemons that call at each start: a root that is migrated already costs next to nothing."""

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
"""By engine: its magic number and version; as in `store.engines`, which is not worth its import here."""
_MAGIC_AT = 16


def ensure_migrated(root: "str | os.PathLike[str]", **options: "Any") -> "list[Report]":
    """Migrates what is to be migrated of a state directory or a worker directory, whose daemon is stopped.

    Returns [] if nothing is: told from the names of files and the first bytes of the v2 stores, which show
    their engine, before anything of the package is loaded. Otherwise it does what `migrate_root` does with
    these options, and returns and raises the same. A directory that does not exist has nothing to migrate.
    Raises ValueError if ``root`` is empty and, in any case, for an ``engine`` or ``on_broken`` that does not
    exist.
    """
    path = os.fspath(root)
    if not path:
        raise ValueError("the root is empty: is a variable not set?")
    if not isinstance(path, str):
        raise TypeError(f"the root must be a str or a path object, not {type(root).__name__}")
    if options:
        # A wrong one is found at the first start, not when there is something to migrate one day.
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
        return not _is_taken(root)  # what a link should lead to is perhaps not mounted
    except OSError:
        return False  # `migrate_root` says what is wrong with it
    workers = [f"{root}/{name}" for name in names if not _is_copy(name, names)]
    return all(_is_worker_settled(worker, magic) for worker in workers or [root])


def _is_copy(name: str, names: "set[str]") -> bool:
    """Whether it is named like a copy that was put aside; `migrate_root` sorts out what else is one."""
    kind, _, snapshotter = name.partition("-")
    if snapshotter in KNOWN_SNAPSHOTTERS:
        return False
    others = {other.partition("-")[2] for other in names if other.startswith(kind + "-")} - {snapshotter}
    return copied_from(snapshotter, KNOWN_SNAPSHOTTERS | others) is not None


def _is_worker_settled(worker: str, magic: bytes | None) -> bool:
    """What does not begin like a store of the engine is not for us to judge here."""
    try:
        # Not to wait for the writer of a FIFO.
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
