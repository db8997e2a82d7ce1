"""One record as du shows it: its fields, for JSON and for filters."""

from __future__ import annotations

from typing import Any, NamedTuple

from buildkit_migrate.text import named_text
from buildkit_migrate.values.times import utc_text

__all__ = ["UsageRecord"]


class UsageRecord(NamedTuple):
    """One record, as du shows it. Times are in nanoseconds since 1970, sizes in bytes.

    ``in_use``: never, as no daemon runs. ``next_start``: False if the next start of the daemon drops it.
    """

    id: bytes
    mutable: bool
    in_use: bool
    size: int
    created_at: int | None
    last_used_at: int | None
    usage_count: int
    parents: tuple[bytes, ...]
    description: bytes
    record_type: bytes
    shared: bool
    next_start: bool

    def as_dict(self) -> dict[str, Any]:
        """With the names of `buildctl du --format '{{json .}}'`, and nothing else."""
        try:
            id: dict[str, Any] = {"id": self.id.decode()}
        except UnicodeDecodeError:
            id = named_text("id", self.id)
        return id | {
            "mutable": self.mutable,
            "inUse": self.in_use,
            "size": self.size,
            "createdAt": None if self.created_at is None else utc_text(self.created_at),
            "lastUsedAt": None if self.last_used_at is None else utc_text(self.last_used_at),
            "usageCount": self.usage_count,
            "parents": [_text(parent) for parent in self.parents] or None,
            "description": _text(self.description),
            "recordType": _text(self.record_type),
            "shared": self.shared,
        }

    def field(self, name: str) -> str | None:
        """The field as filters see it; None if the record does not have it."""
        flags = {
            "inuse": self.in_use,
            "mutable": self.mutable,
            "immutable": not self.mutable,
            "shared": self.shared,
            "private": not self.shared,
        }
        if name in flags:
            return "" if flags[name] else None
        texts = {
            "id": self.id,
            "parents": b";".join(self.parents),
            "description": self.description,
            "type": self.record_type,
        }
        return _text(texts[name]) if texts.get(name) else None


def _text(value: bytes) -> str:
    return value.decode(errors="replace")
