"""What can still be read of a damaged bbolt file, copied into a new one; and what is lost, by name.

The walk starts at the newest root page that can be read, and follows every reference that leads to a page of
the right number and type. Of a page that is damaged otherwise, the elements are kept that lie within it and
are in order. A page that can't be read, by the disk or as a page, is lost with all that hangs below it. Pages
that no tree reaches are left lost: a page says neither its bucket nor its age, so that it may hold what was
deleted long ago.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from buildkit_migrate._native.bolt import IN_TREE, count_check
from buildkit_migrate._native.salvaging import Damaged
from buildkit_migrate.bolt.database import Database, write
from buildkit_migrate.errors import CorruptDatabaseError, DifferencesError
from buildkit_migrate.files.locks import Lock
from buildkit_migrate.files.ownership import access_of
from buildkit_migrate.files.readable import readable
from buildkit_migrate.text import named_text

__all__ = ["Lost", "Salvaged", "salvage"]

_MOST_NAMED: Final = 1_000_000
"""How many losses are named; a hostile file could have hundreds of millions."""

_NOTHING_LEFT: Final = (
    "nothing can be read without a root page, so no file was written: restore the file from a backup, or "
    "remove the cache"
)


@dataclass(frozen=True, slots=True)
class Lost:
    """Something that could not be read.

    ``bucket``: path of the bucket that lacks it, () for the root bucket. ``page``: number of the damaged
    page, None if it is unknown. The keys that were lost are ``first`` (None: from the start) or greater, and
    less than ``end`` (None: to the end), as far as known. ``reason``: the rule that is broken.
    """

    bucket: tuple[bytes, ...]
    page: int | None
    first: bytes | None
    end: bytes | None
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        path = [named_text("name", name) for name in self.bucket]
        exact = {"bucket_b64": [name.get("name_b64") for name in path]}
        return {
            "bucket": [name["name"] for name in path],
            **(exact if any(exact["bucket_b64"]) else {}),
            "page": self.page,
            **named_text("from", self.first),
            **named_text("to", self.end),
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Salvaged:
    """Result of `salvage`.

    ``buckets``, ``keys``: how many are kept, those with lost contents included; the root bucket is not
    counted. ``lost``: at most a million losses of ``lost_count``. If not the newest verified state was read,
    the first one says why. ``unreached``: number of pages that are neither in use nor free; None if the free
    list can't be read. ``is_newest``: whether the state was read that the newest meta page names, and that
    page is valid. ``is_verified``: whether that state's meta page is valid. ``other_meta``:
    why a meta page is invalid, "" if both are valid. ``bytes``: size of the new file.
    """

    path: Path
    output: Path
    bytes: int
    page_size: int
    transaction: int
    buckets: int
    keys: int
    lost: tuple[Lost, ...]
    lost_count: int
    unreached: int | None
    is_newest: bool
    is_verified: bool
    other_meta: str

    @property
    def is_complete(self) -> bool:
        """Whether nothing was lost, as far as the file tells."""
        return not self.lost_count and not self.unreached

    def as_dict(self) -> dict[str, Any]:
        """The JSON form, but for the list of losses."""
        return {
            **named_text("path", self.path),
            **named_text("output", self.output),
            "bytes": self.bytes,
            "page_size": self.page_size,
            "transaction": self.transaction,
            "buckets": self.buckets,
            "keys": self.keys,
            "lost_count": self.lost_count,
            "unreached": self.unreached,
            "newest": self.is_newest,
            "verified": self.is_verified,
            "other_meta": self.other_meta,
        }


def salvage(source: Lock, new_path: Path) -> tuple[Salvaged, Database]:
    """Copies what can be read of a locked file into a new one, which must not exist. The source stays locked.

    The new file has the page size, mode, owner and attributes of the old one, continues its transactions, and
    is sound. It is returned synced and exclusively locked. A bucket whose pages are lost is kept without
    them, with its sequence. Raises CorruptDatabaseError if nothing can be read, StorageError.
    """
    path = source.path
    data, gaps = readable(source)
    try:
        damaged = Damaged(data, str(path), gaps)
    except CorruptDatabaseError as error:
        raise CorruptDatabaseError(
            error.rule, path=error.path, page=error.page, hint=_NOTHING_LEFT
        ) from error
    found: list[tuple[int, int, list[tuple[Any, ...]], int, int | None]] = []

    def check(new: Database) -> None:
        findings = count_check(new.reader)[0]
        if findings:
            page, rule = next(
                ((page, rule) for part, page, rule in findings if part == IN_TREE), findings[0][1:]
            )
            raise DifferencesError(
                f"{new_path} is not what was written (page {page}: {rule}), and was deleted",
                (),
                hint=f"{path} is unchanged; check the disk and the memory of this machine",
            )

    new = write(
        new_path,
        mode=access_of(path).mode,
        page_size=damaged.page_size,
        fill=lambda builder: found.append(damaged.salvage(builder, _MOST_NAMED)),
        owner_of=path,
        after=damaged,
        verify=check,
    )
    buckets, keys, losses, count, unreached = found[0]
    result = Salvaged(
        path=path,
        output=new_path,
        bytes=new.size,
        page_size=damaged.page_size,
        transaction=damaged.transaction,
        buckets=buckets,
        keys=keys,
        lost=tuple(Lost(loss[0], loss[1] if loss[1] >= 0 else None, *loss[2:]) for loss in losses),
        lost_count=count,
        unreached=unreached,
        is_newest=damaged.is_newest,
        is_verified=damaged.is_verified,
        other_meta=damaged.other_meta,
    )
    return result, new
