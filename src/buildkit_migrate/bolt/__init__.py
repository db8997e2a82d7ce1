"""bbolt database files: reading, bulk writing, locks and atomic replacement."""

from buildkit_migrate._native.bolt import Bucket, Builder, Column, Reader, check, rewrite, scan
from buildkit_migrate.bolt.edits import encode
from buildkit_migrate.bolt.file import (
    Database,
    Lock,
    create,
    discard_directory,
    give_to_owner_of,
    keep,
    lock,
    make_directory,
    readable,
    remove,
    rename,
    reserve,
    sync_directory,
    write,
)
from buildkit_migrate.bolt.tree import BucketView, Tree

__all__ = [
    "Bucket",
    "BucketView",
    "Builder",
    "Column",
    "Database",
    "Lock",
    "Reader",
    "Tree",
    "check",
    "create",
    "discard_directory",
    "encode",
    "give_to_owner_of",
    "keep",
    "lock",
    "make_directory",
    "readable",
    "remove",
    "rename",
    "reserve",
    "rewrite",
    "scan",
    "sync_directory",
    "write",
]
