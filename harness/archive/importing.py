"""From archives into a store.

Owns: what of a file is taken in, what becomes of trials and runs that are there already, and what
is kept apart. Must not know: the file's format, how a run is driven.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.archive.agree import Agreement, compare
from harness.archive.content import Archive, ArchivedTrial, run_texts
from harness.archive.merge import NotOneRun, merged
from harness.archive.parquet import read_archive
from harness.errors import UserError
from harness.spec import SEMANTICS
from harness.store.checked import checked_record, semantics_of
from harness.store.files import make_folder, write_atomically
from harness.store.liveness import driving
from harness.store.records import TrialRecord
from harness.store.run_folder import RunFolder
from harness.store.runs import (
    read_command,
    read_comparison,
    read_counts,
    read_run,
    read_search_comparison,
)
from harness.store.store import Lookup, Store

REMEDY = "copy the archive again, or make it again"
CONFLICTS = "conflicts"
"""Folder of a store for trials that came with other numbers than the store has."""
RANK = {"FAILED": 0, "PRUNED": 1, "DIVERGED": 2, "COMPLETE": 2}
"""What is known by a status; a trial of which more is known replaces the other."""


@dataclass(frozen=True, kw_only=True)
class CheckedArchive:
    """An archive that may be imported."""

    path: Path
    archive: Archive
    records: tuple[TrialRecord, ...]
    """Of its trials, in their order."""

    @property
    def semantics(self) -> set[int]:
        """`SEMANTICS` of the versions that trained its trials."""
        return {found for each in self.records if (found := semantics_of(each)) is not None}


@dataclass(kw_only=True)
class Imported:
    """What became of one archive."""

    path: Path
    archive: Archive
    """What the file holds."""
    run: RunFolder
    """Where the run lies now."""
    new: int = 0
    known: int = 0
    """Trials that the store had, with the same numbers within the tolerance."""
    differing: int = 0
    """Those of them whose scores are not equal to the last bit."""
    running: int = 0
    """Trials that are being trained here, and were left alone."""
    older: set[int] = field(default_factory=set)
    """Other `SEMANTICS` than this version's, of which nothing is reused."""
    conflicts: list[str] = field(default_factory=list)
    """A sentence for each trial, and for the run, that was kept apart."""


def import_archives(paths: Sequence[Path], store: Store) -> list[Imported]:
    """Take archives into a store; all of them are read before anything is written.

    A trial that the store lacks, or that failed or was stopped here, is taken in; of one that is
    done here, the store's stays. Where the numbers differ by more than `agree` allows, the other
    is kept in `conflicts/`, and a run that cannot be joined with the store's in a folder of its
    own. Importing again changes nothing.

    Raises:
        UserError: a file is none of `harness archive`, is damaged or newer; a record here is; or
            the run is being driven here.
        NotSavedError: the store cannot be written.
    """
    checked = [checked_archive(path) for path in paths]
    for trial_id in {trial.trial_id for each in checked for trial in each.archive.trials}:
        store.record(trial_id)  # raises where it is damaged, before anything is taken in
    return [_import(each, store) for each in checked]


def checked_archive(path: Path) -> CheckedArchive:
    """Read an archive, and hold its records and its run's files to their types.

    Raises:
        UserError: as `import_archives`.
    """
    archive = read_archive(path)
    records = tuple(
        checked_record(f"{path}, trial {trial.trial_id}", trial.trial_id, trial.text, REMEDY)
        for trial in archive.trials
    )
    _check_files(path, archive)
    return CheckedArchive(path=path, archive=archive, records=records)


def _check_files(path: Path, archive: Archive) -> None:
    """Whether a run's files are what reports and commands can read.

    Raises:
        UserError: one is not.
    """
    with TemporaryDirectory() as place:
        folder = RunFolder.of(Store(Path(place)), "run")
        folder.path.mkdir(parents=True)
        for name, text in archive.files.items():
            (folder.path / name).write_text(text, encoding="utf-8")
        try:
            read_command(folder)
            if folder.kind == "comparison":
                read_comparison(folder)
                return
            read_run(folder)
            read_search_comparison(folder)
            if folder.kind == "counts":
                read_counts(folder)
        except (ValueError, TypeError, KeyError, AttributeError, OSError, RecursionError) as error:
            raise UserError(
                f"{path}: the files of its run {archive.run} are damaged, or of a newer version; "
                "copy the archive again, or update the harness."
            ) from error


def _import(checked: CheckedArchive, store: Store) -> Imported:
    archive = checked.archive
    folder = RunFolder.of(store, archive.run)
    done = Imported(
        path=checked.path,
        archive=archive,
        run=folder,
        older=checked.semantics - {SEMANTICS},
    )
    with driving(folder.driver_mark):
        for trial, record in zip(archive.trials, checked.records, strict=True):
            _take(trial, record, store, done)
        here = run_texts(folder)
        try:
            files = merged(here, archive.files)
        except NotOneRun as error:
            done.run = _kept_apart(archive, store)
            done.conflicts.append(
                f"{checked.path}: run {archive.run} is not the one that is here, for {error}; "
                f"it was put beside it, as {done.run.name}."
            )
            return done
        _write(folder.path, files, here)
    return done


def _take(trial: ArchivedTrial, record: TrialRecord, store: Store, done: Imported) -> None:
    """Take in one trial, or say why not."""

    def replaces(known: Lookup) -> bool:
        return known.record is None or RANK[record.status] > RANK[known.record.status]

    known = store.adopt(trial.trial_id, trial.files(), replaces)
    if known.state == "running":
        done.running += 1
    elif replaces(known) or known.record is None:
        done.new += 1
    elif RANK[known.record.status] > RANK[record.status] or RANK[record.status] < RANK["COMPLETE"]:
        done.known += 1  # the store knows more, or neither a result
    else:
        rows = store.history(trial.trial_id)
        agreement = compare(known.record, record, rows, trial.history)
        done.known += agreement.can_be_merged
        done.differing += agreement.can_be_merged and not agreement.same_bits
        if not agreement.can_be_merged:
            place = _conflict(trial, store)
            done.conflicts.append(_sentence(done.path, known.record, record, agreement, place))


def _conflict(trial: ArchivedTrial, store: Store) -> Path:
    place = store.root / CONFLICTS / f"{trial.trial_id}-{_digest(trial.text)}"
    make_folder(place)
    _write(place, trial.files(), {})
    return place


def _sentence(
    path: Path, here: TrialRecord, new: TrialRecord, agreement: Agreement, place: Path
) -> str:
    if agreement.same_status:
        machines = "of the same type and versions" if agreement.alike else "not alike"
        words = (
            f"{agreement.where} differs by {agreement.difference:.3g}, more than the tolerance "
            f"between machines that are {machines}"
        )
    else:
        words = f"it is {here.status} here and {new.status} there"
    return f"{path}: trial {new.trial_id} is in conflict: {words}; the other was put into {place}."


def _kept_apart(archive: Archive, store: Store) -> RunFolder:
    """Put a run beside one of its name: the same archive always to the same place."""
    digest = _digest(json.dumps(archive.files, sort_keys=True))
    name = archive.run.encode()[:200].decode(errors="ignore")
    folder = RunFolder.of(store, f"{name}+import-{digest}")
    make_folder(folder.path)
    _write(folder.path, archive.files, {})
    return folder


def _write(folder: Path, files: dict[str, str], here: dict[str, str]) -> None:
    for name, text in files.items():
        if text != here.get(name):
            write_atomically(folder / name, text)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
