"""For daemons that call this at each start: a root that is migrated and sound costs almost nothing."""

import os
from collections import namedtuple

from buildkit_migrate.choices import KNOWN_SNAPSHOTTERS, SNAPSHOTTERS_WITH_DATABASE, check_options
from buildkit_migrate.workspace.names import copied_from, is_docker_builder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from buildkit_migrate.migration.report import Report

__all__ = ["Doubt", "Soundness", "ensure_migrated", "ensure_sound"]

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
    path = _path(root)
    if options:
        # Wrong options should fail at the first start, not on the day when there is something to migrate.
        names = ("on_broken", "engine", "verify")
        check_options(**{name: options[name] for name in names if name in options})
    if _is_settled(path, _MAGICS.get(options.get("engine", "bolt"))):
        return []
    from buildkit_migrate.api import migrate_root

    return migrate_root(root, **options)


def _path(root: "str | os.PathLike[str]") -> str:
    path = os.fspath(root)
    if not path:
        raise ValueError("the root is empty: is a variable not set?")
    if not isinstance(path, str):
        raise TypeError(f"the root must be a str or a path object, not {type(root).__name__}")
    return path


def _is_settled(root: str, magic: bytes | None) -> bool:
    try:
        names = _listed(root)
    except FileNotFoundError:
        return not _is_taken(root)  # a dangling link's target is perhaps not mounted
    except OSError:
        return False  # `migrate_root` will report the error
    if not _is_docker_builder(root, names):
        workers = _workers_in(root, names)
        if workers:
            return all(_is_worker_settled(worker, magic) for worker in workers)
        root = _docker_builder_in(root, names) or root
    return _is_worker_settled(root, magic)


def _listed(directory: str) -> "set[str]":
    with os.scandir(directory) as entries:
        return {entry.name for entry in entries}


def _workers_in(root: str, names: "set[str]") -> "list[str]":
    named = {name for name in names if name.startswith(_KINDS)}
    return [f"{root}/{name}" for name in named if not _is_copy(name, named)]


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


# --- Soundness


class Doubt(namedtuple("Doubt", ("rule", "file", "what", "call"))):
    """Something that a look at the beginning of the files found.

    ``rule``: its number in docs/rules.md, such as "C3". ``file``: path of the file or directory. ``what``:
    for people. ``call``: name of the function of this package that tells more, or helps: ``check_root``,
    ``compact_root`` or ``migrate_root``.
    """

    __slots__ = ()
    rule: str
    file: str
    what: str
    call: str


class Soundness(namedtuple("Soundness", ("doubts",))):
    """Result of `ensure_sound`. ``doubts``: a tuple of `Doubt`. ``sound``: whether there are none."""

    __slots__ = ()
    doubts: "tuple[Doubt, ...]"

    @property
    def sound(self) -> bool:
        return not self.doubts


_CALLS = {"C5": "compact_root", "C7": "migrate_root"}
"""What helps; for all other rules `check_root` tells what does."""

_OF_STATE = ("cache.db", "cache-debug.db", "history.db", "history_c8d.db")


def ensure_sound(root: "str | os.PathLike[str]") -> Soundness:
    """A cheap look at the stores of a state or worker directory, or of Docker's builder; writes nothing.

    To be called before the daemon opens anything, because files change while they are in use. Looks at names
    and sizes, the meta pages, and the headers of the pages that these refer to, for what can be seen there of
    the rules C1, C2, C3, C5 and C7. (C4 needs all pages; C6 is not tested: no locks are looked at, or taken.)
    Without doubts a full check can still have findings; and a doubt can be something that the daemon copes
    with. A directory that does not exist raises none.

    Raises ValueError if ``root`` is empty; damage raises nothing.
    """
    path = _path(root)
    doubts: list[Doubt] = []
    try:
        names = _listed(path)
    except FileNotFoundError:
        if _is_taken(path):  # its target is perhaps not mounted
            doubts.append(Doubt("C2", path, "it is a link that leads nowhere", "check_root"))
        return Soundness(tuple(doubts))
    except OSError as error:
        return Soundness((Doubt("C1", path, f"it can't be read: {error.strerror}", "check_root"),))
    workers = sorted(_workers_in(path, names))
    of_docker = _is_docker_builder(path, names)
    if not workers and not of_docker:
        if _name(path).startswith(_KINDS):
            _look_at_worker(path, doubts)
            return Soundness(tuple(doubts))
        inside = _docker_builder_in(path, names)
        if inside:
            return ensure_sound(inside)
    with_records = [worker for worker in workers if _look_at_worker(worker, doubts)]
    if of_docker and _look_at_docker_builder(path, doubts):
        with_records.append(path)
    for name in _OF_STATE:
        size = _look_at(f"{path}/{name}", doubts)
        if size is None and name == "cache.db" and with_records:
            _add(doubts, "C2", f"{path}/{name}", "it is missing, beside records")
    return Soundness(tuple(doubts))


