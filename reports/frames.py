"""Numbers of a report, as plain DataFrames. Draws nothing, trains nothing, reads only the store.

Accuracies are in percent. A diverged trial scores chance and is marked; a failed or missing one has
no score (NaN). No row is ever dropped.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from harness.index import COSTS, OVERALL, Summary, in_bulk, summaries
from harness.runs import read_run
from harness.store import Store
from harness.study import Axis, Points, Study, in_words

COUNTS = ("trainable_params", "head_params", "epochs_run", "tested_epoch")
GRID_STATUSES = ("COMPLETE", "DIVERGED", "FAILED", "MISSING")
STATUSES = ("COMPLETE", "DIVERGED", "PRUNED", "FAILED", "MISSING")


@dataclass(frozen=True, kw_only=True)
class Run:
    """A study as it was run: `trials` has one row per cell and seed, in the study's order."""

    study: Study
    store: Path
    environment: dict[str, str]
    trials: pd.DataFrame
    cells: list[dict[str, Any]]
    """Every configuration: those of the axes, or, on a space of its own, those a search tried."""
    on_axes: bool
    searches: dict[int, list[dict[str, Any]]]
    """Number -> log of every search; empty for a grid."""
    cell_numbers: NDArray[np.int64]
    """Which of `cells` each row of `trials` belongs to."""
    groups: tuple[str, ...]
    """Names of the dataset's groups, head first; empty until a trial has finished."""
    chance: float
    """Accuracy of guessing, percent; NaN until a trial has finished."""

    @property
    def fields(self) -> list[str]:
        return list(dict.fromkeys(field for cell in self.cells for field in cell))

    @property
    def seeds(self) -> tuple[int, ...]:
        """Training seeds; a search may add to those of the study."""
        return tuple(sorted({*self.study.seeds, *map(int, self.trials["seed"])}))

    @property
    def selected_on_test(self) -> bool:
        return self.study.base.data.select_on == "test"

    def label(self, field: str) -> str:
        """The words for a field: its axis's, or its name."""
        labels = {axis.field: axis.label for axis in self.study.axes}
        return labels.get(field, field)

    def words(self, value: Any) -> str:
        """A field's value, as it stands in the frames, in a sentence."""
        if isinstance(value, str) and value[:1] in ("{", "["):
            return f"{in_words(json.loads(value))} (see metrics.csv)"
        return in_words(None if pd.isna(value) else value)

    def axis(self, field: str) -> Axis:
        return next(axis for axis in self.study.axes if axis.field == field)

    def order(self, field: str) -> list[Any]:
        """The axis's values as they stand in the frames."""
        return [_plain(value) for value in self.axis(field).values]


@in_bulk()
def load_run(folder: Path) -> Run:
    """Read a run folder `<root>/studies/<run>` and its trials' records from `<root>`.

    Raises:
        UserError: the folder is not a run.
    """
    files = read_run(folder)
    store = Store(folder.parent.parent)
    ended = summaries(store, {asked.trial_id for asked in files.asked})
    scored = next((ended[a.trial_id] for a in files.asked if _is_scored(ended, a.trial_id)), None)
    groups = tuple(scored.groups) if scored else ()
    tried = {_key(asked.cell): asked.cell for asked in files.asked}
    cells = files.study.cells()
    on_axes = tried.keys() <= {_key(cell) for cell in cells}
    if not on_axes:
        cells = list(tried.values())
    numbers = {_key(cell): number for number, cell in enumerate(cells)}
    cell_numbers = np.array([numbers[_key(asked.cell)] for asked in files.asked], dtype=int)
    cells = [{field: _plain(value) for field, value in cell.items()} for cell in cells]
    fields = list(dict.fromkeys(field for cell in cells for field in cell))
    values = {field: [cells[n].get(field) for n in cell_numbers] for field in fields}
    ids = {"seed": [a.seed for a in files.asked], "trial_id": [a.trial_id for a in files.asked]}
    results = pd.DataFrame(
        [_row(ended.get(asked.trial_id), groups) for asked in files.asked], columns=_columns(groups)
    )
    return Run(
        study=files.study,
        on_axes=on_axes,
        cells=cells,
        store=folder.parent.parent,
        environment=files.environment,
        searches=files.searches,
        trials=pd.concat([pd.DataFrame({**values, **ids}), results], axis=1),
        cell_numbers=cell_numbers,
        groups=groups,
        chance=100 / scored.num_classes if scored else float("nan"),
    )


def _key(cell: dict[str, Any]) -> str:
    return json.dumps(cell, sort_keys=True)


def _plain(value: Any) -> Any:
    is_list = isinstance(value, list | tuple)
    if isinstance(value, dict) or (is_list and value and isinstance(value[0], dict)):
        return json.dumps(value)
    return "+".join(str(part) for part in value) if isinstance(value, list | tuple) else value


def _is_scored(ended: dict[str, Summary], trial_id: str) -> bool:
    return trial_id in ended and ended[trial_id].test is not None


