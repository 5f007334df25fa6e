"""Searches compared on a table of every trial: nothing is trained.

Owns: which searches can be replayed, and the run's folder. Must not know: torch, how a search
works, what the report says.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from harness.comparison.baseline import LABEL, STANDING, recorded_baseline
from harness.comparison.contest import (
    budget_of,
    contest_fields,
    makers_of,
    own_folder,
    refuse_for_several,
    refuse_unable,
)
from harness.comparison.enough import first_repeats, more_repeats, repeats_fields
from harness.comparison.replaying import Replaying
from harness.comparison.request import SearchesRequest
from harness.console import SILENT, Console
from harness.errors import UserError, saving
from harness.search.catalogue import POPULATION
from harness.search.optuna_search import PRUNERS
from harness.search.ranking import NAMES as RANKINGS
from harness.store.comparisons import Reference, SearchComparison
from harness.store.liveness import driving
from harness.store.run_folder import RunFolder, variant
from harness.store.runs import (
    Command,
    choosing_by,
    refuse_other_objective,
    write_command,
    write_run,
    write_search_comparison,
)
from harness.store.store import Store
from harness.store.table import Table, read_table
from harness.study.space import Values
from harness.study.study import Study

REPEATS_REPLAYED = 20
CONFIRM_REPLAYED = 3


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What a replay shares with those of other spaces."""

    reference: Reference
    """The full run that all of them count their cost in."""
    given: frozenset[str] = frozenset()
    """Searches whose cells are given, not sought, in any of the tables."""
    within: str | None = None
    """Name of the comparison that shows this one; None for that one itself."""
    shown: tuple[str, ...] = ()
    """Names of the comparisons that are shown with this one."""


def replay_searches(
    asked: SearchesRequest,
    path: Path,
    study_name: str | None,
    store: Store,
    console: Console = SILENT,
    *,
    processes: int | None = None,
    beside: Beside | None = None,
) -> RunFolder:
    """Every search against a table, as often as was asked for; the folder of the run.

    `study_name` is that of the study that the table must be of, if one was given. Repeats run in
    `processes`, or one per core; what comes of them does not depend on it.

    Raises:
        UserError: the table or a search is not usable, or the folder holds another comparison.
    """
    table = read_table(path)
    study = table.info.study
    if study_name is not None and study.name != study_name:
        raise UserError(f"{path} is a table of study {study.name}, not of {study_name}.")
    beside = beside or Beside(reference=table.info.reference)
    folder = RunFolder.of(store, name_of(study, asked.objective, beside.within))
    study, _ = choosing_by(study, asked.objective)
    for goal in study.objectives:
        table.refuse_unscored(goal, path)
    refuse_other_objective(folder, study)
    if asked.seeds is not None and asked.seeds > len(study.seeds):
        raise UserError(f"--seeds {asked.seeds}: {path} has {len(study.seeds)} of every cell.")
    study = study.derive(seeds=study.seeds[: asked.seeds])
    learned, given = learned_cells(table), given_cells(table)
    refuse_for_several(asked, study, is_one_of_many=bool(beside.within or beside.shown))
    names, notes = _names(asked, study, learned, given, beside)
    # What is unknown or cannot work here is refused before anything is written.
    makers_of(names, given, study.objectives)
    refuse_unable(names, study, table.space())
    budget = budget_of(asked.budget, study)
    confirm = CONFIRM_REPLAYED if asked.confirm is None else asked.confirm
    confirm = 0 if study.further else confirm
    if confirm and len(study.seeds) < 2:
        notes.append("No confirmation: the table has no other seeds than the one searched on.")
        confirm = 0
    repeats = asked.repeats.fields(REPEATS_REPLAYED, names)
    if asked.half_width is not None:
        chancy = [name for name in names if name not in given]
        if not chancy:
            raise UserError("--half-width: none of these searches has chance of its own.")
        repeats = repeats_fields(first_repeats(chancy, len(study.seeds)))
    comparison = SearchComparison(
        **contest_fields(asked, study, names, [*learned], budget),
        **repeats,
        table=hashlib.sha256(path.read_bytes()).hexdigest(),
        reference=beside.reference,
        confirm=confirm,
        confirm_seeds=study.seeds if confirm else (),
        half_width=asked.half_width,
        beside=beside.shown,
        notes=tuple(notes),
    )
    folder = own_folder(folder, asked, names, budget, is_replay=True)
    with driving(folder.driver_mark):
        write_search_comparison(folder, comparison)
        write_run(folder, study, [], table.info.environment)
        with saving(folder.table), suppress(shutil.SameFileError):  # the run's own table, again
            shutil.copyfile(path, folder.table)
        replaying = Replaying(
            folder=folder,
            comparison=comparison,
            study=study,
            budget=budget,
            given=given,
            path=path,
        )
        _replay(replaying, table, processes, console)
    write_command(folder, Command(asked.line, asked.plan))
    return folder


