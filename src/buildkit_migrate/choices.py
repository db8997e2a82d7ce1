"""The words that options accept. Daemons load this module at each start, so it imports nothing."""

__all__ = [
    "ENGINES",
    "KNOWN_SNAPSHOTTERS",
    "ON_BROKEN",
    "PROGRESS",
    "SNAPSHOTTERS_WITH_DATABASE",
    "check_choice",
    "check_options",
]

ENGINES = ("bolt", "lmdb")
ON_BROKEN = ("fail", "drop")
PROGRESS = ("auto", "bar", "plain", "none")
KNOWN_SNAPSHOTTERS = frozenset(
    (
        "aufs",
        "blockfile",
        "btrfs",
        "cvmfs-snapshotter",
        "devmapper",
        "erofs",
        "fuse-overlayfs",
        "native",
        "nydus",
        "overlaybd",
        "overlayfs",
        "soci",
        "stargz",
        "zfs",
    )
)
"""Those of BuildKit and containerd, and remote ones that are widely used; any other may be configured."""

SNAPSHOTTERS_WITH_DATABASE = frozenset(("overlayfs", "native", "fuse-overlayfs", "stargz"))
"""Those whose database is below the worker's directory if they are BuildKit's own."""


def check_choice(name: str, value: object, choices: "tuple[str, ...]") -> None:
    """Raises ValueError unless ``value`` is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name} must be {' or '.join(map(repr, choices))}, not {value!r}")


def check_options(*, on_broken: object = "fail", engine: object = "bolt", verify: object = False) -> None:
    """Raises ValueError if an option of a migration is invalid or the options conflict."""
    check_choice("on_broken", on_broken, ON_BROKEN)
    check_choice("engine", engine, ENGINES)
    if verify and engine != "bolt":
        raise ValueError("verify requires engine 'bolt': only bolt stores are verified before use")
