"""A study's trials, and which of them the store lacks.

Owns: the plan of a grid and its estimated cost. Must not know: how trials are run or shown.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from harness.errors import UserError
from harness.runner.cost import probe_seconds
from harness.runner.resolve import resolve
from harness.runner.runtime import Runtime
from harness.search.budget import Budget
from harness.spec import TrialSpec
from harness.store.records import State, state_of
from harness.store.run_folder import RunFolder
from harness.store.runs import Cell
from harness.store.store import Store
from harness.store.summaries import Summary, in_bulk, summaries
from harness.study.study import Study


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A study's trials, and of those to be done now, which the store lacks."""

    study: Study
    folder: RunFolder
    cells: list[Cell]
    done: list[Summary]
    running: int
    failed: int
    to_run: list[TrialSpec]

    def estimated_device_s(self, runtime: Runtime) -> float:
        """Device seconds still to spend: by the study's finished trials, else by a short probe.

        Raises:
            Exception: the probe failed, as a trial itself may.
        """
        known = [summary.device_s for summary in self.done]
        if not known:
            probes = {0, len(self.to_run) // 2, len(self.to_run) - 1}
            known = [probe_seconds(self.to_run[index], runtime) for index in probes]
        return len(self.to_run) * sum(known) / len(known)


@in_bulk()
def make_plan(
    study: Study, *, store: Store, run_name: str, runtime: Runtime, budget: Budget | None = None
) -> Plan:
    """Resolve every cell, and look up the state of the trials that a budget pays for, counted from
    the first (None: of all).

    Raises:
        UserError: a cell that cannot be run; names the study and the cell.
    """
    cells: list[list[Cell]] = []
    for cell, request in study.cell_requests():
        try:
            spec = resolve(request, runtime)
        except UserError as error:
            raise UserError(f"study {study.name}, cell {cell}: {error}") from error
        cells.append([(cell, seeded) for seeded in spec.over_seeds(study.seeds)])
    # Seeds outermost, so that maps fill evenly.
    trials = [cells_of_seed[index] for index in range(len(study.seeds)) for cells_of_seed in cells]
    distinct = {spec.trial_id: spec for _, spec in trials}
    specs = dict(itertools.islice(distinct.items(), _paid_for(distinct.values(), budget)))
    ended = summaries(store, specs)
    states = {i: state_of(ended[i].status) if i in ended else _unfinished(store, i) for i in specs}
    return Plan(
        study=study,
        folder=RunFolder.of(store, run_name),
        cells=trials,
        done=[ended[trial_id] for trial_id, state in states.items() if state == "done"],
        running=sum(state == "running" for state in states.values()),
        failed=sum(state == "failed" for state in states.values()),
        to_run=[spec for i, spec in specs.items() if states[i] != "done"],
    )


def grid_budget(text: str, study: Study) -> Budget:
    """A budget for a study's grid.

    Raises:
        UserError: it is not one in trials or epochs, or pays for no trial.
    """
    budget = Budget.parse(text)
    if budget.unit not in ("trials", "epochs"):
        raise UserError(f"--budget {text}: that of a grid is in trials or epochs, as in 24.")
    _, first = next(study.cell_requests())
    if budget.unit == "epochs" and first.recipe.epochs > budget.amount:
        which = "the first" if study.varied_by("recipe.epochs") else "each"
        raise UserError(
            f"--budget {text} pays for no trial: {which} has {first.recipe.epochs} epochs."
        )
    return budget


def _paid_for(trials: Iterable[TrialSpec], budget: Budget | None) -> int | None:
    """How many of these a budget pays for, up to the first that does not fit; None: all.

    Each is charged its own epochs, because axes may vary them.
    """
    if budget is None:
        return None
    if budget.unit == "trials":
        return int(budget.amount)
    spent = itertools.accumulate(spec.recipe.epochs for spec in trials)
    return sum(epochs <= budget.amount for epochs in spent)


def _unfinished(store: Store, trial_id: str) -> State:
    return "running" if store.is_claimed(trial_id) else "absent"
