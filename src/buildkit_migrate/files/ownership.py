"""Making a new file usable by those who use the one that it stands beside or replaces; and foreseeing that.

Owner and group can't always be given: without the right to, in a user namespace, on some file systems. That
is fine as long as the owner of the old file can work with the new one.
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
from buildkit_migrate.files.errors import storage_errors

__all__ = [
    "access_of",
    "changed_access",
    "dress",
    "foresee",
    "foresee_replaced",
    "is_read_only",
    "model_for",
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
"""Errors of calls that give a file an owner or attribute which it can't have here."""

_COPIED: Final = ("user.", "trusted.", "security.selinux", "security.SMACK64")
_NOT_COPIED: Final = ("user.overlay.", "trusted.overlay.")
"""Attributes whose names begin so; the latter are about one file and its layer."""

_CAP_CHOWN: Final = 0
_CAP_FOWNER: Final = 3

_OWNED_BY_MOUNT: Final = frozenset(
    ("cifs", "smb3", "vfat", "msdos", "exfat", "ntfs", "ntfs3", "fuseblk", "9p", "vboxsf", "hfsplus")
)
"""File systems whose files can all have the owner that the mount, or a server, says."""


# --- Doing it


def access_of(path: Path) -> Access:
    """Raises StorageError."""
    with storage_errors(path):
        return _access(path.stat(), path)


def _access(info: os.stat_result, file: Path | int) -> Access:
    stored = _attribute(file, _ACL)
    acl = () if stored is None else unpacked(stored)
    return Access(info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode) & 0o777, acl)


def usable_mode(path: Path) -> int:
    """The mode of a file, with which its owner may always read and write. Raises StorageError."""
    return access_of(path).mode | 0o600


def model_for(path: Path, like: Path | None) -> tuple[Path, int]:
    """What a new lock file or journal is made like, and its mode: ``like``, or else the directory it is in.

    It is for those who may write that file, not for those who may only read it. It is made like the directory
    also if the file is root's, who can open everything: the directory's owner may run the daemon, too.
    Raises StorageError.
    """
    directory = path.parent
    owner = access_of(directory).uid
    if like is None or (access_of(like).uid == 0 and owner != 0 and _Process.current().owner(owner) == owner):
        return directory, 0o600
    mode = usable_mode(like)
    return like, sum(6 << shift for shift in (6, 3, 0) if mode >> shift & 6 == 6)


def dress(fd: int, path: Path, model: Path, mode: int) -> None:
    """Gives a new file or directory of ours owner, group, ACL and attributes of another file, and a mode.

    Raises StorageError if the other one's owner could not work with it then.
    """
    wanted = replace(access_of(model), mode=mode)
    info = os.fstat(fd)
    if stat.S_ISDIR(info.st_mode):
        wanted = wanted.for_directory()
    if info.st_gid != wanted.gid:
        with _tolerated():
            os.fchown(fd, -1, wanted.gid)
    made = wanted.with_group(os.fstat(fd).st_gid)
    if stat.S_ISREG(info.st_mode) and model.is_file():
        _copy_attributes(fd, model)
    if made.acl:
        with _tolerated():
            os.setxattr(fd, _ACL, packed(made.acl))
    elif _attribute(fd, _ACL) is not None:
        os.removexattr(fd, _ACL)  # which the directory gives to what is made in it
    if made.acl and _attribute(fd, _ACL) is None:
        made = without_acl(made)
    _set_mode(fd, made.mode | info.st_mode & stat.S_ISGID)  # files in a directory get its group, as it did
    # The owner comes last, as only he may do all of that.
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
        # A file system without modes; what it shows instead must not be for more people.
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
        f"({wanted.uid}:{wanted.gid}) could not work with it, and this process can't give it to him",
        hint="run the command as root, or as the owner of the files",
    )


def changed_access(model: Access, path: Path, foreseen: Access | None) -> list[str]:
    """What is different about a new file from its model, for a person; or would be.

    Raises StorageError.
    """
    made = foreseen or access_of(path)
    verbs = ("would be", "is") if foreseen else ("is now", "was")
    wanted = replace(model, mode=model.mode | 0o600)
    return [f"{path}: {change}" for change in changes(wanted, made, *verbs)]


# --- Foreseeing it


@dataclass(frozen=True)
class _Process:
    """What this process may do to its files. ``groups``: all that it is in, its own first."""

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
        """Of a new file."""
        return wanted if self.has(_CAP_CHOWN) and _is_in(wanted, self.uids) else self.uid

    def group(self, wanted: int, made: int) -> int:
        """Of a new file that was made with the group ``made``."""
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
    """The ids that the user namespace knows."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return (range(1 << 32),)
    starts = [[int(field) for field in line.split()] for line in lines]
    return tuple(range(first, first + count) for first, _, count in starts)


def _is_in(id: int, ranges: tuple[range, ...]) -> bool:
    return any(id in known for known in ranges)


def foresee(path: Path, model: Path, mode: int) -> Access:
    """What `dress` will make of a new file at ``path``. Writes nothing.

    Raises StorageError if no file can be made there, or as `dress` will.
    """
    wanted = replace(access_of(model), mode=mode)
    directory = path.parent
    _check_writable(directory)
    if _file_system(directory) in _OWNED_BY_MOUNT:
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


def foresee_replaced(path: Path) -> Access:
    """As `foresee`, of a file that will take the place of this one and be like it."""
    with storage_errors(path):
        directory, info = path.parent.stat(), path.stat()
    process = _Process.current()
    owners = (directory.st_uid, info.st_uid)
    if directory.st_mode & stat.S_ISVTX and process.uid not in owners and not process.has(_CAP_FOWNER):
        raise StorageError(
            f"{path} can't be replaced: its directory is sticky, and it belongs to {info.st_uid}",
            hint="run the command as root, or as the owner of the files",
        )
    return foresee(path, path, usable_mode(path))


def is_read_only(directory: Path) -> bool:
    """Whether the directory is mounted so. Raises StorageError."""
    with storage_errors(directory):
        return bool(os.statvfs(directory).f_flag & os.ST_RDONLY)


def _check_writable(directory: Path) -> None:
    """A mount for reading only is fine: one may look at a copy of a root, and the first write fails."""
    if not is_read_only(directory) and not os.access(
        directory, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids
    ):
        raise StorageError(
            f"{directory}: no file can be made here: {os.strerror(errno.EACCES)}",
            hint="run the command as root, or as the owner of the files",
        )


def _file_system(directory: Path) -> str:
    """Its type, "" if that can't be told."""
    number = directory.stat().st_dev
    device = f"{os.major(number)}:{os.minor(number)}"
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
            fields = line.split()
            if fields[2] == device:
                return fields[fields.index("-") + 1]
    return ""
