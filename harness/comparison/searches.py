"""Searches against each other on one space, with one budget: live, or replayed from a table.

Owns: which searches take part, what each is given, the confirmation of their choices, and the run's
folder. Must not know: how a search works, what the report says. Torch is needed live only.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UserError, saving
from harness.search.base import Make, Search, SearchMaker, SearchTask
from harness.search.budget import Budget
from harness.search.catalogue import POPULATION, find_search, restarts
from harness.search.population import population_size
from harness.search.replay import Recording
from harness.spec import TrialSpec
from harness.store.comparisons import Reference, SearchComparison
from harness.store.liveness import driving
from harness.store.records import TrialRecord
from harness.store.run_folder import RunFolder
from harness.store.runs import Cell, read_comparison, read_run, write_run, write_search_comparison
from harness.store.search_log import best_cells, read_log
from harness.store.store import Store
from harness.store.summaries import summaries
from harness.store.table import Table, read_table
from harness.study.space import SearchSpace, Values
from harness.study.study import Study

if TYPE_CHECKING:
    from harness.driver.batch import Batch

ALL = ("random", "sobol", "tpe", "gp", "tpe+hyperband", POPULATION)
"""What `all` stands for, with every method that learns strengths in one trial."""
BUDGET = "24"
SMOKE_BUDGET = "4"
REPEATS_LIVE = 3
REPEATS_REPLAYED = 20
CONFIRM_REPLAYED = 3
CONFIRM_SEEDS = 5
"""Unseen seeds on which the best are trained again, live."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a user asks of a comparison; None: left to it."""

    searches: str
    """Names with commas between them, or `all`."""
    budget: str
    repeats: int | None = None
    seeds: int | None = None
    workers: int = 1
    confirm: int | None = None
    tuning: tuple[RunFolder, ...] = ()
    """Run folders whose cost found the settings of the searches that learn strengths."""
    controls: RunFolder | None = None
    """Folder of the comparison of a method that learns strengths with its controls."""

    def names(self, learned: Sequence[str]) -> list[str]:
        if self.searches == "all":
            return [*ALL, *learned]
        return list(dict.fromkeys(name.strip() for name in self.searches.split(",")))


@dataclass(frozen=True, kw_only=True)
class _Contest:
    """All searches, ready to be started."""

    folder: RunFolder
    comparison: SearchComparison
    makers: dict[str, SearchMaker]
    space: SearchSpace
    make: Make
    budget: Budget
    study: Study

    def start(self, name: str, repeat: int) -> Search:
        task = SearchTask(
            space=self.space,
            make=self.make,
            name=f"{self.study.name}/{name}/{repeat}",  # so live and replayed ones are alike
            seed=self.comparison.seed(repeat),
            budget=self.budget,
            full_run_flops=self.comparison.reference.flops,
            epochs=self.study.base.recipe.epochs,
            log=self.folder.log(repeat, name),
        )
        return self.makers[name](task)


def default_budget(smoke: bool) -> str:
    """What each search may spend where nothing else is asked for."""
    return SMOKE_BUDGET if smoke else BUDGET


