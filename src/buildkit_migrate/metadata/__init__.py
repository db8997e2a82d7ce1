"""BuildKit's record metadata: keys, values, and the stores that hold them."""
