"""bbolt database files: reading, bulk writing, rewriting, salvage."""

from buildkit_migrate._native.bolt import Bucket, Column, Reader, check, scan
from buildkit_migrate._native.building import Builder, rewrite, same_content
from buildkit_migrate.bolt.database import Database, compacted_size, nothing_at, write
from buildkit_migrate.bolt.edits import encode
from buildkit_migrate.bolt.salvage import Lost, Salvaged, salvage
from buildkit_migrate.bolt.tree import BucketView, Tree

__all__ = [
    "Bucket",
    "BucketView",
    "Builder",
    "Column",
    "Database",
    "Lost",
    "Reader",
    "Salvaged",
    "Tree",
    "check",
    "compacted_size",
    "encode",
    "nothing_at",
    "rewrite",
    "salvage",
    "same_content",
    "scan",
    "write",
]
