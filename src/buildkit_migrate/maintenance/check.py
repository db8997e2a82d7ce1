"""All rules over all stores of a root.

with open_stores(find_state(path), place) as stores:
    checked = check_stores(stores)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from buildkit_migrate.errors import ContainerdStateError, CorruptDatabaseError, StorageError
from buildkit_migrate.maintenance import table
from buildkit_migrate.maintenance.available import (
    NOTHING_THERE,
    OF_DOCKER,
    unavailable,
    unavailable_in_worker,
)
from buildkit_migrate.maintenance.facts import Facts, WorkerFacts
from buildkit_migrate.maintenance.finding import Finding, Severity
from buildkit_migrate.maintenance.rule import Part, RootRule, WorkerRule, number_of
from buildkit_migrate.maintenance.rules import (
    chains,
    content,
    data,
    docker,
    files,
    history,
    indexes,
    lazy,
    leases,
    leftovers,
    listed,
    records,
    snapshotter,
    solver,
    unknown,
    values,
)
from buildkit_migrate.maintenance.rules.wording import subject
from buildkit_migrate.progress import BYTES, Progress, Stage, silent
from buildkit_migrate.text import named_text, printable
from buildkit_migrate.workspace.layout import Root
from buildkit_migrate.workspace.stores import Fault, Store, Stores

__all__ = [
    "FINDINGS",
    "ROOT_RULES",
    "WORKER_RULES",
    "Checked",
    "Examination",
    "NotTested",
    "check_stores",
    "examine_stores",
    "finding_as_dict",
]

WORKER_RULES: Final[tuple[WorkerRule, ...]] = (
    *values.RULES,
    *records.RULES,
    *lazy.RULES,
    *indexes.RULES,
    *chains.RULES,
    *unknown.WORKER_RULES,
    *data.RULES,
    *listed.RULES,
    *snapshotter.RULES,
    *docker.RULES,
    *content.RULES,
    *leftovers.WORKER_RULES,
)
"""In the order in which they are run; findings are sorted."""

ROOT_RULES: Final[tuple[RootRule, ...]] = (
    *unknown.ROOT_RULES,
    *leases.RULES,
    *solver.RULES,
    *history.RULES,
    *leftovers.ROOT_RULES,
)

_NO_WORKER: Final = "there is no directory of a worker (runc-* or containerd-*)"

MANY_FILES: Final = 200_000
"""Up to this many are looked at unasked; that takes a second or two."""
MANY_BYTES: Final = 64 << 20
"""Up to this many bytes of blobs are read unasked."""


@dataclass(frozen=True)
class NotTested:
    """``rules``: their numbers, none for all of them. ``place``: the worker, or the root. ``reason``: for
    people.
    """

    rules: tuple[str, ...]
    place: Path
    reason: str

    def as_dict(self) -> dict[str, Any]:
        return {
            "rules": list(self.rules),
            **named_text("place", self.place),
            **named_text("reason", self.reason),
        }


@dataclass(frozen=True)
class Checked:
    """What a check found. ``tested``: numbers of the rules that were tested everywhere or at least somewhere.

    ``findings``: in the order of the rules, then of files and subjects. ``unsound``: databases with damaged
    pages or free lists. ``finished``: False if something could not be read, which is among ``not_tested``.
    """

    root: Path
    findings: tuple[Finding, ...]
    tested: tuple[str, ...]
    not_tested: tuple[NotTested, ...] = ()
    unsound: tuple[Path, ...] = ()
    finished: bool = True

    @property
    def counts(self) -> Mapping[str, int]:
        """Findings of each rule that has any, in the order of the rules."""
        return Counter(finding.rule for finding in self.findings)

    @property
    def worst(self) -> Severity | None:
        """None without findings."""
        found = {finding.severity for finding in self.findings}
        return next((severity for severity in Severity if severity in found), None)

    @property
    def bytes(self) -> int:
        """What all findings cost on disk."""
        return sum(finding.bytes or 0 for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """0, FINDINGS, or that of a damaged database, or of what could not be read."""
        if self.unsound:
            return CorruptDatabaseError.exit_code
        if self.findings:
            return FINDINGS
        return 0 if self.finished else StorageError.exit_code

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **named_text("root", self.root),
            "findings": [finding_as_dict(finding) for finding in self.findings],
            "counts": dict(self.counts),
            "worst": self.worst,
            "bytes": self.bytes,
            "tested": list(self.tested),
            "not_tested": [one.as_dict() for one in self.not_tested],
            "unsound": [printable(str(path)) for path in self.unsound],
        }


FINDINGS: Final = 15
"""Exit status of a check that has findings, all databases being sound."""


def finding_as_dict(finding: Finding) -> dict[str, Any]:
    """The JSON form of a finding."""
    entry = table.entries()[finding.rule]
    return {
        "rule": finding.rule,
        "severity": finding.severity,
        **named_text("file", finding.file),
        **named_text("subject", finding.subject),
        **named_text("message", finding.message),
        "bytes": finding.bytes,
        "meaning": entry.meaning,
        **named_text("repair", finding.repair or entry.repair),
    }


@dataclass(frozen=True)
class Examination:
    """What a check found, and what it looked at. ``unusable``: stores that no rule may look into, and why.

    ``lacking``: of each worker, what could not be looked at, or was not.
    """

    checked: Checked
    facts: Facts
    unusable: Mapping[Store, str]
    lacking: Mapping[WorkerFacts, frozenset[Part]]


def check_stores(
    stores: Stores,
    *,
    rules: Collection[str] | None = None,
    severities: Collection[Severity] | None = None,
    content: bool = False,
    progress: Progress | None = None,
) -> Checked:
    """What `examine_stores` finds, with the same errors."""
    return examine_stores(
        stores, rules=rules, severities=severities, content=content, progress=progress
    ).checked


def examine_stores(
    stores: Stores,
    *,
    rules: Collection[str] | None = None,
    severities: Collection[Severity] | None = None,
    content: bool = False,
    progress: Progress | None = None,
) -> Examination:
    """Checks the pages of all stores, then all rules that can be tested.

    ``rules``: only these, by number; ``severities``: only findings of these. Pages are looked at in any case,
    as rules stand on them. ``content``: reads all blobs, and looks at every file of the snapshots, however
    many there are. What can't be read in a directory is not tested. Raises StorageError if a store can't be
    read, so that nothing can be said, CorruptDatabaseError, and ValueError for a rule that there is not.
    """
    if rules is not None and (unknown_rules := set(rules) - table.entries().keys()):
        raise ValueError(f"there is no rule {min(unknown_rules)}")
    tell = progress or silent
    for store in stores.all:
        if store.fault is Fault.UNREADABLE and store.error is not None:
            raise store.error
    run = _Run(stores.root, rules)
    looked_at = files.look_at_files(stores, tell)
    run.test(files.NUMBERS, stores.root.state, looked_at.findings)
    if not stores.workers:
        for worker_rule in WORKER_RULES:
            run.can(worker_rule.numbers, (Part.RECORDS,), {Part.RECORDS: _NO_WORKER}, stores.root.state)
    facts, state = looked_at.facts, stores.root.state
    missing_in_root = unavailable(stores, looked_at.unusable)
    apart = [
        rule
        for rule in ROOT_RULES
        if rule.needs == (Part.CACHE,) and run.can(rule.numbers, rule.needs, missing_in_root, state)
    ]
    with ThreadPoolExecutor(1) as beside:  # the solver cache is a store that rules about workers don't read
        found_apart = beside.submit(_find, apart, facts)
        lacking = {
            worker: _check_worker(run, worker, looked_at.unusable, content, tell) for worker in facts.workers
        }
        found = found_apart.result()
    for root_rule in ROOT_RULES:
        if run.can(root_rule.numbers, root_rule.needs, missing_in_root, state):
            tell(f"checking {state}: {', '.join(root_rule.numbers)}")
            findings = found[root_rule] if root_rule in found else root_rule.find(facts)
            run.test(root_rule.numbers, state, findings)
    checked = run.result(looked_at.unsound, lambda finding: not severities or finding.severity in severities)
    return Examination(checked, facts, looked_at.unusable, lacking)


def _find(rules: Iterable[RootRule], facts: Facts) -> dict[RootRule, list[Finding]]:
    """What these rules find, without those that could not read something."""
    found = {}
    for rule in rules:
        with suppress(StorageError):
            found[rule] = [*rule.find(facts)]
        if facts.solver is not None:
            facts.solver.forget_mirrors()  # no two of these rules look at the same one
    facts.forget_solver()
    return found


def _check_worker(
    run: _Run, worker: WorkerFacts, unusable: Mapping[Store, str], content: bool, tell: Progress
) -> frozenset[Part]:
    """Runs the rules about it. Returns what could not be looked at."""
    missing = unavailable_in_worker(worker.stores, unusable)
    try:
        missing.update(_left_out(worker, content))
        missing.update(_of_docker(worker, missing))
    except StorageError as error:
        run.failed = True
        missing.update(dict.fromkeys(_ON_DISK, error.message))
    for rule in WORKER_RULES:
        if run.can(rule.numbers, rule.needs, missing, worker.stores.path):
            tell(_stage(worker, rule))
            findings = _without_consequences(worker, rule.find(worker))
            run.test(rule.numbers, worker.stores.path, findings)
        if rule in _LAST_USES:
            worker.forget(*_LAST_USES[rule])
    return frozenset(missing)


def _stage(worker: WorkerFacts, rule: WorkerRule) -> str:
    about = f"checking {worker.stores.path}: {', '.join(rule.numbers)}"
    content, directories = worker.content, worker.directories
    if Part.BLOBS in rule.needs and content is not None:
        return Stage(about, worker.blob_bytes, BYTES, lambda: content.hashed)
    if Part.FILES in rule.needs and directories is not None:
        return Stage(about, worker.file_count, "files", lambda: directories.counted)
    return about


_LAST_USES: Final[Mapping[WorkerRule, tuple[str, ...]]] = {indexes.RULES[-1]: ("entries", "external")}
"""After which rules no other one looks at views of a worker."""

_ON_DISK: Final = (Part.DIRECTORIES, Part.FILES, Part.CONTENT, Part.BLOBS)


def _left_out(worker: WorkerFacts, content: bool) -> dict[Part, str]:
    """What is not looked at on disk, and why. Raises StorageError."""
    if worker.databases_only:
        why = "there are databases only, no directory of a snapshot and no file of a blob"
        return dict.fromkeys(_ON_DISK, why)
    missing = {}
    if not content and (count := worker.file_count) > MANY_FILES:
        missing[Part.FILES] = f"there are {count} files in snapshots to look at (--content does that)"
    if not content and (size := worker.blob_bytes) > MANY_BYTES:
        missing[Part.BLOBS] = f"there are {size} bytes of blobs to read (--content does that)"
    return missing


def _of_docker(worker: WorkerFacts, missing: Mapping[Part, str]) -> dict[Part, str]:
    """The layer store, if it can't be told which. Raises StorageError."""
    try:
        if Part.LAYERS not in missing:
            worker.driver  # noqa: B018
    except ContainerdStateError as error:
        return {Part.LAYERS: error.message}
    return {}