def _look_at(path: str, doubts: "list[Doubt]") -> "int | None":
    """Returns the size, None if the file is missing, -1 if it can't be read, or not by BuildKit."""
    from buildkit_migrate.workspace.first_look import first_look

    size, is_lmdb, faults = first_look(path)
    for rule, what in faults:
        _add(doubts, rule, path, what)
    if size == 0:
        _add(doubts, "C2", path, "it has 0 bytes")
    return -1 if is_lmdb else size


def _add(doubts: "list[Doubt]", rule: str, path: str, what: str) -> None:
    doubts.append(Doubt(rule, path, what, _CALLS.get(rule, "check_root")))


def _look_at_worker(worker: str, doubts: "list[Doubt]") -> bool:
    """Returns whether it has records."""
    kind, _, snapshotter = _name(worker).partition("-")
    records = f"{worker}/metadata_v2.db"
    if kind != "runc":  # its other stores are containerd's
        return _look_at_records(records, None, doubts)
    database = snapshotter in SNAPSHOTTERS_WITH_DATABASE
    backend = _look_at(f"{worker}/snapshots/metadata.db", doubts) if database else None
    containerd = _look_at(f"{worker}/containerdmeta.db", doubts)
    has_records = _look_at_records(records, backend if database else containerd, doubts)
    if has_records and containerd is None:
        _add(doubts, "C2", f"{worker}/containerdmeta.db", "it is missing, beside records")
    # A daemon that has not built anything yet has the directory, but no database in it.
    if database and backend is None and has_records and _had_snapshots(f"{worker}/snapshots"):
        _add(doubts, "C2", f"{worker}/snapshots/metadata.db", "it is missing, beside records")
    return has_records


def _look_at_docker_builder(path: str, doubts: "list[Doubt]") -> bool:
    backend = _look_at(f"{path}/snapshots.db", doubts)
    containerd = _look_at(f"{path}/containerdmeta.db", doubts)
    has_records = _look_at_records(f"{path}/metadata_v2.db", backend, doubts)
    for name, size in (("snapshots.db", backend), ("containerdmeta.db", containerd)):
        if has_records and size is None:
            _add(doubts, "C2", f"{path}/{name}", "it is missing, beside records")
    return has_records


def _look_at_records(path: str, beside: "int | None", doubts: "list[Doubt]") -> bool:
    """``beside``: size of a store that has what records refer to. Returns whether there are BuildKit's."""
    size = _look_at(path, doubts)
    if size is None:
        old = path.removesuffix("_v2.db") + ".db"
        if _is_taken(old):
            _add(doubts, "C7", old, "it was not migrated: there is no metadata_v2.db")
        elif beside:
            _add(doubts, "C2", path, "it is missing, beside snapshots")
    return size is not None and size > 0


def _had_snapshots(directory: str) -> bool:
    """Whether there are directories of snapshots, or not even the directory that each daemon makes."""
    try:
        return bool(_listed(f"{directory}/snapshots"))
    except OSError:
        return not _is_taken(directory)


def _name(directory: str) -> str:
    return os.path.basename(os.path.abspath(directory))  # noqa: PTH100, PTH119 - pathlib is expensive to import


def _is_docker_builder(path: str, names: "set[str]") -> bool:
    """Whether it is the directory of the builder inside Docker Engine. ``names``: those in it."""
    # Only the few candidates need a look at what is beside them.
    if _name(path).startswith(_KINDS) or not names & {"snapshots.db", "metadata.db", "metadata_v2.db"}:
        return False
    # Its name may be "..", and it may be a link to another disk.
    parents = os.path.dirname(os.path.abspath(path)), f"{path}/.."  # noqa: PTH100, PTH120
    return is_docker_builder(names, _listed_if_possible(parents[0]) | _listed_if_possible(parents[1]))


def _listed_if_possible(directory: str) -> "set[str]":
    try:
        return _listed(directory)
    except OSError:
        return set()


def _docker_builder_in(path: str, names: "set[str]") -> "str | None":
    """The builder's directory, if ``path`` is the data root of Docker Engine."""
    if "buildkit" not in names:
        return None
    try:
        inside = _listed(f"{path}/buildkit")
    except OSError:
        return None
    return f"{path}/buildkit" if _is_docker_builder(f"{path}/buildkit", inside) else None
