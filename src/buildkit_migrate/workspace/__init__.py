"""Finding BuildKit's state directories; locking and opening their stores."""
