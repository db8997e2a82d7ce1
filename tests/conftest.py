"""Settings for all tests."""

from hypothesis import settings

# Tests assert nothing about time, as machines differ.
settings.register_profile("default", deadline=None)
settings.load_profile("default")
