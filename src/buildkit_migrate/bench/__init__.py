"""Where the time of a migration goes: synthetic roots, each stage by itself, and what the hardware takes."""
