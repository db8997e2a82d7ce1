"""Turn a BuildKit v1 build cache (``metadata.db``) into a v2 one (``metadata_v2.db``).

Importing the package costs next to nothing; each name is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from buildkit_migrate import errors

if TYPE_CHECKING:
    from buildkit_migrate.migration.migrate import migrate_v2
    from buildkit_migrate.migration.report import Report
    from buildkit_migrate.migration.verification import Verification
    from buildkit_migrate.roots import migrate_root, verify_root

    __version__: str

__all__ = ["Report", "Verification", "__version__", "errors", "migrate_root", "migrate_v2", "verify_root"]

_HOMES = {
    "Report": "buildkit_migrate.migration.report",
    "Verification": "buildkit_migrate.migration.verification",
    "migrate_root": "buildkit_migrate.roots",
    "migrate_v2": "buildkit_migrate.migration.migrate",
    "verify_root": "buildkit_migrate.roots",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata

        value: Any = metadata.version("buildkit-migrate")
    elif name in _HOMES:
        from importlib import import_module

        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value
