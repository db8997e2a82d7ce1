"""Migrate a BuildKit v1 build cache (``metadata.db``) to v2 (``metadata_v2.db``).

Importing the package costs almost nothing; each name is loaded on first use.
"""

from __future__ import annotations

from buildkit_migrate import errors

TYPE_CHECKING = False  # typing's own would have to be imported
if TYPE_CHECKING:
    from typing import Any

    from buildkit_migrate.api import (
        check_root,
        clean_root,
        du_root,
        migrate_root,
        open_usage,
        root_status,
        undo_root,
        verify_root,
    )
    from buildkit_migrate.bolt.salvage import Salvaged
    from buildkit_migrate.chain import ChainIds, chain_ids
    from buildkit_migrate.embed import Doubt, Soundness, ensure_migrated, ensure_sound
    from buildkit_migrate.maintenance.check import Checked
    from buildkit_migrate.maintenance.compact import Compaction
    from buildkit_migrate.maintenance.compact_root import (
        compact_root,
        discard_kept,
        files_kept,
        undo_compaction,
    )
    from buildkit_migrate.maintenance.du import DiskUsage, UsageRecord
    from buildkit_migrate.maintenance.finding import Finding, Severity
    from buildkit_migrate.maintenance.kept_files import KeptFiles
    from buildkit_migrate.maintenance.mend import RepairClass
    from buildkit_migrate.maintenance.repair_root import (
        Repaired,
        discard_kept_repairs,
        repair_root,
        repairs_kept,
        undo_maintenance,
    )
    from buildkit_migrate.maintenance.salvage_file import salvage_file
    from buildkit_migrate.migration.clean import Cleaned
    from buildkit_migrate.migration.migrate import migrate_v2
    from buildkit_migrate.migration.report import Report
    from buildkit_migrate.migration.status import Status
    from buildkit_migrate.migration.undo import Undone
    from buildkit_migrate.migration.verification import Verification
    from buildkit_migrate.store.engines import open_store

__version__ = "0.1.0"

__all__ = [
    "ChainIds",
    "Checked",
    "Cleaned",
    "Compaction",
    "DiskUsage",
    "Doubt",
    "Finding",
    "KeptFiles",
    "RepairClass",
    "Repaired",
    "Report",
    "Salvaged",
    "Severity",
    "Soundness",
    "Status",
    "Undone",
    "UsageRecord",
    "Verification",
    "__version__",
    "chain_ids",
    "check_root",
    "clean_root",
    "compact_root",
    "discard_kept",
    "discard_kept_repairs",
    "du_root",
    "ensure_migrated",
    "ensure_sound",
    "errors",
    "files_kept",
    "migrate_root",
    "migrate_v2",
    "open_store",
    "open_usage",
    "repair_root",
    "repairs_kept",
    "root_status",
    "salvage_file",
    "undo_compaction",
    "undo_maintenance",
    "undo_root",
    "verify_root",
]

_HOMES = {
    "ChainIds": "buildkit_migrate.chain",
    "Checked": "buildkit_migrate.maintenance.check",
    "Cleaned": "buildkit_migrate.migration.clean",
    "Compaction": "buildkit_migrate.maintenance.compact",
    "DiskUsage": "buildkit_migrate.maintenance.du",
    "Doubt": "buildkit_migrate.embed",
    "Finding": "buildkit_migrate.maintenance.finding",
    "KeptFiles": "buildkit_migrate.maintenance.kept_files",
    "RepairClass": "buildkit_migrate.maintenance.mend",
    "Repaired": "buildkit_migrate.maintenance.repair_root",
    "Report": "buildkit_migrate.migration.report",
    "Salvaged": "buildkit_migrate.bolt.salvage",
    "Severity": "buildkit_migrate.maintenance.finding",
    "Soundness": "buildkit_migrate.embed",
    "Status": "buildkit_migrate.migration.status",
    "Undone": "buildkit_migrate.migration.undo",
    "UsageRecord": "buildkit_migrate.maintenance.du",
    "Verification": "buildkit_migrate.migration.verification",
    "chain_ids": "buildkit_migrate.chain",
    "check_root": "buildkit_migrate.api",
    "clean_root": "buildkit_migrate.api",
    "compact_root": "buildkit_migrate.maintenance.compact_root",
    "discard_kept": "buildkit_migrate.maintenance.compact_root",
    "discard_kept_repairs": "buildkit_migrate.maintenance.repair_root",
    "du_root": "buildkit_migrate.api",
    "ensure_migrated": "buildkit_migrate.embed",
    "ensure_sound": "buildkit_migrate.embed",
    "files_kept": "buildkit_migrate.maintenance.compact_root",
    "migrate_root": "buildkit_migrate.api",
    "migrate_v2": "buildkit_migrate.migration.migrate",
    "open_store": "buildkit_migrate.store.engines",
    "open_usage": "buildkit_migrate.api",
    "repair_root": "buildkit_migrate.maintenance.repair_root",
    "repairs_kept": "buildkit_migrate.maintenance.repair_root",
    "root_status": "buildkit_migrate.api",
    "salvage_file": "buildkit_migrate.maintenance.salvage_file",
    "undo_compaction": "buildkit_migrate.maintenance.compact_root",
    "undo_maintenance": "buildkit_migrate.maintenance.repair_root",
    "undo_root": "buildkit_migrate.api",
    "verify_root": "buildkit_migrate.api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: Any = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
