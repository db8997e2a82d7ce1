"""Extension modules built from ``ext/``."""
