"""Benchmarks: synthetic roots, timing of each stage of a migration, and the limits of the hardware."""
