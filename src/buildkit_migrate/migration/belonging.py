"""Checks that a v1 store and a containerd belong together.

If they don't, every record looks broken, or there is nothing to migrate. Leaving out what is broken would
then create an empty cache, and abandon the snapshots and blobs of the real one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

from buildkit_migrate._native.plan import Plan
from buildkit_migrate.bolt import Database
from buildkit_migrate.containerd.services import Containerd, Holding
from buildkit_migrate.errors import ContainerdStateError, Error
from buildkit_migrate.migration.target import foreign_buckets
from buildkit_migrate.settings import Setting
from buildkit_migrate.workspace.place import Place

__all__ = ["check_belonging", "is_wrong_place"]

_LEAST_SHARE: Final = 10
"""At least one in this many of the records that need a snapshot must have it.

Record ids are random, so the snapshots of another cache have none of their names, and a cache restored from
an old backup has few. A broken root has lost some snapshots to a crash or a full disk; in the field that was
a handful in hundreds. With up to this many records a single snapshot shows that the place is right. A cache
without any snapshots is refused however small it is: nothing of it can be kept here, and all of it may be
elsewhere.
"""


def is_wrong_place(needing: int, found: int) -> bool:
    """Whether containerd's state does not belong to the records.

    ``needing``: how many records need a snapshot of their own (those without an equal-mutable target);
    ``found``: how many of them have it.
    """
    return found * _LEAST_SHARE < needing


def check_belonging(source: Database, plan: Plan, place: Place, containerd: Containerd) -> None:
    """Raises ContainerdStateError if the store and containerd don't belong together.

    The error tells what was found, and where the records would fit.
    """
    if plan.counts["records"] == 0:
        _check_nothing_is_orphaned(source, plan, place)
    elif is_wrong_place(plan.counts["snapshots_needed"], plan.counts["snapshots_found"]):
        raise _wrong_place(source.path, plan, place, containerd)


def _check_nothing_is_orphaned(source: Database, plan: Plan, place: Place) -> None:
    """A new cache has no records, and containerd holds nothing for it."""
    counts = plan.counts
    snapshots = counts["unlabel_snapshots"] + counts["labels_left_snapshots"]
    blobs = counts["unlabel_blobs"] + counts["labels_left_blobs"]
    foreign = foreign_buckets(source)
    if not (foreign or snapshots or blobs):
        return
    names = ", ".join(name.decode(errors="backslashreplace") for name in foreign[:3])
    what = f"is not a metadata store: it has {names} and no _main" if foreign else "has no records"
    held = (
        f"; but {_asked(place)} has {snapshots} snapshots and {blobs} blobs with the gc.root label, which "
        "are held for records"
    )
    raise ContainerdStateError(
        f"{source.path} {what}{held if snapshots or blobs else ''}; nothing was changed",
        hint=f"restore {source.path.name} from a backup; if this BuildKit has never built anything, and they "
        "are another's, move it away: there is nothing in it to migrate",
    )


def _wrong_place(source: Path, plan: Plan, place: Place, containerd: Containerd) -> ContainerdStateError:
    needed, found = plan.counts["snapshots_needed"], plan.counts["snapshots_found"]
    try:
        holdings = containerd.holdings(set(plan.records.ids()))
    except Error:
        holdings = []  # they only improve the error
    return ContainerdStateError(
        f"{_asked(place)} has the snapshots of {found} of the {needed} records of {source} that need one: it "
        f"is not the {_wrong(place)} of this cache; nothing was changed",
        hint=_hint(source, place, needed, holdings),
    )


def _asked(place: Place) -> str:
    if place.kind == "Docker":
        driver = (
            f"storage driver {place.storage_driver}" if place.storage_driver else "without a storage driver"
        )
        return f"Docker's builder at {place.backend}, {driver},"
    return f"containerd at {place.containerd}, namespace {place.namespace}, snapshotter {place.snapshotter},"


def _wrong(place: Place) -> str:
    return "storage driver or builder" if place.kind == "Docker" else "containerd, namespace or snapshotter"


def _hint(source: Path, place: Place, needed: int, holdings: Collection[Holding]) -> str:
    fitting = [holding for holding in holdings if not is_wrong_place(needed, holding.named_like)]
    if not fitting:
        return _hint_without_fit(source, place, sorted({holding.namespace for holding in holdings}))
    best = max(fitting, key=lambda holding: holding.named_like)
    fits = f"namespace {best.namespace}, snapshotter {best.snapshotter} has {best.named_like} of {needed}"
    changes = [
        change
        for change in (
            _change("namespace", place.namespace, best.namespace),
            _change("snapshotter", place.snapshotter, best.snapshotter),
        )
        if change
    ]
    if not changes:
        return (
            f"by containerd's own database, {fits}; the snapshotter's database {place.backend} does not have "
            "them: restore both from one backup"
        )
    if place.kind == "OCI":
        return f"{fits}: the worker directory must be named runc-{best.snapshotter}"
    return f"{fits}: give {' and '.join(changes)}"


def _change(option: str, asked: Setting, fitting: str) -> str:
    if asked.value == fitting:
        return ""
    wins = f" (it wins over {asked.origin})" if asked.origin.startswith("$") else ""
    return f"--{option} {fitting}{wins}"


def _hint_without_fit(source: Path, place: Place, namespaces: Sequence[str]) -> str:
    if place.kind == "OCI":
        return (
            f"{Path(place.containerd.value).name} and snapshots/ are not those of {source.name}, or are "
            f"lost: restore all of {source.parent} from one backup, or move {source.name} away to begin with "
            "an empty cache"
        )
    if place.kind == "Docker":
        return (
            f"{Path(place.backend).name} and image/ are not those of {source.name}, or are lost: restore all "
            "of Docker's data root from one backup, give the --storage-driver that was in use, or move "
            f"{source.name} away to begin with an empty cache"
        )
    option = "--containerd-root" if place.backend else "--address"
    known = f"it has no such snapshots in any namespace ({', '.join(namespaces) or 'there is none'}); "
    return (
        f"{known}give the containerd ({option}), --namespace and --snapshotter that BuildKit used; if these "
        f"are right, its snapshots are lost: move {source.name} away to begin with an empty cache"
    )