def name_of(study: Study, objective: str | None, within: str | None = None) -> str:
    """Name of the run that compares searches on a study, or of one shown within another run, where
    no replay of other searches or another budget has it (`own_folder`).

    `objective` is what was asked for, `within` the name of the other run's study.
    """
    named = f"{study.name}{variant(choosing_by(study, objective)[1])}+searches"
    return named + ("" if within is None else f"+in={within}")


def learned_cells(table: Table) -> dict[str, Values]:
    """Method -> its cell, of those that are no point of the table's space."""
    space = table.space()
    cells: dict[str, Values] = {}
    for text in table.trials["cell"].unique():
        cell = json.loads(text)
        if isinstance(cell.get("method"), str) and space.params(cell) is None:
            cells.setdefault(cell["method"], cell)
    return cells


def given_cells(table: Table) -> dict[str, list[Values]]:
    """The searches of a table whose cells are given, not sought: methods that learn strengths, and
    the baseline of every comparison."""
    return {name: [cell] for name, cell in learned_cells(table).items()} | recorded_baseline(table)


def _names(
    asked: SearchesRequest,
    study: Study,
    learned: dict[str, Values],
    given: dict[str, list[Values]],
    beside: Beside,
) -> tuple[list[str], list[str]]:
    """The searches that take part, and what was left out and why.

    Those whose cells are given take part where their trials are, the baseline without being asked.

    Raises:
        UserError: there is none of them.
    """
    named = asked.names(list(learned), several=bool(study.further))
    names = [n for n in named if n in given or n not in beside.given]
    notes = []
    if POPULATION in names:
        names.remove(POPULATION)
        notes.append(f"{POPULATION} changes values in mid-training, which no table has: left out.")
    if asked.searches == "all" and study.base.recipe.score_epochs == "last":
        for name in [name for name in names if _watches(name)]:
            names.remove(name)
            notes.append(f"{name} watches every epoch, and only the last was scored: left out.")
    for name in [name for name in names if name in RANKINGS]:
        names.remove(name)
        notes.append(f"{name} trains sites that it chooses itself, which no table has: left out.")
    if not learned and beside.given <= {*STANDING}:
        notes.append(
            "The table has no method that learns strengths: tabulate a run of one with it, such as "
            f"{study.name}+metapeft."
        )
    standing = [name for name in STANDING if name in given]
    if not {*STANDING} & {*given, *beside.given}:
        notes.append(f"The table lacks the baseline of every comparison ({LABEL}): left out.")
    if not names:
        raise UserError(f"--search {asked.searches}: a table has none of these searches.")
    return names + [name for name in standing if name not in names], notes


def _watches(name: str) -> bool:
    """Whether a search is a sampler with a pruner. (Where it is named, or an installed one watches
    epochs which were not scored, it is refused when it proposes its first trial.)"""
    return name.partition("+")[2] in PRUNERS


def _replay(replaying: Replaying, table: Table, processes: int | None, console: Console) -> None:
    """Replay all repeats; where a half-width is wanted, in batches until it is reached."""
    while True:
        comparison = replaying.comparison
        for each in replaying.run(table, processes):
            times = f"{comparison.repeats_of(each.name)} times"
            kept = f", {each.kept} of them kept" if each.kept else ""
            console.say(
                f"{each.name}: {each.trials} trials in {each.seconds:.1f} s, {times}{kept}."
            )
        if comparison.half_width is None:
            return
        counts = more_repeats(replaying.folder, comparison, table, replaying.budget)
        if counts is None:
            return
        comparison = comparison.model_copy(update=repeats_fields(counts))
        write_search_comparison(replaying.folder, comparison)
        replaying = replace(replaying, comparison=comparison)
