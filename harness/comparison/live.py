"""Searches compared live: each is run in its turn, and its best are trained again on unseen seeds.

Owns: the reference run, the order of running, the confirmation, and the run's folder; and that a
sweep of a study which names searches is such a comparison. Must not know: how a search works,
terminals, what the report says.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness.comparison.baseline import STANDING, baseline_cells, with_baseline
from harness.comparison.contest import (
    Contest,
    budget_of,
    contest_fields,
    makers_of,
    own_folder,
    refuse_for_several,
    refuse_unable,
)
from harness.comparison.request import (
    REPEATS_LIVE,
    Repeats,
    SearchesRequest,
    default_budget,
)
from harness.console import Console
from harness.driver.batch import Batch
from harness.driver.request import GRID, Keep, SweepRequest
from harness.driver.run import Ran, SweepPlan, plan_sweep
from harness.driver.said import said, varied_by
from harness.driver.setup import Prepared, prepare, refuse_chosen
from harness.errors import UserError
from harness.metrics import SHOWN, scale_of
from harness.runner.provenance import provenance
from harness.search.base import Make, SearchMaker
from harness.search.catalogue import POPULATION, may_pause
from harness.search.plan import (
    default_trial,
    learning_cell,
    learning_methods,
    live_space,
    ranking_cells,
)
from harness.search.population import population_size
from harness.search.ranking import Rankable
from harness.search.resumed import refuse_another
from harness.spec import TrialSpec
from harness.store.comparisons import Reference, SearchComparison
from harness.store.liveness import driving
from harness.store.records import TrialRecord
from harness.store.run_folder import RunFolder
from harness.store.runs import (
    Cell,
    Command,
    read_run,
    refuse_older,
    refuse_other_comparison,
    refuse_other_objective,
    write_command,
    write_run,
    write_search_comparison,
)
from harness.store.search_log import best_cells, read_log
from harness.study.space import SearchSpace, Values

CONFIRM_SEEDS = 5
"""Unseen seeds on which the best are trained again."""


def plan_any_sweep(asked: SweepRequest, console: Console) -> SweepPlan:
    """What a sweep will do: of a study that names searches, compare them; else as `plan_sweep`.

    Raises:
        UserError: a field makes no sense for it, or a cell cannot be run; names it.
    """
    prepared = prepare(asked.study, asked.place, asked.engine, console)
    study = prepared.study
    if study.searches is None or asked.search != GRID:
        return plan_sweep(asked, prepared)
    if asked.of_a_search:
        raise UserError(
            f"--{asked.of_a_search[0]} is for one search; {study.name} compares several."
        )
    wanted = SearchesRequest(
        searches=study.searches,
        budget=asked.budget or default_budget(asked.study.smoke),
        repeats=Repeats(count=asked.repeats),
        workers=prepared.workers,
        line=asked.line,
    )
    refuse_chosen(study, asked.study.settings)
    kept = prepared.keeping(keep_features=study.needs_features)
    return LiveComparison.of(wanted, kept, asked.keep)


@dataclass(frozen=True, kw_only=True)
class LiveComparison(SweepPlan):
    """Searches against each other on a study's space; a `SweepPlan`."""

    asked: SearchesRequest
    prepared: Prepared
    batch: Batch

    @classmethod
    def of(cls, asked: SearchesRequest, prepared: Prepared, keep: Keep = "none") -> LiveComparison:
        """With the checkpoints kept that the searches need.

        Raises:
            UserError: there is no search of a name, or the folder holds a comparison made under
                another `SEMANTICS`, or with other seeds or workers.
        """
        names = asked.names([], several=bool(prepared.study.further))
        kept = prepared.keeping(keep_checkpoints=any(map(may_pause, names)))
        live = cls(asked=asked, prepared=kept, batch=kept.batch(keep=keep))
        for name in live._makers:
            if name == POPULATION or "+" in name:
                prepared.engine.refuse_watching(f"--search {name}")
        refuse_older(live.folder)
        refuse_other_objective(live.folder, prepared.study)
        refuse_other_comparison(live.folder, prepared.study.seeds, asked.workers, None)
        return live

    @cached_property
    def folder(self) -> RunFolder:
        """Where it is written: found once, before anything is."""
        named = RunFolder.of(self.prepared.store, f"{self.prepared.run_name}+searches")
        budget = budget_of(self.asked.budget, self.prepared.study)
        return own_folder(named, self.asked, self._names[0], budget, is_replay=False)

    @cached_property
    def _space(self) -> tuple[SearchSpace, Make]:
        """Made once, because every value of it is tried."""
        return live_space(self.prepared.study, self.prepared.runtime)

    def words(self) -> Iterator[str]:
        """The question, and what the searches are given."""
        study, asked = self.prepared.study, self.asked
        yield f"{study.name}: {study.question}"
        full = default_trial(study, *self._space)
        yield said(full, study.seeds, varied_by(study.space or study.axes))
        times = asked.repeats.count or REPEATS_LIVE
        yield f"Searches: {asked.searches}, each to a budget of {asked.budget}, {times}×."
        if study.further:
            yield f"Objectives: {', '.join(study.objectives)}; sought is their front."
        elif study.objective != SHOWN:
            yield f"Chosen by: the best {scale_of(study.objective).words}."

    def run(self) -> Ran:
        """Every search, `repeats` times, in turns, as far as the store lacks their trials.

        Raises:
            UserError: a search is not usable here, or the folder holds another comparison.
            TrialsFailed: a trial failed, so that nothing is compared.
            Interrupted: the user stopped before the end.
        """
        study, runtime, folder = self.prepared.study, self.prepared.runtime, self.folder
        space, make_point = self._space
        make = with_baseline(make_point, study, runtime)
        names, notes = self._names
        learned, rankings, given = learning_methods(), ranking_cells(study), self._given
        refuse_unable(names, study, space)
        refuse_for_several(self.asked, study)
        budget, confirm = budget_of(self.asked.budget, study), self.asked.confirm or 0
        cells = (*itertools.chain(*given.values()), *rankings.values())
        for log in folder.logs():
            beyond = Rankable(cells) if {*names} & {*rankings} else cells
            refuse_another(log, space, make, beyond=beyond)
        fields = contest_fields(self.asked, study, names, learned, budget)
        fields |= self.asked.repeats.fields(REPEATS_LIVE, names)
        unseen = range(max(study.seeds) + 1, max(study.seeds) + 1 + CONFIRM_SEEDS)
        with driving(folder.driver_mark), self.batch:
            cell = space.default_cell()
            full = make(cell, study.seeds[0])
            self._train([full], "one full run")
            record = self.prepared.store.record(full.trial_id)
            assert record is not None
            comparison = SearchComparison(
                **fields,
                table=None,
                reference=_reference(cell, record, study.base.recipe.epochs),
                confirm=confirm,
                confirm_seeds=tuple(unseen) if confirm else (),
                notes=tuple(notes),
            )
            contest = Contest(
                folder=folder,
                comparison=comparison,
                makers=self._makers,
                space=space,
                make=make,
                budget=budget,
                study=study,
            )
            write_search_comparison(folder, comparison)
            environment = provenance(runtime.device)
            write_run(folder, study, [(cell, full)], environment)
            logs = self._in_turns(contest)
            best = [each for log in logs for each, _ in best_cells(read_log(log), confirm)]
            again: list[Cell] = [(each, make(each, seed)) for each in best for seed in unseen]
            if again:
                runtime.console.say(f"Confirmation on seeds {unseen[0]} to {unseen[-1]}.")
                write_run(folder, study, [(cell, full), *again], environment)
                self._train([spec for _, spec in again], "confirmation")
            self.batch.say_what_was_saved()
        write_command(folder, Command(self.asked.line, self.asked.plan))
        return Ran(folder, None)

    @cached_property
    def _given(self) -> dict[str, list[Values]]:
        """Searches that try given configurations in turn, which cost one run or few."""
        study = self.prepared.study
        learned = {name: [learning_cell(study, name)] for name in learning_methods()}
        return learned | baseline_cells(study)

    @cached_property
    def _makers(self) -> dict[str, SearchMaker]:
        study = self.prepared.study
        return makers_of(self._names[0], self._given, study.objectives, ranking_cells(study))

    @cached_property
    def _names(self) -> tuple[list[str], list[str]]:
        """The searches that take part, the baseline too, and why one of `all` does not."""
        study = self.prepared.study
        names = self.asked.names(learning_methods(), several=bool(study.further))
        notes: list[str] = []
        if POPULATION in names:
            budget = budget_of(self.asked.budget, study)
            try:
                population_size(self._space[0], budget, study.base.recipe.epochs)
            except UserError as error:
                if self.asked.searches != "all":
                    raise
                names.remove(POPULATION)
                notes.append(f"{POPULATION}: {error}")
        return names + [name for name in STANDING if name not in names], notes

    def _in_turns(self, contest: Contest) -> list[Path]:
        """Run every repeat of every search; their logs, in that order."""
        comparison, logs = contest.comparison, []
        for repeat in range(comparison.most_repeats):
            for name in comparison.searches:
                if repeat >= comparison.repeats_of(name):
                    continue
                search = contest.start(name, repeat)
                title = f"{name} {repeat + 1}/{comparison.repeats_of(name)}"
                logs.append(contest.folder.log(repeat, name))
                study = self.prepared.study
                self.batch.run(
                    search,
                    count=None,
                    title=title,
                    objective=study.objective,
                    further=study.further,
                )
                if self.batch.problem is not None:
                    raise self.batch.problem
        if any(map(may_pause, comparison.searches)):
            for trial in read_run(contest.folder).asked:
                self.prepared.store.drop_checkpoint(trial.trial_id)
        return logs

    def _train(self, specs: Sequence[TrialSpec], title: str) -> None:
        self.batch.complete(specs, title=title, objective=self.prepared.study.objective)


def _reference(cell: Values, record: TrialRecord, epochs: int) -> Reference:
    stretch = epochs / record.epochs_run if record.status == "DIVERGED" else 1.0
    return Reference(
        cell=cell,
        device_s=stretch * record.cost.device_s,
        flops=round(stretch * record.cost.charged_flops),
    )
