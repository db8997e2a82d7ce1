"""Who may open a file: owner, group, mode and POSIX ACL. Pure functions, no system calls."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

__all__ = ["Access", "Acl", "changes", "keeps_out", "packed", "unpacked", "without_acl"]

_VERSION: Final = struct.Struct("<I")
_ENTRY: Final = struct.Struct("<HHI")  # tag, permissions, id
_ACL_VERSION: Final = 2

_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_NAMED: Final = (_USER, _GROUP)
_UNMAPPED: Final = 0xFFFFFFFF
"""Id in an ACL entry for a user or group that is not mapped in the user namespace."""

_READ_WRITE: Final = 6

Acl = tuple[tuple[int, int, int], ...]
"""Tag, permissions and id of each entry."""


@dataclass(frozen=True)
class Access:
    """``mode``: nine bits. ``acl``: empty if none; otherwise the group bits of ``mode`` are its mask."""

    uid: int
    gid: int
    mode: int
    acl: Acl = ()

    def with_group(self, gid: int) -> Access:
        """Access for a file with another group, which gets no more rights than everybody else."""
        if gid == self.gid:
            return self
        others = self.mode & 7
        acl = tuple((tag, perm & others if tag == _GROUP_OBJ else perm, id) for tag, perm, id in self.acl)
        mode = self.mode if acl else self.mode & (0o707 | others << 3)
        return replace(self, gid=gid, mode=mode, acl=acl)

    def for_directory(self) -> Access:
        """Access for a directory: whoever may read may also enter."""
        acl = tuple((tag, perm | perm >> 2 & 1, id) for tag, perm, id in self.acl)
        return replace(self, mode=self.mode | self.mode >> 2 & 0o111, acl=acl)

    def lets_in(self, uid: int, *, in_group: bool) -> bool:
        """Whether a user who is not the owner may read and write.

        ``in_group``: whether in the file's group.
        """
        mask = self.mode >> 3
        for tag, perm, id in self.acl:
            if tag == _USER and id == uid:
                return _reads_and_writes(perm & mask)
        return _reads_and_writes(self._group() if in_group else self.mode)

    def _group(self) -> int:
        """What the file's group may do. With an ACL, the group bits of the mode are only the mask."""
        mask = self.mode >> 3 & 7
        return next((perm & mask for tag, perm, _ in self.acl if tag == _GROUP_OBJ), mask)


def _reads_and_writes(permissions: int) -> bool:
    return permissions & _READ_WRITE == _READ_WRITE


def without_acl(access: Access) -> Access:
    """The closest access without an ACL. The ACL's mask must not become the rights of the group."""
    return replace(access, mode=access.mode & 0o707 | access._group() << 3, acl=())


def keeps_out(wanted: Access, made: Access) -> bool:
    """Whether the intended owner can't use a file that has access ``made`` instead of ``wanted``.

    The intended owner counts as a member of the intended group. Owners can always fix their own files.
    """
    return made.uid != wanted.uid and not made.lets_in(wanted.uid, in_group=made.gid == wanted.gid)


def changes(wanted: Access, made: Access, now: str, before: str) -> Iterator[str]:
    """Describes the differences for a person. ``now`` and ``before`` are verbs: "is now", "was"."""
    for what, old, new in (("owner", wanted.uid, made.uid), ("group", wanted.gid, made.gid)):
        if old != new:
            yield f"{what} {now} {new}, {before} {old}"
    if wanted.acl and not made.acl:
        yield f"the ACL {now} missing"
    elif wanted.mode != made.mode:
        yield f"mode {now} {made.mode:04o}, {before} {wanted.mode:04o}"


def unpacked(stored: bytes) -> Acl:
    """Decodes an ACL attribute, dropping entries for users and groups unknown in this user namespace."""
    return tuple(
        entry
        for entry in _ENTRY.iter_unpack(stored[_VERSION.size :])
        if not (entry[0] in _NAMED and entry[2] == _UNMAPPED)
    )


def packed(acl: Acl) -> bytes:
    """Encodes an ACL attribute."""
    return _VERSION.pack(_ACL_VERSION) + b"".join(_ENTRY.pack(*entry) for entry in acl)
