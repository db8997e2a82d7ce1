"""Who may open a file: owner, group, mode and POSIX ACL. Nothing here asks the system."""

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
"""Id of somebody whom the user namespace does not know."""

_READ_WRITE: Final = 6

Acl = tuple[tuple[int, int, int], ...]
"""Tag, permissions and id of each entry."""


@dataclass(frozen=True)
class Access:
    """``mode``: nine bits. ``acl``: empty if there is none; the group bits of ``mode`` are its mask."""

    uid: int
    gid: int
    mode: int
    acl: Acl = ()

    def with_group(self, gid: int) -> Access:
        """The same for a file of that group: another group may do no more with it than everybody."""
        if gid == self.gid:
            return self
        others = self.mode & 7
        acl = tuple((tag, perm & others if tag == _GROUP_OBJ else perm, id) for tag, perm, id in self.acl)
        mode = self.mode if acl else self.mode & (0o707 | others << 3)
        return replace(self, gid=gid, mode=mode, acl=acl)

    def for_directory(self) -> Access:
        """The same for a directory: who may read may enter."""
        acl = tuple((tag, perm | perm >> 2 & 1, id) for tag, perm, id in self.acl)
        return replace(self, mode=self.mode | self.mode >> 2 & 0o111, acl=acl)

    def lets_in(self, uid: int, *, in_group: bool) -> bool:
        """Whether a user who is not the owner may read and write. ``in_group``: he is in the file's group."""
        mask = self.mode >> 3
        for tag, perm, id in self.acl:
            if tag == _USER and id == uid:
                return _reads_and_writes(perm & mask)
        return _reads_and_writes(self._group() if in_group else self.mode)

    def _group(self) -> int:
        """What the file's group may do: with an ACL, the group bits of the mode do not say it."""
        mask = self.mode >> 3 & 7
        return next((perm & mask for tag, perm, _ in self.acl if tag == _GROUP_OBJ), mask)


def _reads_and_writes(permissions: int) -> bool:
    return permissions & _READ_WRITE == _READ_WRITE


def without_acl(access: Access) -> Access:
    """What can be had of it where there are no ACLs; the mask does not become what the group may do."""
    return replace(access, mode=access.mode & 0o707 | access._group() << 3, acl=())


def keeps_out(wanted: Access, made: Access) -> bool:
    """Whether a file that was to have ``wanted``, and has ``made``, keeps the owner that it was to have out.

    He counts as a member of the group that the file was to have. What is his own, he can make usable.
    """
    return made.uid != wanted.uid and not made.lets_in(wanted.uid, in_group=made.gid == wanted.gid)


def changes(wanted: Access, made: Access, now: str, before: str) -> Iterator[str]:
    """What is different, for a person; ``now`` and ``before`` are verbs: "is now", "was"."""
    for what, old, new in (("owner", wanted.uid, made.uid), ("group", wanted.gid, made.gid)):
        if old != new:
            yield f"{what} {now} {new}, {before} {old}"
    if wanted.acl and not made.acl:
        yield f"the ACL {now} missing"
    elif wanted.mode != made.mode:
        yield f"mode {now} {made.mode:04o}, {before} {wanted.mode:04o}"


def unpacked(stored: bytes) -> Acl:
    """An ACL from the bytes of its attribute, without entries for those whom nobody here knows."""
    return tuple(
        entry
        for entry in _ENTRY.iter_unpack(stored[_VERSION.size :])
        if not (entry[0] in _NAMED and entry[2] == _UNMAPPED)
    )


def packed(acl: Acl) -> bytes:
    return _VERSION.pack(_ACL_VERSION) + b"".join(_ENTRY.pack(*entry) for entry in acl)
