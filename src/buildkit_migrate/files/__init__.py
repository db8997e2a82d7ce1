"""Files: locks, ownership and access of new files, durable replacement."""