def replay_searches(
    wanted: Wanted, path: Path, asked: str | None, store: Store, say: Callable[[str], None]
) -> RunFolder:
    """Every search against a table, `repeats` times; the folder of the run.

    `asked` is the name of the study that the table must be of, if one was given.

    Raises:
        UserError: the table or a search is not usable, or the folder holds another comparison.
    """
    table = read_table(path)
    study = table.info.study
    if asked is not None and study.name != asked:
        raise UserError(f"{path} is a table of study {study.name}, not of {asked}.")
    folder = RunFolder.of(store, f"{study.name}+searches")
    if wanted.seeds is not None and wanted.seeds > len(study.seeds):
        raise UserError(f"--seeds {wanted.seeds}: {path} has {len(study.seeds)} of every cell.")
    study = study.derive(seeds=study.seeds[: wanted.seeds])
    space = table.space()
    recording = Recording(table, study.objective)
    learned = _learned_cells(table, space)
    names, notes = wanted.names(list(learned)), []
    if POPULATION in names:
        names.remove(POPULATION)
        notes.append(f"{POPULATION} changes values in mid-training, which no table has: left out.")
    if not learned:
        notes.append(
            "The table has no method that learns strengths: tabulate a run of one with it, such as "
            f"{study.name}+metapeft."
        )
    makers = _makers(names, learned)
    budget = _budget(wanted.budget, study)
    confirm = CONFIRM_REPLAYED if wanted.confirm is None else wanted.confirm
    if confirm and len(study.seeds) < 2:
        notes.append("No confirmation: the table has no other seeds than the one searched on.")
        confirm = 0
    comparison = SearchComparison(
        **_as_wanted(wanted, study, names, learned, budget),
        repeats=wanted.repeats or REPEATS_REPLAYED,
        table=hashlib.sha256(path.read_bytes()).hexdigest(),
        reference=table.info.reference,
        confirm=confirm,
        confirm_seeds=study.seeds if confirm else (),
        notes=tuple(notes),
    )
    contest = _Contest(
        folder=folder,
        comparison=comparison,
        makers=makers,
        space=space,
        make=recording.make,
        budget=budget,
        study=study,
    )
    with driving(folder.driver_mark):
        write_search_comparison(folder, comparison)
        write_run(folder, study, [], table.info.environment)
        with saving(folder.table):
            shutil.copyfile(path, folder.table)
        for name in names:
            start, trials = time.perf_counter(), 0
            for repeat in range(comparison.repeats_of(name)):
                trials += recording.replay(contest.start(name, repeat), wanted.workers)
            seconds = time.perf_counter() - start
            say(f"{name}: {trials} trials in {seconds:.1f} s, {comparison.repeats_of(name)} times.")
    return folder


def run_searches(
    wanted: Wanted,
    study: Study,
    folder: RunFolder,
    *,
    batch: Batch,
    say: Callable[[str], None],
) -> None:
    """Every search live, `repeats` times, in turns; `batch` knows afterwards if all ended well.

    Raises:
        UserError: a search is not usable here, or `folder` holds another comparison.
    """
    # Imported here, because they import torch, which a replay need not.
    from harness.runner.provenance import provenance
    from harness.search.base import GridSearch
    from harness.search.plan import learning_cell, learning_methods, live_space

    store, runtime = batch.store, batch.runtime
    space, make = live_space(study, runtime)
    learned = {name: learning_cell(study, name) for name in learning_methods()}
    names, notes = wanted.names(list(learned)), []
    budget = _budget(wanted.budget, study)
    if POPULATION in names:
        try:
            population_size(space, budget, study.base.recipe.epochs)
        except UserError as error:
            if wanted.searches != "all":
                raise
            names.remove(POPULATION)
            notes.append(f"{POPULATION}: {error}")
    makers = _makers(names, learned)
    confirm = wanted.confirm or 0
    unseen = range(max(study.seeds) + 1, max(study.seeds) + 1 + CONFIRM_SEEDS)

    def run(search: Search, title: str, count: int | None = None) -> bool:
        """Whether all that it asked for ended well."""
        batch.run(search, count=count, title=title, objective=study.objective)
        return not batch.is_incomplete

    def train(specs: Sequence[TrialSpec], title: str) -> bool:
        distinct = {spec.trial_id: spec for spec in specs}
        left = [spec for key, spec in distinct.items() if store.state(key) != "done"]
        return run(GridSearch(left), title, len(left))

    with driving(folder.driver_mark), batch:
        default = space.default()
        cell = space.values(lambda variable, domain: default[variable])
        full = make(cell, study.seeds[0])
        if not train([full], "one full run"):
            return
        record = store.record(full.trial_id)
        assert record is not None
        comparison = SearchComparison(
            **_as_wanted(wanted, study, names, learned, budget),
            repeats=wanted.repeats or REPEATS_LIVE,
            table=None,
            reference=_reference(cell, record, study.base.recipe.epochs),
            confirm=confirm,
            confirm_seeds=tuple(unseen) if confirm else (),
            notes=tuple(notes),
        )
        contest = _Contest(
            folder=folder,
            comparison=comparison,
            makers=makers,
            space=space,
            make=make,
            budget=budget,
            study=study,
        )
        write_search_comparison(folder, comparison)
        environment = provenance(runtime.device)
        write_run(folder, study, [(cell, full)], environment)
        logs: list[Path] = []
        for repeat in range(comparison.repeats):
            for name in names:
                if repeat >= comparison.repeats_of(name):
                    continue
                search = contest.start(name, repeat)
                title = f"{name} {repeat + 1}/{comparison.repeats_of(name)}"
                logs.append(folder.log(repeat, name))
                if not run(search, title):
                    return
        if POPULATION in names:
            for asked in read_run(folder).asked:
                store.drop_checkpoint(asked.trial_id)
        best = [cell for log in logs for cell, _ in best_cells(read_log(log), confirm)]
        again: list[Cell] = [(each, make(each, seed)) for each in best for seed in unseen]
        if again:
            say(f"Confirmation on seeds {unseen[0]} to {unseen[-1]}.")
            write_run(folder, study, [(cell, full), *again], environment)
            train([spec for _, spec in again], "confirmation")


