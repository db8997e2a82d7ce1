"""Times as containerd stores them. In Python, times are nanoseconds since 1970."""

from __future__ import annotations

import datetime
import functools
import re
import struct
import time
from typing import Final

__all__ = ["is_readable_time", "is_stored_time", "nanoseconds", "stored_time", "text_time", "utc_text"]

_STORED: Final = struct.Struct(">BqIh")
_YEAR_1: Final = 62_135_596_800  # seconds before 1970
_YEAR_10000: Final = 253_402_300_800  # seconds after 1970
_NS: Final = 1_000_000_000

_TEXT: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:[.,](\d+))?(Z|[+-]\d\d:\d\d)", re.ASCII)


def stored_time(ns: int) -> bytes:
    """Encodes a time in Go's binary form (spec containerd-metadata-db, section 2), in UTC."""
    seconds, nanoseconds = divmod(ns, 1_000_000_000)
    return _STORED.pack(1, seconds + _YEAR_1, nanoseconds, -1)


def text_time(ns: int) -> bytes:
    """RFC 3339 in UTC, without trailing zeros in the fraction (spec buildkit-metadata, section 4, pass 5)."""
    return utc_text(ns).encode()


def utc_text(ns: int) -> str:
    """As `text_time`."""
    seconds, nanoseconds = divmod(ns, _NS)
    days, rest = divmod(seconds, 86400)
    minutes, second = divmod(rest, 60)
    text = f"{_day(days)}T{minutes // 60:02d}:{minutes % 60:02d}:{second:02d}"
    return f"{text}.{nanoseconds:09d}".rstrip("0") + "Z" if nanoseconds else f"{text}Z"


@functools.lru_cache(maxsize=1024)
def _day(days: int) -> str:
    """A date. Cached, because even a million times fall on few days."""
    return time.strftime("%Y-%m-%d", time.gmtime(days * 86400))


def is_readable_time(stored: bytes) -> bool:
    """Whether this is the binary form of any time. containerd fails on anything else."""
    return bool(stored) and len(stored) == {1: _STORED.size, 2: _STORED.size + 1}.get(stored[0])


def is_stored_time(stored: bytes | None) -> bool:
    """Whether this is the binary form of a time from 1970 to the year 9999, in any zone."""
    if stored is None or not is_readable_time(stored):
        return False
    seconds: int
    nanoseconds: int
    _, seconds, nanoseconds, _ = _STORED.unpack_from(stored)
    return 0 <= seconds - _YEAR_1 < _YEAR_10000 and nanoseconds < _NS


def nanoseconds(text: bytes) -> int | None:
    """Parses an RFC 3339 time in any zone. Returns nanoseconds since 1970; None if it is not a valid time."""
    match = _TEXT.fullmatch(text.decode(errors="replace"))
    if match is None:
        return None
    zone = "+00:00" if match[3] == "Z" else match[3]
    try:
        seconds = datetime.datetime.fromisoformat(match[1] + zone).timestamp()
    except (ValueError, OverflowError):
        return None
    return int(seconds) * _NS + int((match[2] or "")[:9].ljust(9, "0"))
