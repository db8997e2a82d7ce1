"""What `check` says of a root, in a form to compare with."""

from __future__ import annotations

from buildkit_migrate.maintenance.check import Checked, check_stores
from v2_roots import V2Root

__all__ = ["Found", "check", "found"]

Found = tuple[str, str, str, str]
"""Rule, severity, name of the file, subject."""


def check(root: V2Root) -> Checked:
    with root.open() as stores:
        return check_stores(stores)


def found(root: V2Root) -> list[Found]:
    """All findings."""
    return [
        (finding.rule, str(finding.severity), finding.file.name, finding.subject)
        for finding in check(root).findings
    ]
