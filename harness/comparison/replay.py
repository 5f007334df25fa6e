"""Searches compared on a table of every trial: nothing is trained.

Owns: which searches can be replayed, and the run's folder. Must not know: torch, how a search
works, what the report says.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from harness.comparison.baseline import LABEL, recorded_baseline
from harness.comparison.contest import budget_of, contest_fields, makers_of
from harness.comparison.replaying import Replaying
from harness.comparison.request import SearchesRequest
from harness.console import SILENT, Console
from harness.errors import UserError, saving
from harness.search.catalogue import POPULATION
from harness.store.comparisons import SearchComparison
from harness.store.liveness import driving
from harness.store.run_folder import RunFolder
from harness.store.runs import (
    Command,
    choosing_by,
    refuse_other_objective,
    variant,
    write_command,
    write_run,
    write_search_comparison,
)
from harness.store.store import Store
from harness.store.table import Table, read_table
from harness.study.space import SearchSpace, Values

REPEATS_REPLAYED = 20
CONFIRM_REPLAYED = 3


def replay_searches(
    asked: SearchesRequest,
    path: Path,
    study_name: str | None,
    store: Store,
    console: Console = SILENT,
    *,
    processes: int | None = None,
) -> RunFolder:
    """Every search against a table, `repeats` times; the folder of the run.

    `study_name` is that of the study that the table must be of, if one was given. Repeats run in
    `processes`, or one per core; what comes of them does not depend on it.

    Raises:
        UserError: the table or a search is not usable, or the folder holds another comparison.
    """
    table = read_table(path)
    study = table.info.study
    if study_name is not None and study.name != study_name:
        raise UserError(f"{path} is a table of study {study.name}, not of {study_name}.")
    study, chosen_by = choosing_by(study, asked.objective)
    table.refuse_unscored(study.objective, path)
    folder = RunFolder.of(store, f"{study.name}{variant(chosen_by)}+searches")
    refuse_other_objective(folder, study.objective)
    if asked.seeds is not None and asked.seeds > len(study.seeds):
        raise UserError(f"--seeds {asked.seeds}: {path} has {len(study.seeds)} of every cell.")
    study = study.derive(seeds=study.seeds[: asked.seeds])
    space = table.space()
    learned = _learned_cells(table, space)
    names, given, notes = _searches(asked, table, learned)
    makers_of(names, given)  # an unknown one is refused before anything is written
    budget = budget_of(asked.budget, study)
    confirm = CONFIRM_REPLAYED if asked.confirm is None else asked.confirm
    if confirm and len(study.seeds) < 2:
        notes.append("No confirmation: the table has no other seeds than the one searched on.")
        confirm = 0
    comparison = SearchComparison(
        **contest_fields(asked, study, names, [*learned], budget),
        **asked.repeats.fields(REPEATS_REPLAYED, names),
        table=hashlib.sha256(path.read_bytes()).hexdigest(),
        reference=table.info.reference,
        confirm=confirm,
        confirm_seeds=study.seeds if confirm else (),
        notes=tuple(notes),
    )
    with driving(folder.driver_mark):
        write_search_comparison(folder, comparison)
        write_run(folder, study, [], table.info.environment)
        with saving(folder.table):
            shutil.copyfile(path, folder.table)
        replaying = Replaying(
            folder=folder,
            comparison=comparison,
            study=study,
            budget=budget,
            given=given,
            path=path,
        )
        for each in replaying.run(table, processes):
            times = f"{comparison.repeats_of(each.name)} times"
            kept = f", {each.kept} of them kept" if each.kept else ""
            console.say(
                f"{each.name}: {each.trials} trials in {each.seconds:.1f} s, {times}{kept}."
            )
    write_command(folder, Command(asked.line, asked.plan))
    return folder


def _searches(
    asked: SearchesRequest, table: Table, learned: dict[str, Values]
) -> tuple[list[str], dict[str, list[Values]], list[str]]:
    """Names of what is replayed; the cells of those that are given, not sought; and notes."""
    names, notes = asked.names(list(learned)), []
    if POPULATION in names:
        names.remove(POPULATION)
        notes.append(f"{POPULATION} changes values in mid-training, which no table has: left out.")
    if not learned:
        notes.append(
            "The table has no method that learns strengths: tabulate a run of one with it, such as "
            f"{table.info.study.name}+metapeft."
        )
    standing = recorded_baseline(table)
    if not standing:
        notes.append(f"The table lacks the baseline of every comparison ({LABEL}): left out.")
    names += [name for name in standing if name not in names]
    return names, {name: [cell] for name, cell in learned.items()} | standing, notes


def _learned_cells(table: Table, space: SearchSpace) -> dict[str, Values]:
    """Method -> its cell, of those that are no point of the space."""
    cells: dict[str, Values] = {}
    for text in table.trials["cell"].unique():
        cell = json.loads(text)
        if isinstance(cell.get("method"), str) and space.params(cell) is None:
            cells.setdefault(cell["method"], cell)
    return cells
