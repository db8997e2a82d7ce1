"""Reports and errors as text and JSON."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from buildkit_migrate import errors
from buildkit_migrate.cli.header import place_lines, space_lines
from buildkit_migrate.text import named_text, printable, shortened

if TYPE_CHECKING:
    from buildkit_migrate._native.plan import Plan
    from buildkit_migrate.bench.compare import Comparison
    from buildkit_migrate.maintenance.kept_files import KeptFiles
    from buildkit_migrate.migration.clean import Cleaned
    from buildkit_migrate.migration.plan import PlannedRecord
    from buildkit_migrate.migration.report import Report
    from buildkit_migrate.migration.status import Status
    from buildkit_migrate.migration.undo import Undone
    from buildkit_migrate.migration.verification import Verification

__all__ = [
    "cleaned_lines",
    "comparison_lines",
    "error_lines",
    "kept_as_dict",
    "kept_lines",
    "known_error",
    "report_lines",
    "reports_as_dict",
    "results_as_dict",
    "short_status_lines",
    "status_lines",
    "undone_lines",
    "verification_lines",
]


# --- Errors


def known_error(error: Exception) -> errors.Error:
    """Returns our own errors as they are, and converts others; unexpected ones ask for a report."""
    if isinstance(error, errors.Error):
        return error
    if isinstance(error, OSError):
        return errors.StorageError(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    known = errors.Error(
        f"unexpected {type(error).__name__}: {error}",
        hint="please report this, with the output of the same command with --debug",
    )
    known.reports = errors.finished_before(error)
    return known


def error_lines(error: errors.Error, *, verbose: bool) -> Iterator[str]:
    for result in error.reports:
        yield f"buildkit-migrate: {printable(os.fspath(result.worker))} {result.done} before that"
    yield f"buildkit-migrate: error: {printable(error.message)}"
    yield from (f"    {line}" for line in error.lines(verbose=verbose))
    if error.hint:
        yield f"buildkit-migrate: hint: {printable(error.hint)}"


# --- Reports


def reports_as_dict(root: Path, reports: Sequence[Report], dry_run: bool, verbose: bool) -> dict[str, Any]:
    workers = []
    for report in reports:
        plan = report.plan if verbose else None
        records = None if plan is None else [_record_as_dict(record) for record in _records(plan)]
        workers.append({**report.as_dict(), "record_list": records})
    return {**named_text("root", root), "dry_run": dry_run, "workers": workers}


def report_lines(root: Path, reports: Sequence[Report], verbose: bool) -> Iterator[str]:
    if not reports:
        yield f"{printable(os.fspath(root))}: no workers, nothing to migrate"
    for report in reports:
        yield from _report_lines(report, verbose)


def _report_lines(report: Report, verbose: bool) -> Iterator[str]:
    from buildkit_migrate.migration.report import Outcome

    worker = printable(os.fspath(report.worker))
    if report.outcome is Outcome.ALREADY_MIGRATED:
        yield f"{worker}: already migrated ({report.engine})"
        yield from _newer_lines(report.newer_in_v1)
        return
    if report.outcome is Outcome.SKIPPED:
        yield f"{worker}: {_skipped(report.reason)}"
        return
    if report.outcome is Outcome.NOTHING_TO_MIGRATE:
        yield f"{worker}: no v1 store, nothing to migrate"
        return
    done = "would migrate" if report.outcome is Outcome.PLANNED else "migrated"
    if report.place is not None:
        yield from place_lines(report.worker, report.place)
    yield from space_lines(report.space, estimated=True)
    if verbose:
        yield from _record_lines(report, done)
    counts = report.counts
    yield f"{worker}: {done} {counts['kept']} of {counts['records']} records ({report.seconds:.2f} s)"
    yield (
        f"  records: {counts['committed']} committed, {counts['blobs']} with blob, "
        f"{counts['chains']} with chain ids"
    )
    yield f"  leases: {counts['leases_to_create']} new, {counts['resources_to_add']} resources added"
    yield (
        f"  gc.root labels removed: {counts['unlabel_snapshots']} snapshots "
        f"({counts['views']} of them views), {counts['unlabel_blobs']} blobs"
    )
    if counts["labels_left_snapshots"] or counts["labels_left_blobs"]:
        yield (
            f"  gc.root labels left, as no record needs them: {counts['labels_left_snapshots']} snapshots, "
            f"{counts['labels_left_blobs']} blobs"
        )
    if counts["blob_sizes"] < counts["blobs"]:
        yield (
            f"  blobs without their size: {counts['blobs'] - counts['blob_sizes']}; BuildKit v0.8 and later "
            "can't export images with them"
        )
    for note in report.notes:
        yield f"  note: {printable(os.fsencode(note))}"
    if report.problems:
        yield "  broken records:"
        lines = [problem.line() for problem in report.problems]
        yield from (f"    {line}" for line in shortened(lines, verbose))
    if report.cautions:
        yield "  odd, but migrated:"
        lines = [f"{printable(record)}: {odd}" for record, odd in report.cautions]
        yield from (f"    {line}" for line in shortened(lines, verbose))


def undone_lines(root: Path, results: Sequence[Undone]) -> Iterator[str]:
    if not results:
        yield f"{printable(os.fspath(root))}: no workers, nothing to undo"
    for result in results:
        worker = printable(os.fspath(result.worker))
        if result.outcome == "nothing-to-undo":
            yield f"{worker}: not migrated, nothing to undo"
        elif result.outcome == "skipped":
            yield f"{worker}: {_skipped(result.reason)}"
        elif result.outcome == "planned":
            yield from _planned_undo_lines(worker, result)
        else:
            aside = "" if result.moved is None else f"; the v2 store is now {printable(result.moved.name)}"
            yield f"{worker}: back to v1 ({result.seconds:.2f} s){aside}"


_DATABASE: Final = {
    "nothing": "containerd's database is as it was before the migration",
    "put-back": "the old database of containerd would take its place again",
    "remove": "containerd's database would be deleted, as there was none before the migration",
    "edit": "containerd would get back labels, and lose leases; what others did in it stays",
}


def _planned_undo_lines(worker: str, result: Undone) -> Iterator[str]:
    if result.obstacle is not None:
        yield f"{worker}: can't go back to v1"
        yield f"  {printable(result.obstacle.message)}"
        return
    yield f"{worker}: would {'lose something by going' if result.losses else 'go'} back to v1"
    if result.moved is not None:
        yield f"  the v2 store would be moved to {printable(result.moved.name)}"
    yield f"  {_DATABASE[result.database]}"
    if counts := result.counts:
        yield (
            f"  leases deleted: {counts['leases']}; gc.root labels restored: {counts['snapshots']} "
            f"snapshots, {counts['blobs']} blobs"
        )
    for title, lines in (("since the migration, no loss", result.changes), ("lost", result.losses)):
        if lines:
            yield f"  {title}:"
            yield from (f"    {printable(line)}" for line in lines)


def cleaned_lines(root: Path, results: Sequence[Cleaned]) -> Iterator[str]:
    if not results:
        yield f"{printable(os.fspath(root))}: no workers, nothing to clean"
    for result in results:
        worker = printable(os.fspath(result.worker))
        if result.outcome == "skipped":
            yield f"{worker}: {_skipped(result.reason)}"
        elif result.outcome == "nothing-to-clean":
            yield f"{worker}: nothing to clean"
        else:
            yield from _cleaned_lines(worker, result)


def _cleaned_lines(worker: str, result: Cleaned) -> Iterator[str]:
    if result.outcome == "cleaned":
        yield f"{worker}: {result.size:,} bytes removed; metadata.db stays; nothing is left to undo"
    elif result.faults:
        yield f"{worker}: nothing would be removed"
        yield from (f"  {printable(fault.message)}" for fault in result.faults)
    else:
        yield f"{worker}: {result.size:,} bytes would be removed; after that, nothing is left to undo"
    for path, size in result.files:
        yield f"  {printable(os.fspath(path))} ({size:,} bytes)"


def short_status_lines(root: Path, statuses: Sequence[Status]) -> Iterator[str]:
    """One line per root."""
    workers = [f"{printable(status.worker.name)} {status.stage}" for status in statuses]
    yield f"{printable(os.fspath(root))}: {', '.join(workers) or 'no workers'}"


def status_lines(root: Path, statuses: Sequence[Status]) -> Iterator[str]:
    if not statuses:
        yield f"{printable(os.fspath(root))}: no workers"
    for status in statuses:
        worker = printable(os.fspath(status.worker))
        if str(status.stage) == "skipped":
            yield f"{worker}: {_skipped(status.reason)}"
            continue
        engine = f" ({status.target.engine})" if status.target and status.target.engine else ""
        stores = " and ".join(
            name for name, there in (("v1", status.has_v1), (f"v2{engine}", status.has_v2)) if there
        )
        yield f"{worker}: {status.stage} (stores: {stores or 'none'})"
        if status.state is not None and str(status.stage) != "migrated":
            yield f"  journal: {status.state.phase}, {status.finished_leases} leases noted as written"
        if status.target is not None and status.target.fault:
            yield f"  {status.target.path.name} {status.target.fault}"
        has_choice = status.state is not None or status.has_v1
        if has_choice and str(status.stage) in ("interrupted", "migrated"):
            yield _blob_sizes_line(status.upstream_exact)
        yield from _newer_lines(status.newer_in_v1)
        yield f"  next: {printable(status.next_step)}"


def kept_as_dict(kept: KeptFiles) -> dict[str, Any]:
    document = kept.as_dict()
    return {name: document[name] for name in ("kept", "kept_bytes")}


def kept_lines(kept: KeptFiles, in_full: bool) -> Iterator[str]:
    """What compactions keep."""
    if kept.files:
        root = printable(os.fspath(kept.root))
        yield (
            f"{root}: {len(kept.files)} old files ({kept.bytes:,} bytes) are kept by compact: compact --undo "
            "puts them back, compact --discard-kept deletes them"
        )
    for file in kept.files if in_full else ():
        yield f"  {printable(os.fspath(file.path))} ({file.bytes:,} bytes)"


def _newer_lines(newer: int | None) -> Iterator[str]:
    if newer:
        from buildkit_migrate.migration.newer import what_newer_means

        yield f"  warning: {what_newer_means(newer)}"


def _blob_sizes_line(upstream_exact: bool | None) -> str:
    if upstream_exact is None:
        return "  blob sizes: unknown, as there is no journal; verify checks them"
    if not upstream_exact:
        return "  blob sizes: written"
    return (
        "  blob sizes: none (upstream-exact); BuildKit v0.8 and later can't export images with migrated "
        "layers, until a repair, which is still to come, adds them"
    )


def _record_lines(report: Report, done: str) -> Iterator[str]:
    """One line per record, with the fields of upstream's log."""
    problems = {problem.record: problem for problem in report.problems}
    for record in _records(report.plan) if report.plan else ():
        if record.dropped:
            yield f"dropped {problems[record.id].line()}"
            continue
        text = {name: printable(value) for name, value in _fields(record).items()}
        yield (
            f'{done} {text["id"]} parent:"{text["parent"]}" snapshot:{text["snapshot"]} blob:{text["blob"]} '
            f"diffid:{text['diffid']} chainID:{text['chainID']} blobChainID:{text['blobChainID']}"
        )


