"""The build history, ``history.db`` (spec buildkit-v2-stores, section 6)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from buildkit_migrate.bolt import Bucket

if TYPE_CHECKING:
    from buildkit_migrate.schema import history_pb2 as messages

__all__ = ["Build", "History"]

_RECORDS: Final = b"_records"


@dataclass(frozen=True)
class Build:
    """One build. ``key``: in the file; ``ref``: what the record says, which should be the same.

    ``digests``: of all that it refers to, which its lease should list; ``completed``: whether it says when.
    """

    key: bytes
    ref: bytes
    completed: bool
    pinned: bool
    generation: int
    digests: frozenset[bytes]


class History:
    """``builds``: those that decode, in key order. ``undecodable``: keys of those that don't."""

    def __init__(self, root: Bucket) -> None:
        from google.protobuf.message import DecodeError  # protobuf is loaded for those who need it

        from buildkit_migrate.schema import history_pb2 as messages

        self._root = root
        self.builds: list[Build] = []
        self.undecodable: list[bytes] = []
        bucket = root.bucket(_RECORDS)
        for key, stored in bucket.items() if bucket is not None else ():
            if not isinstance(stored, bytes):
                continue
            try:
                record = messages.BuildHistoryRecord.FromString(stored)
            except DecodeError:
                self.undecodable.append(key)
            else:
                self.builds.append(_build(key, record))

    @property
    def version(self) -> bytes | None:
        """``2`` from v0.12 on; None before."""
        bucket = self._root.bucket(b"_version")
        return bucket.get(b"version") if bucket is not None else None


def _build(key: bytes, record: messages.BuildHistoryRecord) -> Build:
    return Build(
        key=key,
        ref=record.ref,
        completed=record.HasField("completed_at"),
        pinned=record.pinned,
        generation=record.generation,
        digests=frozenset(found.digest for found in _descriptors(record) if found.digest),
    )


def _descriptors(record: messages.BuildHistoryRecord) -> Iterator[messages.Descriptor]:
    yield from (record.logs, record.trace, record.external_error)
    for result in (record.result, *(named.value for named in record.results)):
        yield result.result_deprecated
        yield from result.attestations
        yield from (numbered.value for numbered in result.results)
