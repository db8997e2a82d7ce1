"""What the journal of a migration says of it: its state, how that is stored, and what follows from it."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from buildkit_migrate.errors import JournalError
from buildkit_migrate.files.errors import storage_errors
from buildkit_migrate.files.fingerprint import fingerprint

__all__ = [
    "APPLIED",
    "APPLYING",
    "EDIT",
    "NOTHING",
    "PUT_BACK",
    "REMOVE",
    "UNDOING",
    "UNREADABLE",
    "State",
    "decode",
    "encode",
    "had_no_database",
    "is_untouched",
    "kept_path",
]

APPLYING: Final = "applying"
APPLIED: Final = "applied"
"""Leases and labels are as planned; the switch is next, or done."""
UNDOING: Final = "undoing"

NOTHING: Final = "nothing"
"""A way back: containerd's database is unchanged."""
PUT_BACK: Final = "put-back"
"""A way back: put the kept database back in place."""
REMOVE: Final = "remove"
"""A way back: delete containerd's database, as there was none."""
EDIT: Final = "edit"
"""A way back: restore labels and remove leases in the current database."""
_WITHOUT_KEPT: Final = (NOTHING, PUT_BACK, REMOVE)
"""Ways back after which the kept database may be missing."""

_FORMAT: Final = 2
_KNOWN_FORMATS: Final = (1, _FORMAT)
_KEPT_NAME: Final = re.compile(r".+\.before-v2(-.+)?", re.DOTALL)
"""Names that a migration gives to the databases that it keeps."""
_FINGERPRINTS: Final = ("v1", "kept", "containerd_after", "v2")

UNREADABLE: Final = "restore the journal from a backup, or remove it: then there is no way back to v1"


@dataclass(frozen=True)
class State:
    """What the journal is about, and the progress.

    ``v1``: fingerprint of the v1 store. ``plan``: digest of the edits that make the new store.
    ``containerd``: which one, see `Containerd.identity`. ``kept_path``: second name of its database, given
    before it is replaced; ``kept``: its fingerprint, "" if it did not exist; ``kept_digest``: digest of all
    of it, "" if the run did not get that far. ``containerd_after``: fingerprint of the database that replaces
    it, noted right before that; "" until then. All of these are "" if containerd runs. ``v2``: fingerprint of
    the new store, "" until it is complete. ``used``: others may have used the replaced database before a run
    continued.
    ``upstream_exact``: the new store has no sizes of blobs; before format 2 no store had them. ``previous``:
    it was made from the state of v1 before its newest transaction. ``way_back``: how an undo that has begun
    goes back; "" before that. ``lacking``: how many records lacked their snapshot then; None if labels tell
    which snapshots there were. ``lacking_records``: the ids of those that were left out for that, a character
    for each byte.
    """

    v1: str
    plan: str
    containerd: Mapping[str, str]
    phase: str = APPLYING
    kept_path: str = ""
    kept: str = ""
    kept_digest: str = ""
    containerd_after: str = ""
    v2: str = ""
    used: bool = False
    upstream_exact: bool = True
    previous: bool = False
    way_back: str = ""
    lacking: int | None = None
    lacking_records: tuple[str, ...] = ()


def kept_path(state: State, database: Path | None) -> Path:
    """Path of the old database: beside the current one, which may have been moved together with it."""
    kept = Path(state.kept_path)
    return kept if database is None else database.with_name(kept.name)


def had_no_database(state: State) -> bool:
    """Whether containerd's database did not exist before the migration, which created it."""
    return bool(state.kept_path) and not state.kept


def is_untouched(state: State, database: Path | None) -> bool:
    """Whether the database is still the one from before the migration, even if it was used since.

    It gets its second name right before it is replaced. Until then both names belong to one file; or they are
    equal, if they were copied since. If there was none, there still is none, or others have created one.
    """
    if not state.kept_path:
        return False
    kept = kept_path(state, database)
    database = database or Path(state.containerd["place"])
    now = fingerprint(database)
    if now in ("", state.kept, state.containerd_after):
        return now == state.kept
    if had_no_database(state):
        return not state.containerd_after  # others may have created one
    with storage_errors(database), contextlib.suppress(FileNotFoundError):
        return os.path.samestat(kept.stat(), database.stat()) or fingerprint(kept) == now
    return state.phase == APPLYING or (state.phase == UNDOING and state.way_back in _WITHOUT_KEPT)


def encode(state: State) -> bytes:
    """The form that is stored."""
    fields = asdict(state)
    if state.lacking is None:
        del fields["lacking"], fields["lacking_records"]  # older versions don't know them, or need them
    return json.dumps({"format": _FORMAT, **fields}, sort_keys=True).encode()


def decode(stored: bytes, path: Path) -> State:
    """Raises JournalError. ``path``: of the journal, for errors."""
    try:
        fields = json.loads(stored)
        if fields.pop("format") not in _KNOWN_FORMATS:
            raise JournalError(
                f"{path}: a journal of a newer version",
                hint="use the version of buildkit-migrate that made it",
            )
        for name in _FINGERPRINTS:
            fields[name] = _without_time(fields[name])
        if fields["phase"] == UNDOING:
            # Before this field existed, only a database that was put back, or not yet kept, could be missing.
            fields.setdefault("way_back", PUT_BACK)
        if fields["kept_path"] and not _KEPT_NAME.fullmatch(Path(fields["kept_path"]).name):
            raise ValueError("not the name of a kept database")
        fields["lacking_records"] = tuple(fields.get("lacking_records", ()))
        return State(**fields)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise JournalError(f"{path}: the journal's state can't be read", hint=UNREADABLE) from error


def _without_time(old: str) -> str:
    """Old fingerprints had a modification time between size and digest, which copies don't preserve."""
    parts = old.split(":")
    return ":".join((parts[0], parts[-1])) if len(parts) == 3 else old
