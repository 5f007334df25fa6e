"""What a run's folder says: what was asked for, by which command, in which environment.

Every run has `environment.json` and `command.json`. A sweep has `study.json`, with a log for every
search and `counts.json` where nothing is trained; a comparison of arms has `comparison.json`; one
of searches has `study.json`, `searches.json`, a log for every repeat of every search and, if it was
replayed from a table, that table. Owns: finding runs, and reading and writing these files. Must not
know: torch, how trials are computed or shown.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import JsonValue

from harness.errors import UserError, begun, unknown
from harness.metrics import goals_of
from harness.spec import Frozen, TrialSpec, read_as
from harness.spec import trial as identities
from harness.store.comparisons import Comparison, SearchComparison
from harness.store.files import refuse_absent, write_atomically
from harness.store.liveness import still_driving
from harness.store.records import Counted
from harness.store.run_folder import STUDIES, RunFolder
from harness.store.search_log import SHARE, Event, asks, read_log, tells
from harness.store.store import Store
from harness.study.study import Study

LOOKED_FOR = 50
"""Trials of an earlier `SEMANTICS` that a store is searched for, at most."""

REMEDY = "move it out of the run's folder, and give the run's command again"
"""For one of the files here that cannot be used."""

Cell = tuple[dict[str, JsonValue], TrialSpec]
"""A configuration's values, field by field, and one trial of it."""


class Asked(NamedTuple):
    """A trial of a run: its configuration's values, its seed and its id."""

    cell: dict[str, JsonValue]
    seed: int
    trial_id: str


class _StudyFile(Frozen):
    """What `study.json` holds."""

    study: Study
    cells: list[Asked]


class RunFiles(NamedTuple):
    """What the folder of a sweep, or of a comparison of searches, says."""

    study: Study
    asked: list[Asked]
    """The grid's trials, then those that searches asked for; with searches, each trial once."""
    environment: dict[str, str]
    searches: dict[int, list[Event]]
    """Place of the log in `RunFolder.logs` -> its events; empty for a grid."""
    own: frozenset[str]
    """Trials that are run whatever a search does: a grid's, or the reference of a comparison."""

    @property
    def parts(self) -> set[str]:
        """Trials on a part of the training data, as rungs of a search: no answers of the study."""
        own = {getattr(part, "field", "") for part in self.study.space or self.study.axes}
        return set() if SHARE in own else {a.trial_id for a in self.asked if SHARE in a.cell}

    @property
    def no_answers(self) -> set[str]:
        """`parts`, and trials whose end no search of the run saw, whatever the store has; but not
        those of the run's `own`."""
        told = [tell for log in self.searches.values() for tell in tells(log)]
        ended = self.own | {tell.trial_id for tell in told if tell.status != "PRUNED"}
        return self.parts | ({tell.trial_id for tell in told} - ended)


class Command(NamedTuple):
    """How a run was asked for."""

    line: str
    """What was typed, without what cannot change a number (store, device, workers, engine)."""
    plan: str
    """What that meant: the search and its budget, in one sentence."""


def find_run(name: str, root: Path) -> RunFolder | None:
    """The folder of a run, by its path, or by its name in the store `root` or the beginning of it
    that no other has; None without one.

    Raises:
        UserError: several begin so; names them.
    """
    if not name:  # as an unset variable of a shell, and every run begins so
        return None
    for folder in (RunFolder(Path(name)), RunFolder.of(Store(root), name)):
        if folder.exists:
            return folder
    whole = begun("run", name, (folder.name for folder in run_folders(root) if folder.exists))
    return None if whole is None else RunFolder.of(Store(root), whole)


def run_folders(root: Path) -> list[RunFolder]:
    """The folders of all runs in the store `root`, also of those that have only just begun."""
    return [RunFolder(path) for path in sorted((root / STUDIES).glob("*")) if path.is_dir()]


def known_run(name: str, root: Path) -> RunFolder:
    """As `find_run`.

    Raises:
        UserError: there is no such run, or several begin so; names the nearest, or these.
    """
    folder = find_run(name, root)
    if folder is None:
        refuse_absent(root)
        raise unknown("run", name, [folder.name for folder in run_folders(root)])
    return folder


