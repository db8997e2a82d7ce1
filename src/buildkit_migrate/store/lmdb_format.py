"""Layout of a store in an LMDB file (docs/format.md), and opening such a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import lmdb

from buildkit_migrate.lmdb.file import LEAST_MAP, lmdb_errors
from buildkit_migrate.values.keys import EXTERNAL_BUCKET, INDEX_BUCKET, MAIN_BUCKET

__all__ = ["HEAD", "HEAD_KEY", "OTHER", "STORE_MODE", "TAGS", "open_environment"]

HEAD_KEY: Final = b"\x00"
HEAD: Final = b"buildkit-migrate metadata store 1\n"

TAGS: Final = {EXTERNAL_BUCKET: b"E", INDEX_BUCKET: b"I", MAIN_BUCKET: b"M"}
"""First byte of the LMDB keys of each bucket's entries. Tags sort like the buckets' names."""

OTHER: Final = b"R"
"""First byte of the LMDB keys of everything else at the top level of the tree."""

STORE_MODE: Final = 0o600
_FIRST_MAP: Final = 16 << 20
"""Initial map size of a new store, in bytes. The map doubles when full; the file grows only as needed."""


def open_environment(
    path: Path, *, create: bool = False, read_only: bool = False, alone: bool = False
) -> lmdb.Environment:
    """``alone``: nobody else uses the file yet, so use no lock file, and sync only on `Environment.sync`."""
    with lmdb_errors(path):
        return lmdb.open(
            os.fsencode(path),
            subdir=False,
            # 0: a writer continues with the current map size.
            map_size=_FIRST_MAP if create else LEAST_MAP if read_only else 0,
            mode=STORE_MODE,
            max_dbs=0,
            create=create,
            readonly=read_only,
            lock=not alone,
            sync=not alone,
            readahead=False,
        )
