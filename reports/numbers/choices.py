"""What searches have chosen by a cost that all of them were given, and how they compare there.

Every choice is by the selection score, and what is shown of it is its test score. Accuracies are in
percent, a selection loss is negated, so that more is better; cost is in full runs: device seconds
over those of the reference.

Owns: the common cost, the choices and a row per search. Must not know: lines against cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from harness.reports.numbers.incumbents import with_incumbent
from harness.reports.numbers.landscape import AllCells
from harness.reports.numbers.recorded import Recorded
from harness.reports.numbers.statistics import (
    Judgement,
    area,
    cost_to,
    judge,
    mean_and_half_width,
)
from harness.reports.numbers.sweep import proposed
from harness.store.search_log import best_cells
from harness.store.table import cell_key


@dataclass(frozen=True, kw_only=True)
class Choices:
    """Searches at one cost."""

    at: float
    """That cost: what each of them was given at least, by its median over repeats."""
    final: pd.DataFrame
    """A row per search and repeat: its incumbent at that cost, and what became of it."""
    table: pd.DataFrame
    """A row per search: means over repeats with half-widths `_ci`, costs and counts of answers."""
    judgement: Judgement
    reference: str
    """The search that others are compared to."""

    @property
    def judged(self) -> pd.DataFrame:
        """`table` with what the judgement says of each search."""
        return self.table.join(self.judgement.table)


def choices(recorded: Recorded, told: pd.DataFrame, cells: AllCells | None) -> Choices:
    """Choices by the answers `told` (see `incumbents.all_answers`)."""
    comparison = recorded.comparison
    spent = told.groupby(["search", "repeat"], sort=False)["runs"].max()
    typical = spent.groupby("search", sort=False).median()
    whole = [name for name in typical.index if name not in comparison.given]
    at = float(typical[whole].min() if whole else typical.max())
    final = _final(recorded, told, at).merge(_confirmed(recorded), on=["search", "repeat"])
    names = list(dict.fromkeys(final["search"]))
    reference = "random" if "random" in names else names[0]
    values = {name: final[final["search"] == name]["test"].to_numpy(float) for name in names}
    seeds = np.array([comparison.seed(repeat) for repeat in range(comparison.most_repeats)])
    return Choices(
        at=at,
        final=final,
        table=_by_search(recorded, told, final, cells, at),
        judgement=judge(values, seeds, reference, comparison.learned),
        reference=reference,
    )


def _final(recorded: Recorded, told: pd.DataFrame, at: float) -> pd.DataFrame:
    """The incumbents at one cost; without scores where a repeat had none by then."""
    trials, groups, test = recorded.trials, recorded.groups, recorded.test
    tests = trials[test].to_dict()
    elsewhere = _ElsewhereScored(trials, recorded.select)
    rows = []
    for (name, repeat), own in told.groupby(["search", "repeat"], sort=False):
        has_one = (own["runs"] <= at).to_numpy() & (own["incumbent"] != "").to_numpy()
        within = np.flatnonzero(has_one)
        row: dict[str, Any] = {
            "search": name,
            "repeat": repeat,
            "seed": recorded.comparison.seed(int(str(repeat))),
            "runs": own["runs"].max(),
            "flop_runs": own["flop_runs"].max(),
            "trials": len(own),
        }
        if len(within):
            last = own.iloc[within[-1]]
            trial = trials.loc[last["incumbent"]]
            ended = own.iloc[within][["trial_id", "status"]].itertuples(index=False)
            tested = [tests[trial_id] for trial_id, status in ended if status == "COMPLETE"]
            row |= {
                "cell": trial["cell"],
                "select": last["incumbent_select"],
                "test": trial[test],
                **{group: trial[f"test_{group}"] for group in groups},
                **{f"binomial_{group}": trial[f"binomial_{group}"] for group in groups},
                "regret": last["regret"],
                "test_regret": last["test_regret"],
                "missed": max(tested, default=trial[test]) - trial[test],
                "luck": last["incumbent_select"] - elsewhere.mean(str(last["incumbent"])),
            }
        rows.append(row)
    columns = ["cell", "select", "test", *groups, *(f"binomial_{g}" for g in groups)]
    columns = [*columns, "regret", "test_regret", "missed", "luck"]
    found = pd.DataFrame(rows)
    return found.reindex(columns=list(dict.fromkeys([*found.columns, *columns])))


class _ElsewhereScored:
    """Mean scores of a trial's cell on the other seeds; each is computed once."""

    def __init__(self, trials: pd.DataFrame, name: str) -> None:
        self._trials, self._name = trials, name
        self._by_place = trials.reset_index().groupby("cell")
        self._known: dict[str, float] = {}

    def mean(self, trial_id: str) -> float:
        """NaN without other seeds."""
        if trial_id not in self._known:
            trial = self._trials.loc[trial_id]
            fellows = self._by_place.get_group(str(trial["cell"]))
            fellows = fellows[fellows["seed"] != trial["seed"]]
            self._known[trial_id] = float(fellows[self._name].mean())
        return self._known[trial_id]


