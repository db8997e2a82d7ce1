"""``python -m buildkit_migrate``."""

import sys

from buildkit_migrate.cli import main

if __name__ == "__main__":
    sys.exit(main())
