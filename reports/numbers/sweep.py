"""Numbers of a report, as plain DataFrames. Draws nothing, trains nothing, reads only the store.

Accuracies are in percent. A diverged trial scores chance and is marked; a failed or missing one has
no score (NaN). No row is ever dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from harness.metrics import OVERALL
from harness.reports.numbers.run import (
    GRID_STATUSES,
    STATUSES,
    Run,
)
from harness.reports.numbers.statistics import mean_and_half_width
from harness.store.records import DONE
from harness.store.search_log import Event, asks, tells
from harness.study.figures import Points
from harness.study.space import cell_key


def search_answers(run: Run) -> pd.DataFrame:
    """What each search learned, in that order: a row per answer, with its `repeat` first."""
    trials = run.trials.drop_duplicates("trial_id")
    tests = dict(zip(trials["trial_id"], trials[run.test], strict=True))
    rows = [
        {"repeat": repeat, **row}
        for repeat, events in run.searches.items()
        for row in answers(events, tests, run.scale.factor)
    ]
    return pd.DataFrame(rows)


def answers(
    events: list[Event], tests: dict[str, float], factor: float = 100.0
) -> list[dict[str, Any]]:
    """The answers in a search's log, in their order.

    Number, trial and status, its selection score, its cost and the sum so far, and the incumbent:
    the best selection score of a whole trial so far (of equal ones, the first), that trial and its
    test score. `factor` is that of the objective's `Scale`.
    """
    rows = []
    spent, spent_flops, best, best_test = 0.0, 0, float("nan"), float("nan")
    incumbent = ""
    for number, event in enumerate(tells(events), start=1):
        spent += event.device_s
        spent_flops += event.flops
        objective = event.objective
        score = float("nan") if objective is None else factor * objective
        whole = event.status in DONE
        if whole and not score <= best:
            incumbent = event.trial_id
            best, best_test = score, float(tests[incumbent])
        rows.append(
            {
                "number": number,
                "trial_id": event.trial_id,
                "status": event.status,
                "epochs": event.epochs,
                "select": score,
                "device_s": event.device_s,
                "spent_device_s": spent,
                "spent_flops": spent_flops,
                "incumbent_select": best,
                "incumbent_test": best_test,
                "incumbent": incumbent,
            }
        )
    return rows


def proposals(run: Run) -> tuple[int, int]:
    """How often the searches proposed a configuration, and how often one they had had before."""
    return proposed(list(run.searches.values()))


def proposed(logs: list[list[Event]]) -> tuple[int, int]:
    """As `proposals`, of these logs together."""
    asked = [[cell_key(e.params) if e.params else e.trial_id for e in asks(log)] for log in logs]
    return sum(map(len, asked)), sum(len(each) - len(set(each)) for each in asked)


def summarise(run: Run) -> pd.DataFrame:
    """One row per cell: mean over seeds and 95 % Student-t half-width `_ci` of every accuracy.

    The half-width is NaN with fewer than two seeds. `n` counts the seeds that have a score.
    """
    names = [*OVERALL, *run.groups]
    scores = [f"{part}_{name}" for part in ("select", "test") for name in names]
    scores += [] if run.select in scores else [run.select]
    by_cell = run.trials.groupby(run.cell_numbers)
    found = by_cell[scores].agg(["mean", "std", "count"]).reindex(range(len(run.cells)))
    summary: dict[str, Any] = {
        field: [cell.get(field) for cell in run.cells] for field in run.fields
    }
    for status in STATUSES if run.searches else GRID_STATUSES:
        counts = (run.trials["status"] == status).groupby(run.cell_numbers).sum()
        summary[status] = counts.reindex(range(len(run.cells)), fill_value=0).astype(int)
    summary["n"] = found["test_class_mean", "count"].fillna(0).astype(int)
    summary["trainable_params"] = by_cell["trainable_params"].max().reindex(found.index)
    for name in scores:
        count = found[name, "count"].to_numpy()
        error = found[name, "std"] / np.sqrt(count)
        summary[name] = found[name, "mean"]
        summary[f"{name}_ci"] = stats.t.ppf(0.975, np.maximum(count - 1, 1)) * error
    return pd.DataFrame(summary)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The cell chosen by the selection score, and what choosing so cost."""

    cell: dict[str, Any]
    row: pd.Series[Any]
    at_edge: tuple[str, ...]
    """Axes of numbers at whose end the choice lies, so that more might lie beyond."""
    oracle: dict[str, Any]
    oracle_score: float
    """The cell with the best test score, which no honest search can know; percent."""
    gap: tuple[float, float]
    """That cell's test score minus the chosen one's, in points, with the half-width of the
    differences paired by seed, which is NaN where seeds do not pair."""
    scored: int
    """Cells that have both scores."""