def _columns(groups: tuple[str, ...]) -> list[str]:
    """Names for what `_row` gives."""
    names = ["status", *(f"select_{name}" for name in (*OVERALL, *groups))]
    names += [f"test_{name}" for name in OVERALL]
    for group in groups:
        names += [f"test_{group}", f"binomial_{group}", f"distance_{group}"]
    return [*names, *COUNTS, *COSTS]


def _row(trial: Summary | None, groups: tuple[str, ...]) -> list[Any]:
    nan = float("nan")
    if trial is None:
        return ["MISSING"] + [nan] * (len(_columns(groups)) - 1)
    guess = 100 / trial.num_classes if trial.status == "DIVERGED" else nan
    row: list[Any] = [trial.status]
    for is_test, scores in ((False, trial.select), (True, trial.test)):
        if scores is None or trial.status == "PRUNED":  # part of a training is not a cell's score
            row += [guess] * len(OVERALL)
            row += [guess, nan, nan] * len(groups) if is_test else [guess] * len(groups)
            continue
        row += [100 * value for value in scores[: len(OVERALL)] if value is not None]
        count = len(trial.groups)
        for group in groups:
            place = len(OVERALL) + trial.groups.index(group)
            accuracy, error, distance = (scores[place + n * count] for n in range(3))
            row.append(nan if accuracy is None else 100 * accuracy)
            if is_test:
                row += [
                    nan if error is None else 100 * error,
                    nan if distance is None else distance,
                ]
    row += [getattr(trial, name) for name in COUNTS]
    return row + trial.costs


def search_answers(run: Run) -> pd.DataFrame:
    """What each search learned, in that order: a row per answer, with its `repeat` first."""
    name = f"test_{run.study.objective}"
    trials = run.trials.drop_duplicates("trial_id")
    tests = dict(zip(trials["trial_id"], trials[name], strict=True))
    rows = [
        {"repeat": repeat, **row}
        for repeat, events in run.searches.items()
        for row in answers(events, tests)
    ]
    return pd.DataFrame(rows)


