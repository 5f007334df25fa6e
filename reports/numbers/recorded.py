"""What a comparison of searches asked for and recorded: its plan, every trial and every log.

Owns: reading them into one shape, whether trials were trained or taken from a table. Must not know:
what follows from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.errors import UserError
from harness.metrics import LOSS, OVERALL, Objective, scale_of
from harness.reports.numbers.run import OfStudy, load_run
from harness.search.budget import Budget
from harness.store.comparisons import SearchComparison
from harness.store.run_folder import RunFolder
from harness.store.runs import read_run, read_search_comparison
from harness.store.search_log import Event
from harness.store.summaries import in_bulk
from harness.store.table import Table, read_table
from harness.study.space import cell_key
from harness.study.study import Study


@dataclass(frozen=True, kw_only=True)
class Recorded(OfStudy):
    """A comparison before anything is computed from it."""

    comparison: SearchComparison
    study: Study
    environment: dict[str, str]
    devices: tuple[str, ...]
    """Kinds of device that its trials ran on."""
    groups: tuple[str, ...]
    chance: float
    """Accuracy of guessing, percent."""
    trials: pd.DataFrame
    """A row per trial under its id: `cell` as text, `seed`, `status`, accuracies in percent (those
    of a diverged trial are chance), `device_s` and `flops`; where choices are made by the loss,
    also that, negated; of a table also `epochs`."""
    logs: dict[tuple[str, int], list[Event]]
    """Arm and repeat -> its log."""
    table: Table | None
    """The table that was replayed; None where trials were trained."""
    label: str = ""
    """Tells its searches from those of a comparison beside it."""

    def arm(self, search: str) -> str:
        """The name of a search among all that are compared."""
        return f"{search} ({self.label})" if self.label else search

    @property
    def learned(self) -> tuple[str, ...]:
        """Arms that find strengths in one trial per training seed."""
        return tuple(map(self.arm, self.comparison.learned))

    @property
    def given(self) -> tuple[str, ...]:
        """Arms whose trials are given, so that they have no chance of their own within a seed: the
        learned ones and the baseline of every comparison."""
        return tuple(map(self.arm, self.comparison.given))

    @property
    def budget(self) -> Budget:
        """Of each search."""
        return Budget.read(self.comparison.budget, self.study.base.recipe.epochs)

    @property
    def most_cost(self) -> float:
        """The budget in full runs; infinite for one in epochs, which cost more or less."""
        budget = self.budget
        if budget.unit == "epochs":
            return float("inf")
        return budget.amount / (self.comparison.reference.device_s if budget.unit == "s" else 1.0)


@in_bulk()
def read_recorded(folder: RunFolder) -> Recorded:
    """Read a comparison's folder, and its table or its trials' records.

    Raises:
        UserError: the folder is no comparison of searches.
    """
    comparison = read_search_comparison(folder)
    if comparison is None:
        raise UserError(f"{folder} is no comparison of searches: it has no searches.json.")
    files = read_run(folder)
    table = None if comparison.table is None else read_table(folder.table)
    if table is None:
        run = load_run(folder)
        trials, groups, chance = run.trials, run.groups, run.chance
        trials = trials.assign(cell=[cell_key(asked.cell) for asked in files.asked])
    else:
        trials = _trials_of(table, files.study.objective)
        groups, chance = table.info.groups, 100 / table.info.num_classes
    trials = trials.drop_duplicates("trial_id").set_index("trial_id")
    by_path = dict(zip(folder.logs(), files.searches.values(), strict=True))
    logs = {
        (name, repeat): by_path.get(folder.log(repeat, name), [])
        for name in comparison.searches
        for repeat in range(comparison.repeats_of(name))
    }
    return Recorded(
        comparison=comparison,
        study=files.study,
        environment=files.environment,
        devices=tuple(_devices(table, trials)),
        groups=groups,
        chance=chance,
        trials=trials,
        logs=logs,
        table=table,
    )


def _devices(table: Table | None, trials: pd.DataFrame) -> list[str]:
    if table is not None:
        return list(table.info.devices)
    return [str(name) for name in trials["device"].dropna().unique()] if "device" in trials else []


def _trials_of(table: Table, objective: Objective) -> pd.DataFrame:
    """The table's trials under the names that `Run.trials` uses, in percent."""
    last, info = table.trials, table.info
    chance = 100 / info.num_classes
    names = [*OVERALL, *info.groups]
    columns: dict[str, Any] = {n: last[n] for n in ("trial_id", "cell", "seed", "status")}
    for name in names:
        columns[f"select_{name}"] = (100 * last[f"final_{name}"]).fillna(chance)
        columns[f"test_{name}"] = (100 * last[f"test_{name}"]).fillna(chance)
    for group in info.groups:
        columns[f"binomial_{group}"] = 100 * last[f"test_se_{group}"]
    if objective == LOSS:
        columns[scale_of(LOSS).column] = table.final_worths(LOSS)
    columns |= {"device_s": last["device_s"], "flops": last["flops"]}
    columns["epochs"] = last["epoch"]
    return pd.DataFrame(columns)
