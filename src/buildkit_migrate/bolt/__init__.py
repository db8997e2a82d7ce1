"""bbolt database files: reading, bulk writing, locks and atomic replacement."""

from buildkit_migrate._native.bolt import Bucket, Column, Reader, check, scan
from buildkit_migrate._native.building import Builder, rewrite
from buildkit_migrate.bolt.edits import encode
from buildkit_migrate.bolt.file import (
    Database,
    Lock,
    create,
    discard_directory,
    keep,
    lock,
    make_directory,
    make_like,
    readable,
    remove,
    rename,
    reserve,
    sync_directory,
    write,
)
from buildkit_migrate.bolt.tree import BucketView, Tree
from buildkit_migrate.files.access import Access
from buildkit_migrate.files.ownership import (
    access_of,
    changed_access,
    foresee,
    foresee_replaced,
    is_read_only,
    model_for,
    usable_mode,
)

__all__ = [
    "Access",
    "Bucket",
    "BucketView",
    "Builder",
    "Column",
    "Database",
    "Lock",
    "Reader",
    "Tree",
    "access_of",
    "changed_access",
    "check",
    "create",
    "discard_directory",
    "encode",
    "foresee",
    "foresee_replaced",
    "is_read_only",
    "keep",
    "lock",
    "make_directory",
    "make_like",
    "model_for",
    "readable",
    "remove",
    "rename",
    "reserve",
    "rewrite",
    "scan",
    "sync_directory",
    "usable_mode",
    "write",
]