def answers(events: list[dict[str, Any]], tests: dict[str, float]) -> list[dict[str, Any]]:
    """The answers in a search's log, in their order.

    Number, trial and status, its selection score, its cost and the sum so far, and the incumbent:
    the best selection score of a whole trial so far (of equal ones, the first), that trial and its
    test score.
    """
    rows = []
    spent, spent_flops, best, best_test = 0.0, 0, float("nan"), float("nan")
    incumbent = ""
    for number, event in enumerate((e for e in events if "tell" in e), start=1):
        spent += event["device_s"]
        spent_flops += event["flops"]
        objective = event["objective"]
        score = float("nan") if objective is None else 100 * objective
        whole = event["status"] in ("COMPLETE", "DIVERGED")
        if whole and not score <= best:
            incumbent = event["tell"]
            best, best_test = score, float(tests[incumbent])
        rows.append(
            {
                "number": number,
                "trial_id": event["tell"],
                "status": event["status"],
                "epochs": event["epochs"],
                "select": score,
                "device_s": event["device_s"],
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


def proposed(logs: list[list[dict[str, Any]]]) -> tuple[int, int]:
    """As `proposals`, of these logs together."""
    asked = [
        [_key(e["ask"]) if e["ask"] else e["trial"] for e in log if "ask" in e] for log in logs
    ]
    return sum(map(len, asked)), sum(len(each) - len(set(each)) for each in asked)


def summarise(run: Run) -> pd.DataFrame:
    """One row per cell: mean over seeds and 95 % Student-t half-width `_ci` of every accuracy.

    The half-width is NaN with fewer than two seeds. `n` counts the seeds that have a score.
    """
    names = [*OVERALL, *run.groups]
    scores = [f"{part}_{name}" for part in ("select", "test") for name in names]
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


def mean_and_half_width(values: pd.Series[float]) -> tuple[float, float]:
    """Mean and 95 % Student-t half-width; NaN where they do not exist."""
    known = values.dropna().to_numpy(dtype=float)
    if len(known) == 0:
        return float("nan"), float("nan")
    if len(known) == 1:
        return float(known[0]), float("nan")
    error = known.std(ddof=1) / np.sqrt(len(known))
    return float(known.mean()), float(stats.t.ppf(0.975, len(known) - 1) * error)


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


def choose(run: Run, summary: pd.DataFrame) -> Choice | None:
    """Best cell by seed-mean selection score (ties: the study's first); None without scores.

    Nuisance axes are chosen by the same rule, because the best of all cells is also the best
    within its scientific cell.
    """
    metric = run.study.objective
    known = summary[summary[f"select_{metric}"].notna() & summary[f"test_{metric}"].notna()]
    if known.empty:
        return None
    best = int(known[f"select_{metric}"].to_numpy().argmax())
    oracle = int(known[f"test_{metric}"].to_numpy().argmax())
    # Taken column by column: a row by itself would turn whole numbers into floats.
    cell = {field: known[field].iloc[best] for field in run.fields}
    return Choice(
        cell=cell,
        row=known.iloc[best],
        at_edge=tuple(f for f in run.fields if _at_edge(run, f, cell[f])),
        oracle={field: known[field].iloc[oracle] for field in run.fields},
        oracle_score=float(known[f"test_{metric}"].iloc[oracle]),
    )


def minus_chosen(run: Run, field: str, choice: Choice) -> dict[Any, tuple[float, float]]:
    """Each value's test objective minus that of the chosen cell: mean and half-width of the
    differences paired by seed, so that what a seed does to all cells alike is out of them."""
    name = f"test_{run.study.objective}"
    scores = run.trials.pivot_table(index="seed", columns=field, values=name, aggfunc="mean")
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
    """One row per scientific cell, at the nuisance values that the selection score prefers."""
    nuisance = {axis.field for axis in run.study.axes if axis.role == "nuisance"}
    fields = [field for field in run.fields if field not in nuisance]
    if len(fields) == len(run.fields):
        return summary
    return _preferred(run, summary, fields)


def _preferred(run: Run, summary: pd.DataFrame, fields: list[str]) -> pd.DataFrame:
    """Of the rows with equal `fields`, the one with the best selection score."""
    # Without any score the first row stands for the cell, so that holes stay visible.
    score = summary[f"select_{run.study.objective}"].fillna(-1.0)
    best = score.groupby([summary[field] for field in fields], sort=False).idxmax()
    return summary.loc[best].reset_index(drop=True)


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


@dataclass(frozen=True, kw_only=True)
class Paper:
    """Numbers of the paper for a single axis, on one of its datasets."""

    dataset: str
    """`all` for averages over several."""
    title: str
    table: pd.DataFrame
    """A row per value, the axis's first, and a column per group or average."""
    source: str


def paper_tables(run: Run, rows: str, *columns: str) -> list[Paper]:
    """What the paper prints for the values of an axis, from its tables that have these columns."""
    found = []
    for name in run.study.references:
        if {rows, "dataset", *columns} <= set(read_paper(name).columns):
            found += paper_by_dataset(name, rows, run.order(rows))
    return found


def paper_by_dataset(name: str, rows: str, first: Sequence[Any] = ()) -> list[Paper]:
    """A file of the paper's numbers, a table per dataset; the values in `first` come first."""
    found = []
    for dataset, part in read_paper(name).groupby("dataset", sort=False):
        table = part.drop(columns=["dataset", "source"]).set_index(rows).dropna(axis=1, how="all")
        order = [*first, *(value for value in table.index if value not in first)]
        source = str(part["source"].iloc[0])
        where = {"all": ", all datasets", "not stated": ""}.get(str(dataset), f", {dataset}")
        found.append(
            Paper(
                dataset=str(dataset),
                title=source.split(",")[0] + where,
                table=table.reindex(order),
                source=source,
            )
        )
    return found


def read_paper(name: str) -> pd.DataFrame:
    """A file of the paper's numbers."""
    return pd.read_csv(str(resources.files("baselines") / "paper" / f"{name}.csv"))


def paper_grid(run: Run, rows: str, columns: str) -> tuple[pd.DataFrame, str] | None:
    """The paper's numbers in the same shape and where they were read; None without a reference."""
    for name in run.study.references:
        published = read_paper(name)
        if {rows, columns} <= set(published.columns):
            table = published.set_index([rows, columns])["class_mean"].unstack(columns)
            source = str(published["source"].mode()[0])
            return table.reindex(index=run.order(rows), columns=run.order(columns)), source
    return None


class Unit(NamedTuple):
    """How a cost is shown."""

    words: str
    size: float
    """Of one unit, in what the record has."""


COST_UNITS = {
    "device_s": Unit("training (device s)", 1.0),
    "flops": Unit("training (TFLOP)", 1e12),
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
    table = {}
    for value in values:
        own = run.trials[run.trials[view.rows] == value]
        row = {"DIVERGED": float((own["status"] == "DIVERGED").sum())}
        for name in names:
            unit = COST_UNITS[name].size if view.value == "cost" else 1.0
            row[name], row[f"{name}_ci"] = mean_and_half_width(own[name] / unit)
        table[value] = row
    return pd.DataFrame(table).T


def bubbles_of(run: Run, rows: str) -> pd.DataFrame:
    """One row per value of an axis: mean overall and tail test accuracy, and the seeds' spread.

    `overall` is the objective, `tail` the dataset's last group, `spread` the standard deviation of
    `overall` over seeds, NaN with fewer than two.
    """
    overall = f"test_{run.study.objective}"
    tail = f"test_{run.groups[-1]}" if run.groups else overall
    by = run.trials.groupby(rows, sort=False)
    table = pd.DataFrame(
        {"overall": by[overall].mean(), "tail": by[tail].mean(), "spread": by[overall].std()}
    )
    return table.reindex(run.order(rows))
