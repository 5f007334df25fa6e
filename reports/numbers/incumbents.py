"""What searches had found by which cost: their answers one by one, and lines over repeats.

The incumbent of a search is the trial with the best selection score that has finished so far; what
is shown of it is its test score. Accuracies are in percent; cost is in full runs: device seconds
over those of the reference.

Owns: answers and incumbents against cost. Must not know: how searches are judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from harness.reports.numbers.landscape import AllCells
from harness.reports.numbers.recorded import Recorded
from harness.reports.numbers.statistics import Array, expected_best, value_at
from harness.reports.numbers.sweep import answers


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Incumbents against cost."""

    lines: pd.DataFrame
    """Search, cost, and the median and quartiles over repeats of the incumbent's test score and
    regret."""
    random: pd.DataFrame | None
    """Random search in closed form at the same costs; None without a table."""
    restarts: pd.DataFrame
    """Learned search, starts on further seeds, their expected cost and the expected test score of
    the best of them by selection, in closed form; no rows for one with a single seed."""


def curves(recorded: Recorded, told: pd.DataFrame, cells: AllCells | None) -> Curves:
    """Lines over the answers `told` (see `all_answers`)."""
    return Curves(
        lines=_lines(told),
        random=None if cells is None else _random(cells, float(told["runs"].max())),
        restarts=_restarts(recorded, told),
    )


def all_answers(recorded: Recorded, cells: AllCells | None) -> pd.DataFrame:
    """A row per answer of every repeat: as `sweep.answers`, with the `runs` spent and the regrets.

    Regret is that of the incumbent's cell, by means over seeds, against the cell that is best on
    the selection split (`regret`) and the one that is best on test (`test_regret`); NaN without a
    table.
    """
    comparison, trials = recorded.comparison, recorded.trials
    tests = dict(zip(trials.index, trials[recorded.test], strict=True))
    cell_of = dict(zip(trials.index, trials["cell"], strict=True))
    rows = []
    for (name, repeat), events in recorded.logs.items():
        for row in answers(events, tests, recorded.scale.factor):
            row = {"search": name, "repeat": repeat, **row}
            row["runs"] = row["spent_device_s"] / comparison.reference.device_s
            row["flop_runs"] = row["spent_flops"] / comparison.reference.flops
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
    """From where every repeat of a search has an incumbent: a row per cost at which one changes."""
    rows = []
    for name, own_answers in told.groupby("search", sort=False):
        repeats = [with_incumbent(own) for _, own in own_answers.groupby("repeat", sort=False)]
        if any(own.empty for own in repeats):
            continue
        first = max(own["runs"].min() for own in repeats)
        costs = np.unique(np.concatenate([own["runs"].to_numpy(float) for own in repeats]))
        costs = costs[costs >= first]
        columns: dict[str, Any] = {"search": name, "runs": costs}
        for field, word in (("incumbent_test", "test"), ("regret", "regret")):
            steps = np.array(
                [
                    value_at(own["runs"].to_numpy(float), own[field].to_numpy(float), costs)
                    for own in repeats
                ]
            )
            low, middle, high = np.quantile(steps, [0.25, 0.5, 0.75], axis=0)
            columns |= {word: middle, f"{word}_low": low, f"{word}_high": high}
        rows.append(pd.DataFrame(columns))
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()


def _random(cells: AllCells, most_runs: float) -> pd.DataFrame:
    """Expected test score and regret of the best of n drawn cells, at their expected cost."""
    count = cells.select[..., 0].size
    cost = float(cells.runs.mean())
    most = min(count, max(1, int(np.ceil(most_runs / cost))))
    mean_select = cells.select.mean(axis=-1).ravel()
    found: dict[str, list[Array]] = {"test": [], "regret": []}
    for place in range(cells.select.shape[-1]):
        select = cells.select[..., place].ravel()
        test = cells.test[..., place].ravel()
        regret = cells.best_select - mean_select
        found["test"].append(expected_best(select, test, most))
        found["regret"].append(expected_best(select, regret, most))
    columns = {name: np.mean(each, axis=0) for name, each in found.items()}
    return pd.DataFrame(
        {"trials": range(1, most + 1), "runs": cost * np.arange(1, most + 1)} | columns
    )


def _restarts(recorded: Recorded, told: pd.DataFrame) -> pd.DataFrame:
    """What starting a learned search again would bring; all recorded seeds of its cell count."""
    trials = recorded.trials
    rows = []
    for name in recorded.comparison.learned:
        ran = trials["cell"].loc[told[told["search"] == name]["trial_id"]]
        own = trials[trials["cell"].isin(ran)]
        if len(own) < 2:
            continue
        select, test = (own[name].to_numpy(float) for name in (recorded.select, recorded.test))
        cost = float(own["device_s"].mean()) / recorded.comparison.reference.device_s
        for starts, best in enumerate(expected_best(select, test, len(own)), 1):
            rows.append({"search": name, "starts": starts, "runs": starts * cost, "test": best})
    return pd.DataFrame(rows, columns=["search", "starts", "runs", "test"])