def choose(run: Run, summary: pd.DataFrame) -> Choice | None:
    """Best cell by seed-mean selection score (ties: the study's first); None without scores.

    Nuisance axes are chosen by the same rule, because the best of all cells is also the best
    within its scientific cell.
    """
    select, test = run.select, run.test
    known = summary[summary[select].notna() & summary[test].notna()]
    if known.empty:
        return None
    best = int(known[select].to_numpy().argmax())
    oracle = int(known[test].to_numpy().argmax())
    # Taken column by column: a row by itself would turn whole numbers into floats.
    cell = {field: known[field].iloc[best] for field in run.fields}
    return Choice(
        cell=cell,
        row=known.iloc[best],
        at_edge=tuple(f for f in run.fields if _at_edge(run, f, cell[f])),
        oracle={field: known[field].iloc[oracle] for field in run.fields},
        oracle_score=float(known[test].iloc[oracle]),
        gap=_gap(run, known.iloc[best], known.iloc[oracle]),
        scored=len(known),
    )


def _gap(run: Run, chosen: pd.Series[Any], oracle: pd.Series[Any]) -> tuple[float, float]:
    """As `Choice.gap`."""
    scores = run.trials[["seed", run.test]].dropna()
    cells = run.cell_numbers[scores.index]
    one, other = (scores[cells == row.name].set_index("seed")[run.test] for row in (oracle, chosen))
    is_paired = one.index.is_unique and other.index.is_unique
    if is_paired and set(one.index) == set(other.index):
        return mean_and_half_width(one - other)
    return float(oracle[run.test] - chosen[run.test]), float("nan")


class BestTrial(NamedTuple):
    """One trial to be used, of the cell that was chosen."""

    cell: dict[str, Any]
    seed: int
    trial_id: str


def best_trial(run: Run) -> BestTrial | None:
    """Of the cell that `choose` chooses, the trial with the best selection score (ties: the first
    seed); None without scores."""
    choice = choose(run, summarise(run))
    if choice is None:
        return None
    own = run.trials[(run.cell_numbers == choice.row.name) & (run.trials["status"] == "COMPLETE")]
    if own.empty:
        return None
    own = own.sort_values("seed", kind="stable")
    place = int(own[run.select].to_numpy().argmax())
    row = own.iloc[place]
    return BestTrial(choice.cell, int(row["seed"]), str(row["trial_id"]))


def minus_chosen(run: Run, field: str, choice: Choice) -> dict[Any, tuple[float, float]]:
    """Each value's test score minus that of the chosen cell: mean and half-width of the
    differences paired by seed, so that what a seed does to all cells alike is out of them; NaN
    where it has no score."""
    shown = at_preferred(run)
    scores = shown.pivot_table(index="seed", columns=field, values=run.test, aggfunc="mean")
    scores = scores.reindex(columns=run.order(field))
    chosen = scores[choice.cell[field]]
    return {value: mean_and_half_width(scores[value] - chosen) for value in scores.columns}


def _at_edge(run: Run, field: str, value: Any) -> bool:
    if not run.on_axes:
        return False
    values = run.order(field)
    # Not depths, which end where the network does; nor 0, below which no strength or weight lies.
    numbers = all(isinstance(v, int | float) for v in values)
    return numbers and len(values) > 1 and value in (values[0], values[-1]) and value != 0