_OF_VALUES: Final = frozenset({"C8", "C9", "C20", "C62"})
"""Rules that report a record whose values or id do not say what it is."""


def _without_consequences(facts: WorkerFacts, findings: Iterator[Finding]) -> Iterator[Finding]:
    """Leaves out what only follows from such a value."""
    odd = {subject(facts.records.ids[row]) for row in facts.odd} if facts.records is not None else set()
    return (finding for finding in findings if finding.rule in _OF_VALUES or finding.subject not in odd)


class _Run:
    """What was asked for, and what came out of it so far. ``failed``: something could not be read."""

    def __init__(self, root: Root, rules: Collection[str] | None) -> None:
        self._root = root
        self._asked = rules
        self._findings: list[Finding] = []
        self._tested: set[str] = set()
        self._tested_at: set[tuple[Path, str]] = set()
        self._untested: dict[tuple[Path, str], set[str]] = {}
        self.failed = False

    def _wanted(self, numbers: Iterable[str]) -> set[str]:
        return {number for number in numbers if self._asked is None or number in self._asked}

    def can(
        self, numbers: Iterable[str], needs: Iterable[Part], missing: Mapping[Part, str], place: Path
    ) -> bool:
        """Whether a rule is to be tested; if it can't be, that is noted."""
        wanted = self._wanted(numbers)
        why = next((missing[part] for part in needs if part in missing), None)
        if wanted and why is not None and why is not NOTHING_THERE:
            self._untested.setdefault((place, why), set()).update(wanted)
        return bool(wanted) and why is None

    def test(self, numbers: Iterable[str], place: Path, findings: Iterable[Finding]) -> None:
        """Takes the findings of a rule; those before a place that can't be read stay."""
        wanted = self._wanted(numbers)
        try:
            for finding in findings:
                if finding.rule in wanted:
                    self._findings.append(finding)
        except StorageError as error:
            self.failed = True
            self._untested.setdefault((place, error.message), set()).update(wanted)
        else:
            self._tested |= wanted
            self._tested_at |= {(place, number) for number in wanted}

    def _left(self, numbers: set[str], place: Path, reason: str) -> set[str]:
        """Of rules that were not tested for a reason those that no other one stands for."""
        if reason != OF_DOCKER:
            return numbers
        return {number for number in numbers if (place, number) not in self._tested_at}

    def result(self, unsound: Iterable[Path], shown: Callable[[Finding], bool]) -> Checked:
        findings = sorted(
            filter(shown, self._findings),
            key=lambda finding: (number_of(finding.rule), str(finding.file), finding.subject),
        )
        return Checked(
            self._root.path,
            tuple(findings),
            tuple(sorted(self._tested, key=number_of)),
            (
                *(
                    NotTested(tuple(sorted(left, key=number_of)), place, reason)
                    for (place, reason), numbers in self._untested.items()
                    if (left := self._left(numbers, place, reason))
                ),
                *(NotTested((), skipped.path, skipped.reason) for skipped in self._root.skipped),
            ),
            tuple(unsound),
            not self.failed,
        )
