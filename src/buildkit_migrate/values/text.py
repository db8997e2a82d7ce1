"""Arbitrary bytes as JSON text."""

from __future__ import annotations

import base64
from pathlib import Path

__all__ = ["named_text"]


def named_text(name: str, value: bytes | str | Path | None) -> dict[str, str | None]:
    """``{name: text}``, plus ``{name}_b64`` with the exact bytes if they are not UTF-8."""
    if value is None:
        return {name: None}
    exact = value if isinstance(value, bytes) else str(value).encode(errors="surrogateescape")
    try:
        return {name: exact.decode()}
    except UnicodeDecodeError:
        return {name: exact.decode(errors="replace"), f"{name}_b64": base64.b64encode(exact).decode()}