def choosing_by(study: Study, objective: str | None) -> tuple[Study, dict[str, Any]]:
    """The study with what choices are to be made by, as `goals_of` reads it; what of that its run's
    name has to say.

    Trials are the same by whatever they are chosen, but a search's log is not, and neither is a
    report: so another objective than the study's own makes a run of its own.
    """
    if objective is None:
        return study, {}
    first, further = goals_of(objective)
    if (first, further) == (study.objective, study.further):
        return study, {}
    named = ",".join([first, *further])
    return study.derive(objective=first, further=further), {"objective": named}


def _write(folder: RunFolder, path: Path, text: str) -> None:
    """Write one of a run's files.

    Raises:
        NotSavedError: it cannot be written.
        TakenOver: another process drives the run by now.
    """
    write_atomically(path, text, may_write=lambda: still_driving(folder.path))


def write_command(folder: RunFolder, command: Command) -> None:
    """Write down how a run was asked for.

    Raises:
        NotSavedError: it cannot be written.
    """
    _write(folder, folder.command, json.dumps(command._asdict(), indent=1))


def read_command(folder: RunFolder) -> Command | None:
    """How a run was asked for; None if an older version ran it, or if it has not ended yet.

    Raises:
        UserError: the file is damaged, as of all files here.
    """
    return read_as(Command, folder.command, REMEDY) if folder.command.is_file() else None


def command_line(folder: RunFolder) -> str | None:
    """What was typed for a run, if that is known; see `Command.line`.

    Raises:
        UserError: the file is damaged.
    """
    command = read_command(folder)
    return None if command is None else command.line


def read_environment(folder: RunFolder) -> dict[str, str]:
    """Where a run ran; empty if it was killed before that was written.

    Raises:
        UserError: the file is damaged.
    """
    if not folder.environment.is_file():
        return {}
    return read_as(dict[str, str], folder.environment, REMEDY)


def older(folder: RunFolder) -> str | None:
    """The `SEMANTICS` under which a run was started, if it is not today's; None without a run."""
    if not folder.exists:
        return None
    semantics = read_environment(folder).get("semantics", str(identities.SEMANTICS))
    return None if semantics == str(identities.SEMANTICS) else semantics


def why_not_reused(semantics: str) -> str:
    """Why trials of another `SEMANTICS` answer nothing that is asked today."""
    return (
        f"the same settings gave other numbers under SEMANTICS {semantics} than they do now, under "
        f"{identities.SEMANTICS}"
    )


def not_gone_on_with(name: str, semantics: str) -> str:
    """Why the command of a run that was made under another `SEMANTICS` is refused."""
    return (
        f"{name} is of another version of the harness, and nothing of it is reused, because "
        f"{why_not_reused(semantics)}: see it with `harness report {name}`, and give another --out "
        "for a new one."
    )


