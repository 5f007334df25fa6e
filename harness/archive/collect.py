"""From a run in a store to an archive.

Owns: which trials and files of a run travel. Must not know: the file's format, other stores.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from harness.archive.content import Archive, ArchivedTrial, Trajectory, run_texts
from harness.archive.parquet import KEY, write_archive
from harness.errors import UserError
from harness.store.comparisons import Comparison
from harness.store.files import has_key, refuse_other
from harness.store.run_folder import RunFolder
from harness.store.runs import (
    read_comparison,
    read_run,
    read_search_comparison,
    refuse_replayed,
)
from harness.store.store import Store


class Archived(NamedTuple):
    """What was put into a file."""

    statuses: dict[str, int]
    """Status -> trials."""
    unfinished: int
    """Trials of the run that have not ended, and are not in the file."""
    size: int
    """Bytes of the file."""
    beside: str | None
    """Another run that this one's report shows, and that has to be archived by itself."""


def archive_run(folder: RunFolder, path: Path) -> Archived:
    """Write a run, finished or not, into one file: its own files, and each trial that has ended.

    Raises:
        UserError: the run has no trials to be taken anywhere, a file of it is damaged, or another
            kind of file is there.
        NotSavedError: the file cannot be written.
    """
    refuse_other(path, "--file", "an archive", lambda there: has_key(there, KEY))
    archive, asked = collect(folder)
    beside = None if folder.kind != "searches" else read_search_comparison(folder)
    return Archived(
        statuses=dict(Counter(trial.record["status"] for trial in archive.trials)),
        unfinished=asked - len(archive.trials),
        size=write_archive(archive, path),
        beside=None if beside is None else beside.controls,
    )


def collect(folder: RunFolder) -> tuple[Archive, int]:
    """A run as it is now, and how many trials it has asked for.

    Raises:
        UserError: as `archive_run`.
    """
    refuse_replayed(folder)
    if not folder.exists:
        raise UserError(f"{folder} is not a run: it has no study.json.")
    # Before the trials, so that whoever drives the run meanwhile cannot put into a log what has no
    # record here.
    files = run_texts(folder)
    asked = _asked(folder)
    found = [(key, cell, archived_trial(folder.store, key, cell)) for key, cell in asked.items()]
    trials = tuple(trial for _, _, trial in found if trial is not None)
    return Archive(run=folder.name, files=files, trials=trials), len(asked)


def _asked(folder: RunFolder) -> dict[str, str | None]:
    """Ids of a run's trials, each with its configuration as JSON where it has one."""
    if folder.kind == "comparison":
        return dict.fromkeys(_in_arms(read_comparison(folder)))
    if folder.kind == "counts":
        return {}
    return {each.trial_id: json.dumps(each.cell, sort_keys=True) for each in read_run(folder).asked}


def _in_arms(comparison: Comparison) -> list[str]:
    ids = [key for arm in comparison.arms for key in (*arm.trials, *arm.charged)]
    swept = () if comparison.swept is None else comparison.swept.cells
    return [*ids, *(key for cell in swept for key in cell.trials)]


def archived_trial(store: Store, trial_id: str, cell: str | None) -> ArchivedTrial | None:
    """A trial as it lies in a store; None unless it has ended.

    Raises:
        UserError: its record or its history is damaged.
    """
    if store.record(trial_id) is None:
        return None
    folder = store.trials / trial_id
    try:
        record = json.loads((folder / "record.json").read_bytes())
    except FileNotFoundError:
        return None  # it failed, and is being tried again
    learned = folder / "trajectory.csv"
    path = Trajectory.parse(learned.read_text()) if learned.is_file() else None
    return ArchivedTrial(
        trial_id=trial_id,
        cell=cell,
        record=record,
        history=store.history(trial_id),
        trajectory=None if path is None else path.shortened(),
    )
