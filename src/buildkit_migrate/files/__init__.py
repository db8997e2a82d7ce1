"""Durable files: locks, who may use a new file, writing aside and switching."""
