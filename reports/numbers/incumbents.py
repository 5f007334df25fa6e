"""What searches had found by which cost: their answers one by one, and lines over repeats.

The incumbent of a search is the trial with the best selection score that has finished so far; what
is shown of it is its test score. Accuracies are in percent; cost is in full runs: FLOPs over those
of the reference where the budget counts them, else device seconds.

Owns: answers and incumbents against cost. Must not know: how searches are judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from harness.reports.numbers.landscape import AllCells
from harness.reports.numbers.recorded import Recorded
from harness.reports.numbers.statistics import expected_best, value_at
from harness.reports.numbers.sweep import answers
from harness.store.search_log import Spent


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Incumbents against cost."""

    lines: pd.DataFrame
    """Search, cost, and the median and quartiles over repeats of the incumbent's test score and
    regret."""
    restarts: pd.DataFrame
    """Learned search, starts on further seeds, their expected cost and the expected test score of
    the best of them by selection, in closed form; no rows for one with a single seed."""


def curves(compared: list[Recorded], told: pd.DataFrame) -> Curves:
    """Lines over the answers `told` to all of these comparisons (see `all_answers`)."""
    restarts = [_restarts(recorded, told) for recorded in compared]
    return Curves(lines=_lines(told), restarts=pd.concat(restarts, ignore_index=True))


def all_answers(recorded: Recorded, cells: AllCells | None) -> pd.DataFrame:
    """A row per answer of every repeat: as `sweep.answers`, with what was spent and the regrets.

    `runs` and `flop_runs` are full runs by device seconds and by FLOPs, `cost` the one that counts;
    `within`: the answer came within the budget.
    Regret is that of the incumbent's cell, by means over seeds, against the cell that is best on
    the selection split (`regret`) and the one that is best on test (`test_regret`); NaN without a
    table.
    """
    comparison, trials = recorded.comparison, recorded.trials
    tests = dict(zip(trials.index, trials[recorded.test], strict=True))
    cell_of = dict(zip(trials.index, trials["cell"], strict=True))
    rows = []
    budget = recorded.budget
    for (name, repeat), events in recorded.logs.items():
        epochs = 0
        for row in answers(events, tests, recorded.scale.factor):
            row = {"search": name, "repeat": repeat, **row}
            row["runs"] = row["spent_device_s"] / comparison.reference.device_s
            row["flop_runs"] = row["spent_flops"] / comparison.reference.flops
            row["cost"] = row["flop_runs" if budget.unit == "runs" else "runs"]
            epochs += row["epochs"]
            spent = Spent(epochs, row["spent_device_s"], row["spent_flops"])
            row["within"] = budget.holds(spent, comparison.reference.flops)
            row["regret"] = row["test_regret"] = float("nan")
            if cells is not None and row["incumbent"]:
                select, test = cells.means[cell_of[row["incumbent"]]]
                row["regret"] = cells.best_select - select
                row["test_regret"] = cells.best_test - test
            rows.append(row)
    return pd.DataFrame(rows)


def with_incumbent(own: pd.DataFrame) -> pd.DataFrame:
    """A repeat's answers from the first whole trial on."""
    return own[own["incumbent"] != ""]


def _lines(told: pd.DataFrame) -> pd.DataFrame:
    """From where every repeat of a search has an incumbent: a row per cost at which a quantile
    changes, and the last cost."""
    rows = []
    for name, own_answers in told.groupby("search", sort=False):
        repeats = [with_incumbent(own) for _, own in own_answers.groupby("repeat", sort=False)]
        if any(own.empty for own in repeats):
            continue
        first = max(own["cost"].min() for own in repeats)
        costs = np.unique(np.concatenate([own["cost"].to_numpy(float) for own in repeats]))
        costs = costs[costs >= first]
        columns: dict[str, Any] = {"search": name, "runs": costs}
        for field, word in (("incumbent_test", "test"), ("regret", "regret")):
            steps = np.array(
                [
                    value_at(own["cost"].to_numpy(float), own[field].to_numpy(float), costs)
                    for own in repeats
                ]
            )
            low, middle, high = np.quantile(steps, [0.25, 0.5, 0.75], axis=0)
            columns |= {word: middle, f"{word}_low": low, f"{word}_high": high}
        line = pd.DataFrame(columns)
        shown = line.drop(columns=["search", "runs"])
        changes = (shown.ne(shown.shift()) & shown.notna()).any(axis=1)
        changes.iloc[-1] = True
        rows.append(line[changes])
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()


def _restarts(recorded: Recorded, told: pd.DataFrame) -> pd.DataFrame:
    """What starting a learned search again would bring; all recorded seeds of its cell count."""
    trials = recorded.trials
    rows = []
    reference = recorded.comparison.reference
    for name in recorded.learned:
        ran = trials["cell"].loc[told[told["search"] == name]["trial_id"]]
        own = trials[trials["cell"].isin(ran)]
        if len(own) < 2:
            continue
        select, test = (own[name].to_numpy(float) for name in (recorded.select, recorded.test))
        cost = float(own["device_s"].mean()) / reference.device_s
        if recorded.budget.unit == "runs":
            cost = float(own["flops"].mean()) / reference.flops
        for starts, best in enumerate(expected_best(select, test, len(own)), 1):
            rows.append({"search": name, "starts": starts, "runs": starts * cost, "test": best})
    return pd.DataFrame(rows, columns=["search", "starts", "runs", "test"])
