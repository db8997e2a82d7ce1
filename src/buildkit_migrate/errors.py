"""Errors of buildkit-migrate: one base class; each class has its exit status and fields.

Errors also render themselves: ``as_dict()`` for JSON, ``lines()`` for people, below the message. Daemons that
embed the package load this module at each start, so it imports next to nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

TYPE_CHECKING = False  # typing's own would have to be imported
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any, Protocol

    from buildkit_migrate.model import Problem

    class Finding(Protocol):
        """One of several things that are wrong, like `Problem`."""

        def as_dict(self) -> dict[str, str | None]: ...

        def line(self) -> str: ...

    class Finished(Protocol):
        """Result for a worker: a report of any command."""

        @property
        def worker(self) -> Path: ...

        @property
        def done(self) -> str: ...

        def as_dict(self) -> dict[str, Any]: ...


__all__ = [
    "BrokenRecordsError",
    "BusyError",
    "ContainerdCallError",
    "ContainerdStateError",
    "ContainerdUnavailableError",
    "CorruptDatabaseError",
    "DifferencesError",
    "EditConflictError",
    "Error",
    "EventLoopError",
    "JournalError",
    "NativeSelfTestError",
    "RecordNotFoundError",
    "RootNotFoundError",
    "StorageError",
    "UndoRefusedError",
    "UnusableTargetError",
    "finished_before",
]


class Error(Exception):
    """Base class. ``str(error)`` is a message for people: what is wrong, where, and what to do.

    ``message`` (str): that message. ``hint`` (str): what to do next, by default that of the class; "" if
    there is none. ``exit_code`` (int): exit status of the command. ``reports`` (a tuple of `Report`, `Undone`
    or `Cleaned`): the workers of the root that were finished before the error.
    """

    exit_code: int = 1
    hint: str = ""
    message: str
    reports: Sequence[Finished] = ()

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if hint is not None:
            self.hint = hint

    def as_dict(self) -> dict[str, Any]:
        """The JSON form, as of `Report.as_dict`.

        It has the fields of all classes; those that don't apply are None or [].
        """
        from buildkit_migrate.text import named_text

        return {
            "type": type(self).__name__,
            **named_text("message", self.message),
            **named_text("hint", self.hint),
            "exit_code": self.exit_code,
            **dict.fromkeys(("path", "page", "rule", "detail", "address", "method", "code", "subject")),
            "finished": [report.as_dict() for report in self.reports],
            "reasons": [],
            "problems": [],
            "differences": [],
            "candidates": [],
        }

    def lines(self, *, verbose: bool = False) -> Iterable[str]:
        """Lines below the message, safe to print; long lists are complete only if ``verbose``."""
        return ()


def finished_before(error: BaseException) -> Sequence[Finished]:
    """The ``reports`` of any exception that ended the work on a root, even KeyboardInterrupt."""
    reports: Sequence[Finished] = getattr(error, "reports", ())
    return reports


class RootNotFoundError(Error):
    """No BuildKit state or worker directory where one was expected.

    ``candidates`` (tuple of str): paths that may be meant. ``command`` (str): prefix that turns each
    candidate into a command line.
    """

    exit_code = 3
    candidates: tuple[str, ...]
    command: str = ""

    def __init__(self, message: str, *, hint: str | None = None, candidates: Sequence[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.candidates = tuple(candidates)

    def as_dict(self) -> dict[str, Any]:
        from buildkit_migrate.text import printable

        return {**super().as_dict(), "candidates": [printable(path) for path in self.candidates]}

    def lines(self, *, verbose: bool = False) -> Iterable[str]:
        import shlex

        from buildkit_migrate.text import printable

        return [f"{self.command}{printable(shlex.quote(path))}" for path in self.candidates]


class BusyError(Error):
    """A database or lock file is in use by another process, usually a daemon; or a store can't be written."""

    exit_code = 4
    hint = "stop the BuildKit daemon (and any other buildkit-migrate) and run the command again"


class CorruptDatabaseError(Error):
    """A database file violates a rule of its format (bbolt: spec bbolt-format, section 14).

    ``path`` (str): the file, "" if in memory. ``page`` (int): page number, or -1 if the rule concerns the
    whole file. ``rule`` (str): short name of the violated rule. ``detail`` (str): what violates it; "" if the
    rule says it all.
    """

    exit_code = 5
    hint = "restore the file from a backup, or remove the cache"
    path: str
    page: int
    rule: str
    detail: str

    def __init__(
        self, rule: str, *, path: str = "", page: int = -1, detail: str = "", hint: str | None = None
    ) -> None:
        where = f"page {page}: " if page >= 0 else ""
        more = f" ({detail})" if detail else ""
        super().__init__(f"{path or 'database'}: {where}{rule}{more}", hint=hint)
        self.path = path
        self.page = page
        self.rule = rule
        self.detail = detail

    def as_dict(self) -> dict[str, Any]:
        from buildkit_migrate.text import named_text

        return {
            **super().as_dict(),
            **named_text("path", self.path or None),
            "page": self.page if self.page >= 0 else None,
            **named_text("rule", self.rule),
            **named_text("detail", self.detail or None),
        }


