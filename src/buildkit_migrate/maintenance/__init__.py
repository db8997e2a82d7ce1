"""Care of v2 stores, with their daemon stopped: what is there, and what is wrong with it."""
