"""Times as containerd stores them; given in nanoseconds since 1970."""

from __future__ import annotations

import struct
import time
from typing import Final

__all__ = ["stored_time", "text_time"]

_STORED: Final = struct.Struct(">BqIh")
_YEAR_1: Final = 62_135_596_800  # seconds before 1970


def stored_time(ns: int) -> bytes:
    """Go's binary form (spec containerd-metadata-db, section 2): seconds since the year 1, zone UTC."""
    seconds, nanoseconds = divmod(ns, 1_000_000_000)
    return _STORED.pack(1, seconds + _YEAR_1, nanoseconds, -1)


def text_time(ns: int) -> bytes:
    """RFC 3339 in UTC, the fraction without trailing zeros (spec buildkit-metadata, section 4, pass 5)."""
    seconds, nanoseconds = divmod(ns, 1_000_000_000)
    fraction = f".{nanoseconds:09d}".rstrip("0") if nanoseconds else ""
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}{fraction}Z".encode()
