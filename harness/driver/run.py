"""A sweep from what was asked to its run's folder: a grid, a search, or counted parameters.

Owns: what a sweep writes into its folder and in which order, and one line or two on what it will
do. Must not know: terminals, reports, and that searches can be compared.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from harness.console import duration
from harness.driver.plan import Plan, grid_budget, make_plan
from harness.driver.request import GRID, SweepRequest
from harness.driver.said import said, varied_by
from harness.driver.setup import Prepared, refuse_chosen
from harness.errors import Interrupted, TrialsFailed, UserError
from harness.metrics import SHOWN, scale_of
from harness.runner.cost import count_params, probe_seconds
from harness.runner.provenance import provenance
from harness.search.base import GridSearch
from harness.search.catalogue import POPULATION, may_pause, refuse_objectives
from harness.search.plan import (
    SearchPlan,
    SearchRequest,
    learning_methods,
    plan_searches,
    ranking_cells,
)
from harness.spec import TrialSpec
from harness.store.differences import why_another
from harness.store.liveness import driving
from harness.store.records import state_of
from harness.store.run_folder import RunFolder
from harness.store.runs import (
    Command,
    known_run,
    note_of_older,
    read_run,
    refuse_older,
    refuse_other_objective,
    write_command,
    write_counts,
    write_run,
)
from harness.store.summaries import summaries
from harness.study.space import cell_key
from harness.study.study import Study


class Ran(NamedTuple):
    """A run as far as it came."""

    folder: RunFolder
    problem: TrialsFailed | Interrupted | None
    """To be raised once the report of what there is has been written."""


class SweepPlan(ABC):
    """What would run. Nothing has been written yet."""

    @property
    def watched(self) -> RunFolder | None:
        """The folder to watch while trials end one by one; None: there is nothing to be seen."""
        return None

    @abstractmethod
    def words(self) -> Iterator[str]:
        """Lines on what will be done."""

    def estimate(self, *, probing: bool) -> str | None:
        """What it will cost, by a grid's finished trials, or by training for some seconds.

        None where nothing is known, and `probing` is not asked for.
        """
        return None

    @abstractmethod
    def run(self) -> Ran:
        """Do it, or what of it the store lacks.

        Raises:
            UserError: another process drives the run, or a trial cannot be run.
            Interrupted: the user wants to end at once.
        """


def plan_sweep(asked: SweepRequest, prepared: Prepared) -> SweepPlan:
    """What a sweep of a prepared study will do: its grid, one search, or counting.

    Raises:
        UserError: a field makes no sense for it, or a cell cannot be run; names it.
    """
    study, asked = prepared.study, asked.with_pruner_apart()
    prepared = prepared.keeping(
        keep_features=study.needs_features,
        keep_checkpoints=may_pause(asked.search),
    )
    if asked.search != GRID:
        return _plan_search(asked, prepared)
    if study.further:
        refuse_objectives(GRID, study.objectives)
    given = asked.of_a_search + (["repeats"] if asked.repeats is not None else [])
    if given:
        raise UserError(f"--{given[0]} is for a search; the grid runs every cell once.")
    budget = None if asked.budget is None else grid_budget(asked.budget, study)
    runtime, run_name = prepared.runtime, prepared.run_name
    plan = make_plan(study, store=prepared.store, run_name=run_name, runtime=runtime, budget=budget)
    if not study.trains:
        return CountPlan(prepared=prepared, plan=plan)
    refuse_older(plan.folder)
    return GridPlan(asked=asked, prepared=prepared, plan=plan)


def _plan_search(asked: SweepRequest, prepared: Prepared) -> OneSearchPlan:
    study, store = prepared.study, prepared.store
    if not study.trains:
        raise UserError(f"--search: study {study.name} trains nothing, so nothing is sought.")
    request = SearchRequest(
        name=asked.search,
        budget=asked.budget,
        repeats=asked.repeats or 1,
        pruner=asked.pruner,
        fidelity=asked.fidelity,
        on_repeat=asked.on_repeat,
        warm_start=None if asked.warm_start is None else known_run(asked.warm_start, store.root),
    )
    words = [asked.search, *([] if asked.pruner in (None, "none") else [str(asked.pruner)])]
    on_shares = asked.fidelity == "data"
    words += ["data"] if on_shares else []
    if len(words) > 1 and not on_shares:
        asked.engine.refuse_watching(f"--pruner {asked.pruner}")
    if asked.search == POPULATION:
        asked.engine.refuse_watching(f"--search {POPULATION}")
    refuse_chosen(study, asked.study.settings)
    _refuse_of_own(asked, study)
    seeds = asked.study.seeds
    if seeds is not None and seeds > 1:
        raise UserError(
            f"--seeds {seeds}: a search trains on the first seed alone; --repeats {seeds} repeats "
            f"it, and harness compare --search {asked.search} deals its repeats to the seeds."
        )
    folder = RunFolder.of(store, "+".join([prepared.run_name, *words]))
    for run in filter(None, (folder, request.warm_start)):
        refuse_older(run)
    refuse_other_objective(folder, study)
    planned = plan_searches(study, prepared.runtime, folder, request)
    return OneSearchPlan(asked=asked, prepared=prepared, folder=folder, planned=planned)


def _refuse_of_own(asked: SweepRequest, study: Study) -> None:
    """Whether a search that tries sites of its own was told of others.

    Raises:
        UserError: it was; names the option.
    """
    learns = asked.search in learning_methods()
    if not learns and asked.search not in ranking_cells(study):
        return
    words = f"--search {asked.search} looks at every site of the method"
    for field in asked.study.only:
        raise UserError(f"--only {field}: {words}, and at no axis: leave it out.")
    idle = ("placement", "positions", "depth", *(["alpha"] if learns else []))
    for field in idle:
        if field in asked.study.settings:
            raise UserError(f"--set {field}: {words}, and would ignore it: leave it out.")


@dataclass(frozen=True, kw_only=True)
class OneSearchPlan(SweepPlan):
    """One search, repeated if that was asked for."""

    asked: SweepRequest
    prepared: Prepared
    folder: RunFolder
    planned: SearchPlan

    @property
    def watched(self) -> RunFolder:
        return self.folder

    def words(self) -> Iterator[str]:
        study = self.prepared.study
        yield f"{study.name}: {study.question}"
        varied = varied_by(study.space or study.axes)
        if self.asked.search in learning_methods():  # all that it trains is one configuration
            varied = {}
        yield said(self.planned.full, study.seeds[:1], varied)
        yield self.planned.words
        if study.further:
            yield f"Objectives: {', '.join(study.objectives)}; sought is their front."

    def estimate(self, *, probing: bool) -> str | None:
        if not probing:
            return None
        planned, runtime = self.planned, self.prepared.runtime

        def device_s() -> float:
            amount, unit = planned.budget.amount, planned.budget.unit
            if unit != "s":
                whole = amount / planned.full.recipe.epochs if unit == "epochs" else amount
                whole = whole if planned.most is None else min(whole, planned.most)
                amount = whole * probe_seconds(planned.full, runtime)
            return amount * len(planned.starts)

        return _cost_words(device_s, runtime.device, self.prepared.workers)

    def run(self) -> Ran:
        study, runtime, folder = self.prepared.study, self.prepared.runtime, self.folder
        repeats, batch = self.asked.repeats, self.prepared.batch(keep=self.asked.keep)
        with driving(folder.driver_mark), batch:
            write_run(folder, study, [], provenance(runtime.device))
            write_command(folder, Command(self.asked.line, self.planned.words))
            for number, start in enumerate(self.planned.starts):
                title = study.name if not repeats else f"{study.name} {number + 1}/{repeats}"
                count = self.planned.count
                batch.run(
                    start(),
                    count=count,
                    title=title,
                    objective=study.objective,
                    further=study.further,
                    whole_share=1.0 if self.asked.fidelity == "data" else 0.0,
                )
                if isinstance(batch.problem, Interrupted):
                    break
            batch.say_what_was_saved()
            if runtime.keep_checkpoints and batch.problem is None:
                for trial in read_run(folder).asked:
                    self.prepared.store.drop_checkpoint(trial.trial_id)
        return Ran(folder, batch.problem)


@dataclass(frozen=True, kw_only=True)
class GridPlan(SweepPlan):
    """Every cell for every seed, or the first of them that a budget pays for."""

    asked: SweepRequest
    prepared: Prepared
    plan: Plan

    @property
    def watched(self) -> RunFolder:
        return self.plan.folder

    def words(self) -> Iterator[str]:
        plan, study = self.plan, self.plan.study
        yield f"{study.name}: {study.question}"
        yield said(plan.cells[0][1], study.seeds, varied_by(study.axes))
        to_run = len(plan.to_run) - plan.running - plan.failed
        yield (
            f"Trials: {len(plan.done)} done, {plan.running} running, {plan.failed} failed (will be "
            f"tried again), {to_run} to run."
        )
        note = note_of_older(plan.folder.store, plan.to_run) or _not_reused(plan)
        if note is not None:
            yield note
        if study.base.data.select_on == "test":
            yield "SELECTED ON TEST: the paper's protocol, which flatters every choice."
        if study.objective != SHOWN:
            yield (
                f"Chosen by: the best {scale_of(study.objective).words}; shown is the test "
                f"{scale_of(SHOWN).words}. Trials are the same by whatever they are chosen."
            )
        if study.base.data.dev_per_class:
            yield f"Chosen on: {study.base.data.chosen_on_in_full}; nothing is held out."

    def estimate(self, *, probing: bool) -> str | None:
        plan, runtime = self.plan, self.prepared.runtime
        if not plan.to_run or not (plan.done or probing):
            return None
        workers = min(self.prepared.workers, len(plan.to_run))
        return _cost_words(lambda: plan.estimated_device_s(runtime), runtime.device, workers)

    def run(self) -> Ran:
        plan, study, folder = self.plan, self.plan.study, self.plan.folder
        budget, prepared = self.asked.budget, self.prepared.expecting(plan.to_run)
        batch = prepared.batch(keep=self.asked.keep)
        with driving(folder.driver_mark), batch:
            write_run(folder, study, plan.cells, provenance(self.prepared.runtime.device))
            limit = "" if budget is None else f", {budget} at most"
            words = f"Every cell once for every seed{limit}."
            write_command(folder, Command(self.asked.line, words))
            batch.run(
                GridSearch(plan.to_run),
                count=len(plan.to_run),
                title=study.name,
                objective=study.objective,
                done=plan.done,
            )
            batch.say_what_was_saved()
        return Ran(folder, batch.problem)


def _cost_words(device_s: Callable[[], float], device: str, workers: int) -> str:
    """What is still to be spent, or why that is not known.

    Raises:
        UserError: a trial cannot be run.
    """
    try:
        spent = device_s()
    except UserError:
        raise
    except Exception as error:  # a trial that fails in the same way says it in full
        why = f"{type(error).__name__}: {error}"
        return f"Estimated cost: unknown, because a first look at a trial failed ({why})."
    wall = f"{duration(spent / workers)} with {workers} workers"
    return f"Estimated cost: {duration(spent)} of {device}, {wall}."


def _not_reused(plan: Plan) -> str | None:
    """Why trials of the run, as it was last given, do not count for the same cells now."""
    try:
        before = read_run(plan.folder).asked
    except (UserError, ValueError, KeyError, TypeError):
        return None  # there was no run, or what is left of one says nothing
    now = {(cell_key(cell), spec.seed): spec for cell, spec in plan.cells}
    others: dict[str, TrialSpec] = {}
    for asked in before:
        spec = now.get((cell_key(asked.cell), asked.seed))
        if spec is not None and spec.trial_id != asked.trial_id:
            others[asked.trial_id] = spec
    store = plan.folder.store
    ended = summaries(store, others, lambda trial_id, why: None)
    done = [trial_id for trial_id, each in ended.items() if state_of(each.status) == "done"]
    if not done:
        return None
    why = why_another(store, done[0], others[done[0]])
    return (
        f"{len(done)} of these cells are done in this run already and are run again, because {why}."
    )


@dataclass(frozen=True, kw_only=True)
class CountPlan(SweepPlan):
    """The trainable parameters of a study that trains nothing."""

    prepared: Prepared
    plan: Plan

    def words(self) -> Iterator[str]:
        study = self.plan.study
        yield f"{study.name}: {study.question}"
        yield f"Trials: none; the parameters of {len(self.plan.cells)} cells are counted."

    def run(self) -> Ran:
        plan, folder = self.plan, self.plan.folder
        with driving(folder.driver_mark):
            environment = provenance(self.prepared.runtime.device)
            write_run(folder, plan.study, plan.cells, environment)
            write_counts(folder, {spec.trial_id: count_params(spec) for _, spec in plan.cells})
        return Ran(folder, None)
