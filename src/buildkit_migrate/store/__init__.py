"""The record store: its interface, its engines (bolt, lmdb), and conversion between them."""
