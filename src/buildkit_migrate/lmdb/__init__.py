"""LMDB files: what can be told before one is mapped, and LMDB's errors as ours."""
