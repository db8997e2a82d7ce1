"""Making new files usable by those who use the files beside them; predicting whether that will work.

Owner and group can't always be set: the process may lack the right, or run in a user namespace, or the file
system may not allow it. That is fine as long as the owner of the old file can use the new one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from buildkit_migrate.errors import StorageError
from buildkit_migrate.files.access import Access, changes, keeps_out, packed, unpacked, without_acl
from buildkit_migrate.files.errors import is_file, storage_errors
from buildkit_migrate.files.mounts import file_system

__all__ = [
    "access_of",
    "changed_access",
    "copy_access",
    "is_read_only",
    "model_for",
    "predict_access",
    "predict_replaced_access",
    "refuse_unwritable",
    "usable_mode",
]

_ACL: Final = "system.posix_acl_access"

_NOT_ALLOWED: Final = (
    errno.EPERM,
    errno.EACCES,
    errno.EINVAL,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
)
"""Errors of setting an owner or attribute that the file can't have here."""

_COPIED: Final = ("user.", "trusted.", "security.selinux", "security.SMACK64")
_NOT_COPIED: Final = ("user.overlay.", "trusted.overlay.")
"""Prefixes of attribute names; the second kind describes one file in its overlay layer."""

_CAP_CHOWN: Final = 0
_CAP_FOWNER: Final = 3

_OWNED_BY_MOUNT: Final = frozenset(
    ("cifs", "smb3", "vfat", "msdos", "exfat", "ntfs", "ntfs3", "fuseblk", "9p", "vboxsf", "hfsplus")
)
"""File systems where the mount options or the server determine the owner of all files."""


# --- Setting access


def access_of(path: Path) -> Access:
    """Reads the access of a file. Raises StorageError."""
    with storage_errors(path):
        return _access(path.stat(), path)


def _access(info: os.stat_result, file: Path | int) -> Access:
    stored = _attribute(file, _ACL)
    acl = () if stored is None else unpacked(stored)
    return Access(info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode) & 0o777, acl)


def usable_mode(path: Path) -> int:
    """The mode of a file, plus read and write access for its owner. Raises StorageError."""
    return access_of(path).mode | 0o600


def model_for(path: Path, like: Path | None) -> tuple[Path, int]:
    """Which file or directory a new lock file or journal is modelled on, and the new file's mode.

    That is ``like``, with access only for those who may write it, or else the directory with access for its
    owner. The directory is also used if ``like`` belongs to root, who can open everything, and the directory
    to another user, who may run the daemon. Raises StorageError.
    """
    directory = path.parent
    owner = access_of(directory).uid
    if like is None or (access_of(like).uid == 0 and owner != 0 and _Process.current().owner(owner) == owner):
        return directory, 0o600
    mode = usable_mode(like)
    return like, sum(6 << shift for shift in (6, 3, 0) if mode >> shift & 6 == 6)


def copy_access(fd: int, path: Path, model: Path, mode: int) -> None:
    """Gives a new file or directory of ours the owner, group, ACL and attributes of ``model``, and a mode.

    Raises StorageError if the owner of ``model`` could not use it.
    """
    wanted = replace(access_of(model), mode=mode)
    info = os.fstat(fd)
    if stat.S_ISDIR(info.st_mode):
        wanted = wanted.for_directory()
    if info.st_gid != wanted.gid:
        with _tolerated():
            os.fchown(fd, -1, wanted.gid)
    made = wanted.with_group(os.fstat(fd).st_gid)
    if stat.S_ISREG(info.st_mode) and is_file(model):
        _copy_attributes(fd, model)
    if made.acl:
        with _tolerated():
            os.setxattr(fd, _ACL, packed(made.acl))
    elif _attribute(fd, _ACL) is not None:
        os.removexattr(fd, _ACL)  # inherited from the directory
    if made.acl and _attribute(fd, _ACL) is None:
        made = without_acl(made)
    _set_mode(fd, made.mode | info.st_mode & stat.S_ISGID)  # keeps a setgid bit inherited from the parent
    # The owner comes last, as only the owner may do the rest.
    if info.st_uid != wanted.uid:
        with _tolerated():
            os.fchown(fd, wanted.uid, -1)
    made = replace(made, uid=os.fstat(fd).st_uid)
    if keeps_out(wanted, made):
        raise _kept_out(path, model, wanted, made)


@contextlib.contextmanager
def _tolerated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _NOT_ALLOWED:
            raise


def _set_mode(fd: int, mode: int) -> None:
    try:
        os.fchmod(fd, mode)
    except OSError as error:
        # The file system has no modes. What it reports instead must not grant more access.
        shown = stat.S_IMODE(os.fstat(fd).st_mode)
        if error.errno not in _NOT_ALLOWED or error.errno == errno.EACCES or shown & 0o077 & ~mode:
            raise


def _copy_attributes(fd: int, model: Path) -> None:
    for name in _attributes(model):
        if name.startswith(_COPIED) and not name.startswith(_NOT_COPIED):
            value = _attribute(model, name)
            if value is not None and value != _attribute(fd, name):
                with _tolerated():
                    os.setxattr(fd, name, value)


