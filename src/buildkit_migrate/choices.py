"""Options that take one of a few words. A daemon loads this at each start, so it imports nothing."""

__all__ = ["ENGINES", "ON_BROKEN", "check_choice", "check_options"]

ENGINES = ("bolt", "lmdb")
ON_BROKEN = ("fail", "drop")


def check_choice(name: str, value: object, choices: "tuple[str, ...]") -> None:
    """Raises ValueError unless ``value`` is one of the choices: a slip must not stand for another word."""
    if value not in choices:
        raise ValueError(f"{name} must be {' or '.join(map(repr, choices))}, not {value!r}")


def check_options(*, on_broken: object = "fail", engine: object = "bolt", verify: object = False) -> None:
    """Raises ValueError if these options of a migration are wrong, or don't go together."""
    check_choice("on_broken", on_broken, ON_BROKEN)
    check_choice("engine", engine, ENGINES)
    if verify and engine != "bolt":
        raise ValueError("verify is for the engine 'bolt': only such a store is verified before it is used")
