"""What is mounted, as this process sees it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["file_system"]


def file_system(device: int) -> str:
    """Type of the file system of a device number (``st_dev``), such as "ext4"; "" if unknown."""
    number = f"{os.major(device)}:{os.minor(device)}"
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
            fields = line.split()
            if fields[2] == number:
                return fields[fields.index("-") + 1]
    return ""
