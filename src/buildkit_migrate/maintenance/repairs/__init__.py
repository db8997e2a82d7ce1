"""Repairs, one module for each module of rules. See `maintenance.mend`."""