def _budget(text: str, study: Study) -> Budget:
    """A budget in trials as the epochs of so many whole ones, so that a search which stops some
    early may start more of them for the same training."""
    budget = Budget.parse(text)
    if budget.unit != "trials":
        return budget
    return Budget(amount=budget.amount * study.base.recipe.epochs, unit="epochs")


def _words(given: str, budget: Budget) -> str:
    words = f"{Budget.parse(given).amount:g} {Budget.parse(given).unit}"
    return words if budget == Budget.parse(given) else f"{words} ({budget.amount:g} epochs)"


def _makers(names: Sequence[str], learned: dict[str, Values]) -> dict[str, SearchMaker]:
    return {
        name: restarts(learned[name], 1) if name in learned else find_search(name, [*learned])
        for name in names
    }


def _learned_cells(table: Table, space: SearchSpace) -> dict[str, Values]:
    """Method -> its cell, of those that are no point of the space."""
    cells: dict[str, Values] = {}
    for text in table.trials["cell"].unique():
        cell = json.loads(text)
        if isinstance(cell.get("method"), str) and space.params(cell) is None:
            cells.setdefault(cell["method"], cell)
    return cells


def _as_wanted(
    wanted: Wanted,
    study: Study,
    names: Sequence[str],
    learned: Mapping[str, Values],
    budget: Budget,
) -> dict[str, Any]:
    """Fields of a comparison that are alike live and replayed.

    Raises:
        UserError: the controls are not those of such trials.
    """
    seconds = 0.0
    for folder in wanted.tuning:
        ids = {asked.trial_id for asked in read_run(folder).asked}
        ended = summaries(folder.store, ids)
        seconds += sum(each.device_s for each in ended.values())
    if wanted.controls is not None:
        base, other = study.base, read_comparison(wanted.controls).request
        if any(getattr(base, f) != getattr(other, f) for f in ("data", "backbone", "recipe")):
            raise UserError(
                f"--controls {wanted.controls.name}: its trials have other data, another backbone "
                f"or another recipe than study {study.name}."
            )
    return {
        "searches": tuple(names),
        "learned": tuple(name for name in names if name in learned),
        "budget": _words(wanted.budget, budget),
        "seeds": study.seeds,
        "workers": wanted.workers,
        "tuning": tuple(folder.name for folder in wanted.tuning),
        "tuning_s": seconds,
        "controls": None if wanted.controls is None else wanted.controls.name,
    }


def _reference(cell: Values, record: TrialRecord, epochs: int) -> Reference:
    stretch = epochs / record.epochs_run if record.status == "DIVERGED" else 1.0
    return Reference(
        cell=cell,
        device_s=stretch * record.cost.device_s,
        flops=round(stretch * record.cost.flops),
    )
