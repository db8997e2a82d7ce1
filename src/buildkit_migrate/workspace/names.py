"""Names of worker directories, of copies that somebody put aside, and of the files of Docker's builder.

Used by daemons at each start, so it imports nothing.
"""

__all__ = ["TELLING", "copied_from", "is_docker_builder", "is_identifier"]

_SET_ASIDE = frozenset(
    (
        "archive",
        "archived",
        "back",
        "backup",
        "bak",
        "bck",
        "before",
        "bk",
        "bkp",
        "broken",
        "copy",
        "deleted",
        "disabled",
        "moved",
        "old",
        "orig",
        "original",
        "pre",
        "prev",
        "previous",
        "removed",
        "save",
        "saved",
        "temp",
        "tmp",
        "trash",
        "unused",
        "v1",
    )
)
TELLING = ("buildkitd.lock", "cache.db", "image", "metadata.db", "metadata_v2.db", "snapshots.db")
"""Names of files that tell whether a directory is that of Docker's builder."""

_DATE = 6
"""A suffix with this many digits is a date or time."""


def is_identifier(name: str) -> bool:
    """Whether this is a valid name of a containerd namespace, or here of a snapshotter."""
    words = name.replace(".", "-").replace("_", "-").split("-")
    return len(name) <= 76 and all(word.isascii() and word.isalnum() for word in words)


def is_docker_builder(names: "frozenset[str] | set[str]", beside: "frozenset[str] | set[str]") -> bool:
    """Whether these are the names in a directory of the builder inside Docker Engine.

    ``beside``: names in its parent. The builder has its records directly in its directory. A copy of them in
    a stand-alone daemon's does not make that one Docker's: Docker has neither its lock file nor OCI workers,
    and containerd workers only with an ``image`` directory beside it, or with databases of both kinds.
    """
    has_records = "metadata.db" in names or "metadata_v2.db" in names
    in_data_root = "image" in beside
    if "buildkitd.lock" in names or any(name.startswith("runc-") for name in names):
        return False
    if "buildkit" in names and "image" in names:
        return False  # the data root itself
    if not in_data_root and any(name.startswith("containerd-") for name in names):
        return has_records and "snapshots.db" in names
    return "snapshots.db" in names or (has_records and ("cache.db" in names or in_data_root))


def copied_from(name: str, names: "frozenset[str] | set[str]") -> "str | None":
    """Returns the one of ``names`` that ``name`` is a copy of by its suffix, as in ``overlayfs.bak``.

    "" if the whole name is such a suffix, as in ``runc-backup``; None if it is not a copy.
    """
    for original in sorted(names, key=len, reverse=True):
        if name.startswith(original) and _is_set_aside(name[len(original) :]):
            return original
    return "" if _is_set_aside("." + name) else None


def _is_set_aside(ending: str) -> bool:
    if not ending or ending[0].isalnum():
        return False
    words = "".join(c if c.isalnum() else " " for c in ending.lower()).split()
    return (
        ending.endswith("~")
        or sum(map(str.isdigit, ending)) >= _DATE
        or any(word in _SET_ASIDE or word.rstrip("0123456789") in _SET_ASIDE for word in words)
    )
