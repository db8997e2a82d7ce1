"""References between rows: which rows are reached, and which are part of a cycle."""

from buildkit_migrate._native.graph import Graph

__all__ = ["Graph"]