def note_of_older(store: Store, specs: Sequence[TrialSpec]) -> str | None:
    """One sentence if the store has such trials of an earlier `SEMANTICS`, beside today's.

    Only some of many trials are looked for.
    """
    for spec in specs[:: 1 + len(specs) // LOOKED_FOR]:
        for semantics in range(1, identities.SEMANTICS):
            if (store.trials / spec.id_under(semantics) / "record.json").is_file():
                why = why_not_reused(str(semantics))
                return f"{store.trials} has such trials of an earlier version, not reused: {why}."
    return None


def refuse_older(folder: RunFolder) -> None:
    """Raises `UserError` for a run that was made under another `SEMANTICS`."""
    semantics = older(folder)
    if semantics is not None:
        raise UserError(not_gone_on_with(folder.name, semantics))


def refuse_other_objective(folder: RunFolder, study: Study) -> None:
    """Raises `UserError` if a run has searches that were told what other objectives say."""
    if folder.study.is_file() and folder.logs():
        before, now = (",".join(each.objectives) for each in (read_run(folder).study, study))
        if before != now:
            raise UserError(
                f"{folder.name} has searches that chose by {before}, and not by {now}; undo "
                "that, or give another --out."
            )


def write_run(
    folder: RunFolder, study: Study, cells: Sequence[Cell], environment: dict[str, str]
) -> None:
    """Write down the study as it is run, its grid's trials and the environment.

    The folder must exist; `cells` are empty for a search, whose logs have its trials.

    Raises:
        NotSavedError: they cannot be written.
    """
    listed = [{"cell": cell, "seed": spec.seed, "trial_id": spec.trial_id} for cell, spec in cells]
    content = {"study": study.model_dump(mode="json"), "cells": listed}
    _write(folder, folder.study, json.dumps(content, indent=1))
    _write(folder, folder.environment, json.dumps(environment, indent=1))


def write_comparison(
    folder: RunFolder, comparison: Comparison, environment: dict[str, str]
) -> None:
    """Write down a comparison of arms and the environment.

    Raises:
        NotSavedError: they cannot be written.
    """
    _write(folder, folder.comparison, comparison.model_dump_json(indent=1))
    _write(folder, folder.environment, json.dumps(environment, indent=1))


def read_comparison(folder: RunFolder) -> Comparison:
    """The comparison of arms in a run's folder.

    Raises:
        UserError: it holds none, or a damaged one.
    """
    if not folder.comparison.is_file():
        raise UserError(
            f"{folder.name} compares no arms; name a run of `harness train --controls`."
        )
    return read_as(Comparison, folder.comparison, REMEDY)


def members(name: str, root: Path) -> tuple[str, ...]:
    """The ids that a name stands for: if it is a comparison, its first arm's, else itself."""
    folder = find_run(name, root)
    if folder is None or not folder.comparison.is_file():
        return (name,)
    return read_comparison(folder).arms[0].trials


def write_counts(folder: RunFolder, counts: dict[str, Counted]) -> None:
    """Write down the counts of a study that trains nothing, by trial id.

    Raises:
        NotSavedError: they cannot be written.
    """
    content = {trial_id: counted._asdict() for trial_id, counted in counts.items()}
    _write(folder, folder.counts, json.dumps(content, indent=1))


def read_counts(folder: RunFolder) -> dict[str, Counted]:
    """Trial id -> counts, of a study that trains nothing.

    Raises:
        UserError: the file is damaged.
    """
    return read_as(dict[str, Counted], folder.counts, REMEDY)


def _read_study(folder: RunFolder) -> _StudyFile:
    if not folder.study.is_file():
        raise UserError(f"{folder} is not a run: it has no study.json; start one with a sweep.")
    return read_as(_StudyFile, folder.study, REMEDY)


def read_study(folder: RunFolder) -> Study:
    """The study of a run, without its trials' logs; as `read_run`."""
    return _read_study(folder).study


def read_run(folder: RunFolder) -> RunFiles:
    """Read the folder of a sweep or of a comparison of searches, also while it is being driven.

    Raises:
        UserError: the folder is of neither, or one of its files is damaged.
    """
    content = _read_study(folder)
    asked = list(content.cells)
    searches = {number: read_log(log) for number, log in enumerate(folder.logs())}
    for events in searches.values():
        asked += [Asked(ask.cell, ask.seed, ask.trial_id) for ask in asks(events)]
    return RunFiles(
        study=content.study,
        asked=list({each.trial_id: each for each in asked}.values()) if searches else asked,
        environment=read_environment(folder),
        searches=searches,
        own=frozenset(each.trial_id for each in content.cells),
    )


def write_search_comparison(folder: RunFolder, comparison: SearchComparison) -> None:
    """Write down a comparison of searches.

    Raises:
        UserError: as `refuse_other_comparison`.
        NotSavedError: it cannot be written.
    """
    refuse_other_comparison(folder, comparison.seeds, comparison.workers, comparison.table)
    _write(folder, folder.searches, comparison.model_dump_json(indent=1))


def refuse_other_comparison(
    folder: RunFolder, seeds: tuple[int, ...], workers: int, table: str | None
) -> None:
    """Whether a comparison of searches there has these seeds, workers and table, or there is none.

    Raises:
        UserError: it has others.
    """
    before = read_search_comparison(folder)
    if before is None:
        return
    for field, was, now in (
        ("seeds", before.seeds, seeds),
        ("workers", before.workers, workers),
        ("table", before.table, table),
    ):
        if was != now:
            raise UserError(
                f"{folder} holds a comparison with other {field} ({was}, now {now}); move it "
                "away or give another --out."
            )


def refuse_replayed(folder: RunFolder) -> None:
    """Raises `UserError` if the run's trials are rows of a table, so that the store has none."""
    if folder.table.is_file():
        raise UserError(
            f"{folder.name} was replayed from a table: its report holds all there is, and the run "
            "that was tabulated has the trials."
        )


def read_search_comparison(folder: RunFolder) -> SearchComparison | None:
    """The comparison of searches in a run's folder; None if it holds none.

    Raises:
        UserError: the file is damaged.
    """
    if not folder.searches.is_file():
        return None
    return read_as(SearchComparison, folder.searches, REMEDY)
