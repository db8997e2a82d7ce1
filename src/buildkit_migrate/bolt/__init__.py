"""bbolt database files: reading, bulk writing, locks and atomic replacement."""

from buildkit_migrate._native.bolt import Bucket, Builder, Column, Reader, check, rewrite, scan
from buildkit_migrate.bolt.edits import encode
from buildkit_migrate.bolt.file import Database, Lock, keep, lock, remove, replace, write

__all__ = [
    "Bucket",
    "Builder",
    "Column",
    "Database",
    "Lock",
    "Reader",
    "check",
    "encode",
    "keep",
    "lock",
    "remove",
    "replace",
    "rewrite",
    "scan",
    "write",
]
