"""Names of worker directories, and of copies that somebody put aside.

Used by daemons at each start, so it imports nothing.
"""

__all__ = ["copied_from", "is_identifier"]

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
_DATE = 6
"""A suffix with this many digits is a date or time."""


def is_identifier(name: str) -> bool:
    """Whether this is a valid name of a containerd namespace, or here of a snapshotter."""
    words = name.replace(".", "-").replace("_", "-").split("-")
    return len(name) <= 76 and all(word.isascii() and word.isalnum() for word in words)


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
