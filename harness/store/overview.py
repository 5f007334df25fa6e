"""All runs of a store at a glance, and a run's end.

Owns: a line per run, read without what computes; deleting a run's folder. Must not know: how runs
are driven, terminals.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from filelock import FileLock

from harness.errors import UserError, saving
from harness.store.liveness import living_owner
from harness.store.records import state_of
from harness.store.run_folder import RunFolder
from harness.store.runs import (
    RunFiles,
    command_line,
    read_comparison,
    read_run,
    read_search_comparison,
    run_folders,
)
from harness.store.search_log import tells
from harness.store.store import Store
from harness.store.summaries import Summary, summaries

State = Literal["running", "done", "incomplete", "idle", "damaged"]
"""`idle`: a search that nothing drives, of which nobody knows whether its budget is spent."""
COMMANDS = {"sweep": "sweep", "counts": "sweep", "searches": "compare", "comparison": "compare"}
"""Kind of a run -> the command, where that was not written down."""


class RunLine(NamedTuple):
    """One run."""

    name: str
    command: str
    """The first word of what was typed."""
    state: State
    done: int | None
    """Trials that have ended, of a grid those with a result; None where none are its own."""
    planned: int | None
    """None where that is not known beforehand."""
    size: int
    """Bytes in its own folder; trials are shared."""
    age_s: float
    """Since one of its own files was written."""


def overview(store: Store) -> list[RunLine]:
    """A line for every run of a store, the latest first.

    A run whose files cannot be read is `damaged`; `harness status` says why.
    """
    folders = run_folders(store.root)
    files = {folder.name: _files(folder) for folder in folders}
    ids = {trial_id for each in files.values() for trial_id in each.trials}
    ended = summaries(store, ids, lambda trial_id, why: None)
    lines = [_line(folder, files[folder.name], ended) for folder in folders]
    return sorted(lines, key=lambda line: line.age_s)


class _Files(NamedTuple):
    """What the files of a run say, as far as they can be read."""

    state: State | None
    """None: that follows from its trials."""
    trials: frozenset[str]
    is_grid: bool = False
    waits: bool = False
    """A search has asked for nothing yet, or for a trial that it has not been told of."""


def _files(folder: RunFolder) -> _Files:
    try:
        if not folder.exists:  # a comparison is written down at its end
            return _Files("incomplete", frozenset())
        if folder.kind == "comparison":
            arms = read_comparison(folder).arms
            return _Files("done", frozenset(i for arm in arms for i in (*arm.trials, *arm.charged)))
        state: State | None = None
        if folder.kind == "counts":
            state = "done"
        elif folder.kind == "searches":  # whose command is written down at its end, too
            state = "done" if folder.command.is_file() else "incomplete"
        if folder.kind == "counts" or folder.table.is_file():
            return _Files(state, frozenset())
        return _of_run(state, read_run(folder))
    except UserError:
        return _Files("damaged", frozenset())


def _of_run(state: State | None, files: RunFiles) -> _Files:
    told = {event.trial_id for log in files.searches.values() for event in tells(log)}
    trials = frozenset(each.trial_id for each in files.asked)
    is_grid = state is None and bool(trials) and not files.searches
    return _Files(state, trials, is_grid=is_grid, waits=not trials or not trials <= told)


def _line(folder: RunFolder, files: _Files, ended: dict[str, Summary]) -> RunLine:
    own = [ended[trial_id] for trial_id in files.trials if trial_id in ended]
    with_result = sum(state_of(each.status) == "done" for each in own)
    state = files.state
    if living_owner(folder.driver_mark) is not None:
        state = "running"
    elif state is None:
        lacks = with_result < len(files.trials) if files.is_grid else files.waits
        state = "incomplete" if lacks else "done" if files.is_grid else "idle"
    latest = max((each.st_mtime for each in _stats(folder.path.iterdir())), default=0.0)
    return RunLine(
        name=folder.name,
        command=_command(folder),
        state=state,
        done=(with_result if files.is_grid else len(own)) if files.trials else None,
        planned=len(files.trials) if files.is_grid or files.state == "done" else None,
        size=size_of(folder),
        age_s=max(0.0, time.time() - latest),
    )


def size_of(folder: RunFolder) -> int:
    """Bytes of the files in a run's folder."""
    return sum(each.st_size for each in _stats(folder.path.rglob("*")))


def _stats(paths: Iterable[Path]) -> Iterator[os.stat_result]:
    """Of those that are files, and still there: a run that is being driven writes anew."""
    for path in paths:
        with suppress(FileNotFoundError):
            found = path.stat()
            if stat.S_ISREG(found.st_mode):
                yield found


def _command(folder: RunFolder) -> str:
    try:
        line = command_line(folder)
    except UserError:
        line = None
    words = ([] if line is None else line.split())[1:]
    return words[0] if words else COMMANDS[folder.kind]


def delete_run(folder: RunFolder) -> None:
    """Delete a run's folder, with its report and its searches' logs; trials stay in the store.

    It moves out of the way first, all of it at once, so that nobody sees half of a run.

    Raises:
        UserError: a process drives the run, or another run's report shows it; names which.
        NotSavedError: it cannot be moved or deleted.
    """
    showing = [each.name for each in run_folders(folder.store.root) if _shows(each, folder.name)]
    if showing:
        raise UserError(
            f"{folder.name} is shown in the report of {', '.join(showing)}: delete that first."
        )
    mark = folder.driver_mark
    aside = folder.store.root / "attic" / f"{folder.name}-{time.time_ns()}"
    with saving(folder.path), FileLock(mark.with_suffix(".lock")):
        owner = living_owner(mark)
        if owner is not None:
            raise UserError(f"{folder.name} is being driven by {owner}: end that first.")
        aside.parent.mkdir(exist_ok=True)
        folder.path.rename(aside)
    with saving(aside):
        shutil.rmtree(aside)


def _shows(run: RunFolder, name: str) -> bool:
    try:
        compared = read_search_comparison(run)
    except UserError:
        return False
    return compared is not None and name in (compared.controls, *compared.beside)