def over_nuisance(run: Run, summary: pd.DataFrame) -> pd.DataFrame:
    """One row per scientific cell, at the nuisance values that the selection score prefers; the
    index is the cell's number still."""
    nuisance = {axis.field for axis in run.study.axes if axis.role == "nuisance"}
    fields = [field for field in run.fields if field not in nuisance]
    if len(fields) == len(run.fields):
        return summary
    return _preferred(run, summary, fields)


def at_preferred(run: Run) -> pd.DataFrame:
    """The trials of the cells of `over_nuisance`; all of them where no axis is nuisance."""
    if all(axis.role == "scientific" for axis in run.study.axes):
        return run.trials
    return run.trials[np.isin(run.cell_numbers, over_nuisance(run, summarise(run)).index)]


def _preferred(run: Run, summary: pd.DataFrame, fields: list[str]) -> pd.DataFrame:
    """Of the rows with equal `fields`, the one with the best selection score."""
    # Without any score the first row stands for the cell, so that holes stay visible.
    score = summary[run.select].fillna(-np.inf)
    best = score.groupby([summary[field] for field in fields], sort=False).idxmax()
    return summary.loc[best]


def grid(run: Run, summary: pd.DataFrame, rows: str, columns: str, value: str) -> pd.DataFrame:
    """`value` as a rows x columns table with every cell of the axes, in the study's order.

    Further axes take the values that the selection score prefers there, as a user would choose
    them: a mean over them would be that of settings that nobody would use.
    """
    shown = _preferred(run, summary, [rows, columns])
    table = shown.set_index([rows, columns])[value].unstack(columns)
    return table.reindex(index=run.order(rows), columns=run.order(columns))


def projected(run: Run, rows: str, columns: str) -> list[str]:
    """Labels of the axes that a table of two does not show, apart from nuisance ones."""
    shown = (rows, columns)
    axes = run.study.axes
    return [a.label for a in axes if a.field not in shown and a.role == "scientific"]


class Unit(NamedTuple):
    """How a cost is shown."""

    words: str
    size: float
    """Of one unit, in what the record has."""


COST_UNITS = {
    "device_s": Unit("training and scoring (device s)", 1.0),
    "flops": Unit("training and scoring (TFLOP)", 1e12),
    "inference_flops": Unit("inference (MFLOP per image)", 1e6),
    "trainable_params": Unit("trainable parameters beside the head (thousands)", 1e3),
}


def by_value(run: Run, summary: pd.DataFrame, view: Points) -> pd.DataFrame:
    """One row per value of an axis, with mean and half-width `_ci` of what the view shows."""
    values = run.order(view.rows)
    if view.value == "accuracy":
        return summary.set_index(view.rows).reindex(values)
    names = [f"distance_{group}" for group in run.groups]
    if view.value == "cost":
        names = list(COST_UNITS)
    table, shown = {}, at_preferred(run)
    for value in values:
        own = shown[shown[view.rows] == value]
        row = {"DIVERGED": float((own["status"] == "DIVERGED").sum())}
        for name in names:
            unit = COST_UNITS[name].size if view.value == "cost" else 1.0
            row[name], row[f"{name}_ci"] = mean_and_half_width(own[name] / unit)
        table[value] = row
    return pd.DataFrame(table).T


def bubbles_of(run: Run, rows: str) -> pd.DataFrame:
    """One row per value of an axis: mean overall and tail test accuracy, and the seeds' spread.

    `overall` is the class mean, `tail` the dataset's last group, `spread` the standard deviation of
    `overall` over seeds, NaN with fewer than two, `DIVERGED` how many of its trials did.
    """
    overall = run.test
    tail = f"test_{run.groups[-1]}" if run.groups else overall
    by = at_preferred(run).groupby(rows, sort=False)
    table = pd.DataFrame(
        {
            "overall": by[overall].mean(),
            "tail": by[tail].mean(),
            "spread": by[overall].std(),
            "DIVERGED": by["status"].agg(lambda own: own.eq("DIVERGED").sum()),
        }
    )
    return table.reindex(run.order(rows))
