"""What refers to what, over rows: what is reached, and what goes round in circles."""

from buildkit_migrate._native.graph import Graph

__all__ = ["Graph"]
