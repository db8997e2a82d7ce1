"""bbolt database files: reading, bulk writing, locks and atomic replacement."""

from buildkit_migrate._native.bolt import Bucket, Builder, Column, Reader, check, rewrite, scan
from buildkit_migrate.bolt.edits import encode
from buildkit_migrate.bolt.file import Database, Lock, create, keep, lock, missing, remove, rename, write

__all__ = [
    "Bucket",
    "Builder",
    "Column",
    "Database",
    "Lock",
    "Reader",
    "check",
    "create",
    "encode",
    "keep",
    "lock",
    "missing",
    "remove",
    "rename",
    "rewrite",
    "scan",
    "write",
]
