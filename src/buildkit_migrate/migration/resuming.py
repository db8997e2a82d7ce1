"""Whether a migration may continue an interrupted one; if not, why, and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from buildkit_migrate.errors import JournalError, StorageError
from buildkit_migrate.files.errors import look, storage_errors
from buildkit_migrate.migration.journal import FILES, State, is_untouched, journal_path, read_state

__all__ = ["check_is_the_same", "foresee_journal", "noted_driver"]

_UNDO = "take back what it did with buildkit-migrate undo"


def check_is_the_same(
    state: State,
    from_path: Path,
    *,
    is_changed: bool,
    containerd: Mapping[str, str],
    upstream_exact: bool,
    previous: bool,
) -> None:
    """Raises JournalError unless the run that left this state did what this one will do.

    ``is_changed``: the v1 store has changed. ``containerd``: see `Containerd.identity`. ``previous``: see
    `State`.
    """
    reasons, options = [], []
    if is_changed:
        reasons.append("the v1 store was changed since")
    for reason, option in _differences(state.containerd, containerd):
        reasons.append(reason)
        options.append(option)
    older = ", or by an older version" if state.upstream_exact else ""
    for option, did, does, also in (
        ("--upstream-exact", state.upstream_exact, upstream_exact, older),
        ("--previous-transaction", state.previous, previous, ""),
    ):
        if did != does:
            then, now = ("with", "without") if did else ("without", "with")
            reasons.append(f"it was begun {then} {option}{also}; this one is {now} it")
            options.append(f"{then} {option}")
    if reasons:
        again = "" if is_changed else f"run it again {' and '.join(options)}, or "
        raise JournalError(
            f"{from_path}: a migration was interrupted, and this one can't resume it: {'; '.join(reasons)}",
            hint=f"{again}{_UNDO}; after that, migrate again",
        )


def _differences(then: Mapping[str, str], now: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What differs, and the options that this run would need."""
    modes = then.get("mode"), now["mode"]
    if modes == ("live", "offline"):
        yield (
            "it was begun over a running containerd, and this one works offline, in files",
            f"without --offline and --containerd-root, over the running containerd ({then.get('place')})",
        )
    elif modes == ("offline", "live"):
        yield (
            "it was begun offline, in the files of a stopped containerd, and this one is over a running one",
            f"with --containerd-root {_root_of(then.get('place', ''))}, containerd stopped",
        )
    for what in ("namespace", "snapshotter"):
        if then.get(what) != now[what]:
            yield (
                f"it was begun in the {what} {then.get(what)}, and this one is in {now[what]}",
                f"with --{what} {then.get(what)}",
            )
    # Journals of older versions don't name it, and it is not always needed.
    drivers = then.get("storage_driver"), now.get("storage_driver")
    if all(drivers) and drivers[0] != drivers[1]:
        yield (
            f"it was begun with the storage driver {drivers[0]}, and this one is with {drivers[1]}",
            f"with --storage-driver {drivers[0]}",
        )


def _root_of(database: str) -> Path:
    """The root of the containerd with this database, ``<root>/io.containerd.metadata.v1.bolt/meta.db``."""
    return Path(database).parent.parent


def foresee_journal(path: Path) -> None:
    """Raises StorageError if no journal can be created here, as `Journal.create` will. Writes nothing."""
    with storage_errors(path):
        there = look(path, follow_symlinks=False)
        others = set() if there is None else {entry.name for entry in path.iterdir()} - {*FILES}
    if others:
        raise StorageError(f"{path} has files of no journal: {min(others)}", hint="move it out of the way")


def noted_driver(v2: Path, database: Path | None = None) -> str:
    """Docker's storage driver, as the journal of the store at ``v2`` names it; "" if it does not.

    ``database``: containerd's, for a run that may continue another one; "" if that has changed nothing yet.
    Raises JournalError, StorageError.
    """
    state = read_state(journal_path(v2))
    if state is None or (database is not None and is_untouched(state, database)):
        return ""
    return state.containerd.get("storage_driver", "")