def _records(plan: Plan) -> Iterator[PlannedRecord]:
    from buildkit_migrate.migration.plan import planned_record

    return (planned_record(plan, index) for index in range(len(plan.records)))


def _fields(record: PlannedRecord) -> dict[str, bytes]:
    return {
        "id": record.id,
        "parent": record.parent,
        "snapshot": record.snapshot,
        "blob": record.blob,
        "diffid": record.diff_id,
        "chainID": record.chain_id,
        "blobChainID": record.blob_chain_id,
    }


def _record_as_dict(record: PlannedRecord) -> dict[str, str | bool | None]:
    fields: dict[str, str | bool | None] = {"dropped": record.dropped}
    for name, value in _fields(record).items():
        fields |= named_text(name, None if record.dropped and name != "id" else value)
    return fields


# --- Verifications


def results_as_dict(
    root: Path, results: Sequence[Verification | Undone | Status | Cleaned]
) -> dict[str, Any]:
    workers = [result.as_dict() for result in results]
    return {**named_text("root", root), "workers": workers}


def verification_lines(root: Path, verifications: Sequence[Verification], verbose: bool) -> Iterator[str]:
    if not verifications:
        yield f"{printable(os.fspath(root))}: no workers, nothing to verify"
    for verification in verifications:
        yield f"{printable(os.fspath(verification.worker))}: {_verdict(verification)}"
        upstream_exact = verification.findings.upstream_exact
        if upstream_exact or (upstream_exact is False and not verification.findings.differences):
            yield _blob_sizes_line(upstream_exact)
        yield from (f"  {difference.line()}" for difference in verification.findings.differences)
        for text in verification.findings.unchecked:
            yield f"  not checked: {printable(text)}"
        if verbose and verification.findings.problems:
            yield "  broken in v1, and rightly left out or repaired:"
            yield from (f"    {problem.line()}" for problem in verification.findings.problems)


