"""Errors of buildkit-migrate: one base class; each class knows its exit status and carries fields."""

from __future__ import annotations

from collections.abc import Sequence

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
]


class Error(Exception):
    """Base class. ``str(error)`` is one message for a person: what is wrong, where, and what to do.

    ``exit_code`` is the exit status of the command; ``hint`` says what to do next, "" if nothing helps.
    ``reports``: those of the workers that were finished before, if it ended the migration of a root.
    """

    exit_code = 1
    hint = ""
    reports: Sequence[object] = ()

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if hint is not None:
            self.hint = hint


class RootNotFoundError(Error):
    """No BuildKit state directory or worker directory where one was expected.

    ``candidates``: paths of those that may be meant. ``command``: what each completes to a command line.
    """

    exit_code = 3
    command = ""

    def __init__(self, message: str, *, hint: str = "", candidates: Sequence[str] = ()) -> None:
        super().__init__(message, hint=hint)
        self.candidates = tuple(candidates)


class BusyError(Error):
    """A database or lock file is held by another process, most likely a running daemon."""

    exit_code = 4
    hint = "stop the BuildKit daemon (and any other buildkit-migrate) and run the command again"


class CorruptDatabaseError(Error):
    """A database file breaks a rule of its format (bbolt: spec bbolt-format, section 14).

    ``path``: the file, "" for one in memory. ``page``: page number, or -1 if the rule is about the file.
    ``rule``: short name of the broken rule.
    """

    exit_code = 5
    hint = "restore the file from a backup, or remove the cache"

    def __init__(self, rule: str, *, path: str = "", page: int = -1, detail: str = "") -> None:
        where = f"page {page}: " if page >= 0 else ""
        more = f" ({detail})" if detail else ""
        super().__init__(f"{path or 'database'}: {where}{rule}{more}")
        self.path = path
        self.page = page
        self.rule = rule
        self.detail = detail


class BrokenRecordsError(Error):
    """The v1 store has records that can't be migrated as they are, and the policy is to refuse.

    ``problems``: one object per broken record, each with its reason.
    """

    exit_code = 6
    hint = "--on-broken drop leaves these records and their descendants out of the new store"

    def __init__(self, message: str, problems: Sequence[object], *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.problems = tuple(problems)


class ContainerdStateError(Error):
    """The containerd services have no usable state for this worker, or not that of its v1 store."""

    exit_code = 7

    @property
    def missing(self) -> bool:
        """Whether it is that a stopped containerd's files are not there."""
        return isinstance(self.__cause__, StorageError) and self.__cause__.missing


class StorageError(Error):
    """The operating system refused to read or write (disk full, no permission, I/O error)."""

    exit_code = 8

    @property
    def missing(self) -> bool:
        """Whether it is that there is no such file."""
        return isinstance(self.__cause__, FileNotFoundError)


class UnusableTargetError(Error):
    """Something exists where a store is to be written; or what is at the v2 path is no sound store, or one of
    another engine.
    """

    exit_code = 9


class DifferencesError(Error):
    """What a migration wrote is not what v1 and containerd ask for. ``differences``: one object for each."""

    exit_code = 10
    hint = "the v1 store is as it was; please report this"

    def __init__(self, message: str, differences: Sequence[object], *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.differences = tuple(differences)


class EditConflictError(Error):
    """An edit puts a value where a bucket is, or enters a bucket where a value is."""

    exit_code = 5
    hint = "the database is not laid out as expected: restore it from a backup, or remove the cache"


class ContainerdUnavailableError(Error):
    """A running containerd is needed and does not answer, or does not let us in.

    ``address``: that of its socket.
    """

    exit_code = 11
    hint = (
        "start containerd, or see --address; --offline works on the files of a stopped one; "
        "running the command again goes on where it stopped"
    )

    def __init__(self, message: str, *, address: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.address = address


class ContainerdCallError(Error):
    """A running containerd refused a call.

    ``method``: such as ``Leases.Create``. ``code``: name of the gRPC status. ``subject``: the record,
    snapshot, blob or lease that the call was about, empty if it was about all.
    """

    exit_code = 12
    hint = "running the command again goes on where it stopped"

    def __init__(
        self, message: str, *, method: str, code: str, detail: str, subject: bytes, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.method = method
        self.code = code
        self.detail = detail
        self.subject = subject


class EventLoopError(Error, RuntimeError):
    """A running containerd was to be called inside of a running event loop, which that would block."""

    hint = "await asyncio.to_thread(migrate_root, ...), or the function that you called, does it in a thread"


class RecordNotFoundError(Error):
    """The metadata store has no such record."""


class JournalError(Error):
    """The journal of an earlier run is of another plan or can't be read, or nothing leads back to v1."""

    exit_code = 13


class UndoRefusedError(Error):
    """Going back to v1 would lose what was done since.

    ``reasons``: each of them, for a person.
    """

    exit_code = 14
    hint = "--force goes back all the same"

    def __init__(self, message: str, reasons: Sequence[str], *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.reasons = tuple(reasons)


class NativeSelfTestError(Error):
    """A native kernel gave a wrong answer for a known input; the build or its dispatch is faulty."""