def _confirmed(recorded: Recorded) -> pd.DataFrame:
    """Of each repeat: its best, and the one of its k best that unseen seeds confirm.

    Both by test score on the unseen seeds; `confirm_runs` is what training them cost.
    """
    comparison, test = recorded.comparison, recorded.test
    by_place = recorded.trials.reset_index().set_index(["cell", "seed"]).sort_index()
    rows = []
    for (name, repeat), events in recorded.logs.items():
        unseen = [s for s in comparison.confirm_seeds if s != comparison.seed(repeat)]
        row: dict[str, Any] = {"search": name, "repeat": repeat}
        row |= dict.fromkeys(("first_again", "confirmed", "confirm_runs"), float("nan"))
        again = []
        for cell, _ in best_cells(events, comparison.confirm):
            places = [(cell_key(cell), seed) for seed in unseen]
            if places and all(place in by_place.index for place in places):
                again.append(by_place.loc[places])
        if again:
            best = max(again, key=lambda found: float(found[recorded.select].mean()))
            row["first_again"] = again[0][test].mean()
            row["confirmed"] = best[test].mean()
            seconds = sum(float(found["device_s"].sum()) for found in again)
            row["confirm_runs"] = seconds / comparison.reference.device_s
        rows.append(row)
    return pd.DataFrame(rows)


def _by_search(
    recorded: Recorded, told: pd.DataFrame, final: pd.DataFrame, cells: AllCells | None, at: float
) -> pd.DataFrame:
    rows = []
    names = ["test", "select", *recorded.groups, "regret", "test_regret", "missed", "luck"]
    names += ["first_again", "confirmed"]
    start = _common_start(recorded, told)
    for name in dict.fromkeys(final["search"]):
        own, answers = final[final["search"] == name], told[told["search"] == name]
        row: dict[str, Any] = {"search": name, "repeats": len(own)}
        for field in names:
            row[field], row[f"{field}_ci"] = mean_and_half_width(own[field])
        for group in recorded.groups:
            row[f"binomial_{group}"] = own[f"binomial_{group}"].mean()
        row |= {f: own[f].median() for f in ("runs", "flop_runs", "trials", "confirm_runs")}
        row |= _regret_over_cost(answers, cells, start, at)
        logs = [recorded.logs[name, repeat] for repeat in own["repeat"]]
        row["proposals"], row["repeated"] = proposed(logs)
        whole = answers[answers["status"].isin(["COMPLETE", "DIVERGED"])]
        row["answers"] = len(answers)
        for status in ("DIVERGED", "FAILED", "PRUNED"):
            row[status] = int((answers["status"] == status).sum())
        accuracies = recorded.trials["select_class_mean"].loc[whole["trial_id"]]
        row["collapsed"] = int((accuracies < 2 * recorded.chance).sum())
        rows.append(row)
    return pd.DataFrame(rows).set_index("search")


def _common_start(recorded: Recorded, told: pd.DataFrame) -> float:
    """The cost at which every repeat of every search that goes on has an incumbent."""
    steps = with_incumbent(told[~told["search"].isin(recorded.comparison.learned)])
    if steps.empty:
        return float("nan")
    return float(steps.groupby(["search", "repeat"])["runs"].min().max())


def _regret_over_cost(
    answers: pd.DataFrame, cells: AllCells | None, start: float, at: float
) -> dict[str, float | int]:
    """Of a search's repeats: area under the regret, median cost to the target, how many got there.

    NaN and 0 without a table.
    """
    areas, reached = [], []
    for _, own in answers.groupby("repeat", sort=False):
        steps = with_incumbent(own)
        if cells is not None and len(steps):
            costs, regrets = steps["runs"].to_numpy(float), steps["regret"].to_numpy(float)
            areas.append(area(costs, regrets, start, at))
            reached.append(cost_to(costs, regrets, cells.target))
    mean, half = mean_and_half_width(pd.Series(areas, dtype=float))
    return {
        "area": mean,
        "area_ci": half,
        "cost_to": float(np.median(reached)) if reached else float("nan"),
        "reached": int(np.isfinite(reached).sum()),
    }