def _verdict(verification: Verification) -> str:
    from buildkit_migrate.migration.verification import Verdict

    findings = verification.findings
    match verification.verdict:
        case Verdict.OK:
            left_out = f"; {findings.left_out} broken ones were left out" if findings.left_out else ""
            return (
                f"OK: {findings.records} of {findings.total} records are in the v2 store{left_out} "
                f"({verification.seconds:.2f} s)"
            )
        case Verdict.DIFFERENT:
            return f"{len(findings.differences)} differences ({verification.seconds:.2f} s)"
        case Verdict.NOT_MIGRATED:
            return "not migrated"
        case Verdict.NOTHING_TO_VERIFY:
            return "no v1 store, nothing to verify"
        case Verdict.SKIPPED:
            return _skipped(verification.reason)


def _skipped(reason: str) -> str:
    return f"skipped: {printable(reason)}"


# --- Benches


def comparison_lines(comparison: Comparison) -> Iterator[str]:
    from buildkit_migrate.bench.results import table

    stats = comparison.stats
    yield (
        f"A synthetic cache of {stats.records:,} records, mean depth {stats.mean_depth:.1f}, "
        f"{stats.size / 1e6:,.0f} MB. {comparison.machine}."
    )
    yield ""
    yield from table(comparison.results.values())
    yield ""
    yield (
        f"For a record, the dry run is {comparison.oracle_over_dry_run:.0f} times as fast as the same in "
        "plain Python."
    )
    yield (
        f"Floors: copying the same bytes with one fsync; for planning and the dry run, hashing "
        f"{stats.hash_blocks:,} blocks at {comparison.block * 1e9:.1f} ns on each CPU."
    )