def _attributes(file: Path) -> list[str]:
    with _tolerated():
        return os.listxattr(file)
    return []


def _attribute(file: Path | int, name: str) -> bytes | None:
    try:
        return os.getxattr(file, name)
    except OSError as error:
        if error.errno not in (*_NOT_ALLOWED, errno.ENODATA):
            raise
        return None


def _kept_out(path: Path, model: Path, wanted: Access, made: Access) -> StorageError:
    return StorageError(
        f"{path} would belong to {made.uid}:{made.gid} with mode {made.mode:04o}: the owner of {model} "
        f"({wanted.uid}:{wanted.gid}) could not use it, and this process can't change the owner",
        hint="run the command as root, or as the owner of the files",
    )


def changed_access(model: Access, path: Path, foreseen: Access | None) -> list[str]:
    """How the access of a new file differs, or would differ, from its model; for a person.

    ``foreseen``: the predicted access if the file does not exist yet. Raises StorageError.
    """
    made = foreseen or access_of(path)
    verbs = ("would be", "is") if foreseen else ("is now", "was")
    wanted = replace(model, mode=model.mode | 0o600)
    return [f"{path}: {change}" for change in changes(wanted, made, *verbs)]


# --- Predicting access


@dataclass(frozen=True)
class _Process:
    """What this process may do to its files. ``groups``: all its groups, the effective one first."""

    uid: int
    groups: tuple[int, ...]
    capabilities: int
    uids: tuple[range, ...]
    gids: tuple[range, ...]

    @classmethod
    def current(cls) -> _Process:
        return cls(
            os.geteuid(),
            (os.getegid(), *os.getgroups()),
            _capabilities(),
            _mapped("/proc/self/uid_map"),
            _mapped("/proc/self/gid_map"),
        )

    def has(self, capability: int) -> bool:
        return bool(self.capabilities >> capability & 1)

    def owner(self, wanted: int) -> int:
        """Owner that a new file will get."""
        return wanted if self.has(_CAP_CHOWN) and _is_in(wanted, self.uids) else self.uid

    def group(self, wanted: int, made: int) -> int:
        """Group that a new file will get if it was created with the group ``made``."""
        may = _is_in(wanted, self.gids) and (self.has(_CAP_CHOWN) or wanted in self.groups)
        return wanted if may else made


def _capabilities() -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "CapEff":
                return int(value, 16)
    return -1 if os.geteuid() == 0 else 0


def _mapped(path: str) -> tuple[range, ...]:
    """The ids that are mapped in the user namespace."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return (range(1 << 32),)
    starts = [[int(field) for field in line.split()] for line in lines]
    return tuple(range(first, first + count) for first, _, count in starts)


def _is_in(id: int, ranges: tuple[range, ...]) -> bool:
    return any(id in known for known in ranges)


def predict_access(path: Path, model: Path, mode: int) -> Access:
    """Predicts what `copy_access` will make of a new file at ``path``. Writes nothing.

    Raises StorageError if no file can be created there, and wherever `copy_access` will.
    """
    wanted = replace(access_of(model), mode=mode)
    directory = path.parent
    refuse_unwritable(directory)
    if file_system(directory.stat().st_dev) in _OWNED_BY_MOUNT:
        return wanted
    with storage_errors(directory):
        info = directory.stat()
    process = _Process.current()
    inherited = info.st_gid if info.st_mode & stat.S_ISGID else process.groups[0]
    made = wanted.with_group(process.group(wanted.gid, inherited))
    made = replace(made, uid=process.owner(wanted.uid))
    if keeps_out(wanted, made):
        raise _kept_out(path, model, wanted, made)
    return made


def predict_replaced_access(path: Path) -> Access:
    """Like `predict_access`, for a file that will replace this one and be modelled on it."""
    with storage_errors(path):
        directory, info = path.parent.stat(), path.stat()
    process = _Process.current()
    owners = (directory.st_uid, info.st_uid)
    if directory.st_mode & stat.S_ISVTX and process.uid not in owners and not process.has(_CAP_FOWNER):
        raise StorageError(
            f"{path} can't be replaced: its directory is sticky, and the file belongs to {info.st_uid}",
            hint="run the command as root, or as the owner of the files",
        )
    return predict_access(path, path, usable_mode(path))


def is_read_only(directory: Path) -> bool:
    """Whether the directory is on a read-only mount. Raises StorageError."""
    with storage_errors(directory):
        return bool(os.statvfs(directory).f_flag & os.ST_RDONLY)


def refuse_unwritable(directory: Path) -> None:
    """Raises StorageError unless files can be created, renamed and deleted here.

    A read-only mount passes: a copy of a root may be looked at, and the first write will fail.
    """
    if not is_read_only(directory) and not os.access(
        directory, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids
    ):
        raise StorageError(
            f"{directory}: can't create files here: {os.strerror(errno.EACCES)}",
            hint="run the command as root, or as the owner of the files",
        )
