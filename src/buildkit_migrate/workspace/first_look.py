"""What the first pages of a database tell about it, in a few microseconds.

Used by daemons at each start, so it imports nothing but ``os``. The rules are those of docs/rules.md; `check`
tests them on all pages.
"""

import os

__all__ = ["first_look"]

_LMDB_MAGIC = b"\xde\xc0\xef\xbe"
_BOLT_MAGIC = b"\xed\xda\x0c\xed"
_VERSION = b"\2\0\0\0"
_META_SIZE = 80
_HEADER_SIZE = 16
_NO_FREE_LIST = 2**64 - 1
_LONG_LIST = 0xFFFF
_BRANCH, _LEAF, _META, _FREE_LIST = 1, 2, 4, 16
_SECOND_META = tuple(1024 << i for i in range(15))
_MUCH_FREE = 256 << 20
"""Bytes; from a quarter of the file and this on, `check` says that the file has grown (C5)."""


def first_look(path: str) -> "tuple[int | None, bool, list[tuple[str, str]]]":
    """Size in bytes, None if the file does not exist; whether it is an LMDB file; and what is wrong.

    The size is -1 if it can't be read. What is wrong: pairs of a rule and what breaks it. An empty file and
    an LMDB file break none of these. Looks at the meta pages and at what these name: the file's length, and
    the headers of the root page and the free list.
    """
    try:
        # O_NONBLOCK: opening a FIFO must not wait for a writer.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None, False, []
    except OSError as error:
        return -1, False, [("C1", f"it can't be opened: {error.strerror}")]
    try:
        info = os.fstat(fd)
        if info.st_mode & 0o170000 != 0o100000:
            return -1, False, [("C1", "it is not a regular file")]
        head = os.pread(fd, _META_SIZE, 0)
        if not head or head[16:20] == _LMDB_MAGIC:
            return info.st_size, bool(head), []
        return info.st_size, False, _faults(fd, info.st_size, head)
    except OSError as error:
        return -1, False, [("C1", f"it can't be read: {error.strerror}")]
    finally:
        os.close(fd)


class _Meta:
    """A meta page. ``fault``: why it is invalid, "" if it is valid."""

    def __init__(self, page: bytes) -> None:
        self.fault = _meta_fault(page)
        self.id, self.kind = _number(page, 0, 8), _number(page, 8, 2)
        self.page_size = _number(page, 24, 4)
        self.root = _number(page, 32, 8)
        self.free_list = _number(page, 48, 8)
        self.end = _number(page, 56, 8)
        self.transaction = _number(page, 64, 8)


def _meta_fault(page: bytes) -> str:
    if len(page) < _META_SIZE:
        return "too short"
    if page[16:20] != _BOLT_MAGIC:
        return "wrong magic number"
    if page[20:24] != _VERSION:
        return "unknown format version"
    value = 0xCBF29CE484222325
    for byte in page[16:72]:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    if value != _number(page, 72, 8):
        return "wrong checksum"
    return "" if _number(page, 24, 4) in _SECOND_META else "impossible page size"


def _number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")


def _faults(fd: int, size: int, head: bytes) -> "list[tuple[str, str]]":
    """What is wrong with a file that begins with ``head``."""
    if size < 2 * _SECOND_META[0]:
        begins_like_one = head[16:20] == _BOLT_MAGIC
        return (
            [("C3", "it is cut short")] if begins_like_one else [("C1", "it is too short to be a database")]
        )
    metas = [_Meta(head), _second(fd, head)]
    valid = [meta for meta in metas if not meta.fault]
    if not valid:
        return [("C1", f"none of its meta pages is valid: {metas[0].fault}")]
    if len({meta.page_size for meta in valid}) > 1:
        return [("C1", "its two meta pages state different page sizes")]
    found = [
        ("C1", f"one of its two meta pages is damaged ({meta.fault}), and the other is used")
        for meta in metas
        if meta.fault
    ]
    for number, meta in enumerate(metas):
        if not meta.fault and (meta.id, meta.kind) != (number, _META):
            found.append(("C1", f"page {number} is not marked as a meta page"))
    return found + _faults_of(fd, size, max(valid, key=lambda meta: meta.transaction))


def _second(fd: int, head: bytes) -> _Meta:
    """The second meta page. If the first one does not say where it is, it is searched for."""
    if not _meta_fault(head):
        return _Meta(os.pread(fd, _META_SIZE, _number(head, 24, 4)))
    for at in _SECOND_META:
        meta = _Meta(os.pread(fd, _META_SIZE, at))
        if not meta.fault and meta.page_size == at:
            return meta
    return _Meta(b"")


def _faults_of(fd: int, size: int, meta: _Meta) -> "list[tuple[str, str]]":
    """What is wrong with what the meta page in use says."""
    if meta.end * meta.page_size > size:
        return [("C3", f"it has {size} bytes, and its pages in use have {meta.end * meta.page_size}")]
    pages = range(2, meta.end)
    if meta.root not in pages or (meta.free_list not in pages and meta.free_list != _NO_FREE_LIST):
        return [("C1", "a meta page refers to a page that can't be")]
    found = []
    id, kind, _, _ = _header(fd, meta.root * meta.page_size)
    if id != meta.root or kind not in (_LEAF, _BRANCH):
        found.append(("C1", f"page {meta.root}, its root, is not a page of a tree"))
    if meta.free_list != _NO_FREE_LIST:
        found += _faults_of_list(fd, meta)
    return found


def _faults_of_list(fd: int, meta: _Meta) -> "list[tuple[str, str]]":
    id, kind, count, more = _header(fd, meta.free_list * meta.page_size)
    room = ((more + 1) * meta.page_size - _HEADER_SIZE) // 8
    if count == _LONG_LIST:
        count = _number(os.pread(fd, 8, meta.free_list * meta.page_size + _HEADER_SIZE), 0, 8)
        room -= 1
    if id != meta.free_list or kind != _FREE_LIST:
        return [("C1", f"page {meta.free_list} is not a free list")]
    if count > room or more >= meta.end - meta.free_list:
        return [("C1", f"the free list, page {meta.free_list}, runs out of its pages")]
    if count * 4 >= meta.end and count * meta.page_size >= _MUCH_FREE:
        return [("C5", f"{count} of its {meta.end} pages are free")]
    return []


def _header(fd: int, at: int) -> "tuple[int, int, int, int]":
    """Number, type, count and number of further pages, of the page at this offset."""
    page = os.pread(fd, _HEADER_SIZE, at)
    return _number(page, 0, 8), _number(page, 8, 2), _number(page, 10, 2), _number(page, 12, 4)
