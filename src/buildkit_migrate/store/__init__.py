"""The record store: what BuildKit asks of it, its engines (bolt, lmdb), conversion between them."""
