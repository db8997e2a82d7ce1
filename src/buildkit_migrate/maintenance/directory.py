"""What the files below a directory take on disk."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from buildkit_migrate.files.errors import storage_errors

__all__ = ["BLOCK", "disk_usage"]

BLOCK = 512
"""Bytes in the unit of ``st_blocks``."""


def disk_usage(directory: Path) -> int:
    """Bytes, the directory itself included; a file with several names counts once, links are not followed.

    Raises StorageError; it says so if the directory is missing. What vanishes below it meanwhile is left out.
    """
    total = 0
    seen: set[tuple[int, int]] = set()
    with storage_errors(directory):
        waiting = [os.fspath(directory)]
        total += directory.lstat().st_blocks * BLOCK
        while waiting:
            place = waiting.pop()
            try:
                entries = os.scandir(place)
            except FileNotFoundError:
                if place == os.fspath(directory):
                    raise
                continue
            with entries:
                for entry in entries:
                    try:
                        found = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    is_directory = stat.S_ISDIR(found.st_mode)
                    if found.st_nlink > 1 and not is_directory:
                        inode = (found.st_dev, found.st_ino)
                        if inode in seen:
                            continue
                        seen.add(inode)
                    total += found.st_blocks * BLOCK
                    if is_directory:
                        waiting.append(entry.path)
    return total