class BrokenRecordsError(Error):
    """The store has records that can't be migrated, or read, as they are.

    ``problems`` (tuple of `model.Problem`): one for each broken record, with its reason.
    """

    exit_code = 6
    hint = "--on-broken drop leaves these records and their descendants out of the new store"
    problems: tuple[Problem, ...]

    def __init__(self, message: str, problems: Sequence[Problem], *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.problems = tuple(problems)

    def as_dict(self) -> dict[str, Any]:
        return {**super().as_dict(), "problems": [problem.as_dict() for problem in self.problems]}

    def lines(self, *, verbose: bool = False) -> Iterable[str]:
        from buildkit_migrate.text import shortened

        return shortened([problem.line() for problem in self.problems], verbose)


class ContainerdStateError(Error):
    """The containerd services lack usable state for this worker, or have that of another v1 store."""

    exit_code = 7

    @property
    def missing(self) -> bool:
        """Whether the cause is that files of a stopped containerd are missing."""
        return isinstance(self.__cause__, StorageError) and self.__cause__.missing


class StorageError(Error):
    """The operating system refused to read or write (disk full, no permission, I/O error)."""

    exit_code = 8

    @property
    def missing(self) -> bool:
        """Whether the cause is that the file does not exist."""
        return isinstance(self.__cause__, FileNotFoundError)


class UnusableTargetError(Error):
    """Something is in the way of a new store.

    A file exists already, or what is at the v2 path is not a sound store, or has another engine.
    """

    exit_code = 9


class DifferencesError(Error):
    """What a migration wrote differs from what v1 and containerd require.

    ``differences`` (tuple of `migration.findings.Difference`): all of them.
    """

    exit_code = 10
    hint = "the v1 store is unchanged; please report this"
    differences: tuple[Finding, ...]

    def __init__(self, message: str, differences: Sequence[Finding], *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.differences = tuple(differences)

    def as_dict(self) -> dict[str, Any]:
        return {**super().as_dict(), "differences": [one.as_dict() for one in self.differences]}

    def lines(self, *, verbose: bool = False) -> Iterable[str]:
        from buildkit_migrate.text import shortened

        return shortened([difference.line() for difference in self.differences], verbose)


class EditConflictError(Error):
    """An edit puts a value where a bucket is, or enters a bucket where a value is."""

    exit_code = 5
    hint = "the database is not laid out as expected: restore it from a backup, or remove the cache"


class ContainerdUnavailableError(Error):
    """A running containerd is needed, but does not answer or denies access.

    ``address`` (str): of its socket.
    """

    exit_code = 11
    hint = (
        "start containerd, or see --address; --offline works on the files of a stopped one; "
        "run the command again to continue where it stopped"
    )
    address: str

    def __init__(self, message: str, *, address: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.address = address

    def as_dict(self) -> dict[str, Any]:
        from buildkit_migrate.text import named_text

        return {**super().as_dict(), **named_text("address", self.address)}


class ContainerdCallError(Error):
    """A running containerd rejected a call.

    ``method`` (str): such as ``Leases.Create``. ``code`` (str): name of the gRPC status. ``detail`` (str):
    containerd's message. ``subject`` (bytes): the record, snapshot, blob or lease that the call was about;
    empty if none in particular.
    """

    exit_code = 12
    hint = "run the command again to continue where it stopped"
    method: str
    code: str
    detail: str
    subject: bytes

    def __init__(
        self, message: str, *, method: str, code: str, detail: str, subject: bytes, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.method = method
        self.code = code
        self.detail = detail
        self.subject = subject

    def as_dict(self) -> dict[str, Any]:
        from buildkit_migrate.text import named_text

        return {
            **super().as_dict(),
            "method": self.method,
            "code": self.code,
            **named_text("detail", self.detail or None),
            **named_text("subject", self.subject or None),
        }


class EventLoopError(Error, RuntimeError):
    """A running containerd can't be called from within a running event loop, which the call would block."""

    hint = "await asyncio.to_thread(migrate_root, ...), or the function that you called, does it in a thread"


class RecordNotFoundError(Error):
    """The metadata store has no such record."""


class JournalError(Error):
    """The journal of an earlier run belongs to another plan or can't be read; or nothing leads back to v1."""

    exit_code = 13


class UndoRefusedError(Error):
    """Going back, to v1 or to before a repair or compaction, would lose what was done since.

    ``reasons`` (tuple of str): all of them, for people; also in the message.
    """

    exit_code = 14
    hint = "--force goes back all the same"
    reasons: tuple[str, ...]

    def __init__(self, message: str, reasons: Sequence[str], *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.reasons = tuple(reasons)

    def as_dict(self) -> dict[str, Any]:
        from buildkit_migrate.text import printable

        return {**super().as_dict(), "reasons": [printable(reason) for reason in self.reasons]}


class NativeSelfTestError(Error):
    """A native kernel computed a wrong answer for a known input: the build or kernel selection is faulty."""
