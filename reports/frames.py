"""Numbers of a report, as plain DataFrames. Draws nothing, trains nothing, reads only the store.

Accuracies are in percent. A diverged trial scores chance and is marked; a failed or missing one has
no score (NaN). No row is ever dropped.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from harness.metrics import SplitMetrics
from harness.runs import read_run
from harness.store import Store, TrialRecord
from harness.study import Axis, Study

OVERALL = ("class_mean", "group_mean", "flat_mean", "micro")
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
    groups: tuple[str, ...]
    """Names of the dataset's groups, head first; empty until a trial has finished."""
    chance: float
    """Accuracy of guessing, percent; NaN until a trial has finished."""

    @property
    def fields(self) -> list[str]:
        return list(dict.fromkeys(field for cell in self.cells for field in cell))

    @property
    def selected_on_test(self) -> bool:
        return self.study.base.data.select_on == "test"

    def label(self, field: str) -> str:
        """The words for a field: its axis's, or its name."""
        labels = {axis.field: axis.label for axis in self.study.axes}
        return labels.get(field, field)

    def axis(self, field: str) -> Axis:
        return next(axis for axis in self.study.axes if axis.field == field)

    def order(self, field: str) -> list[Any]:
        """The axis's values as they stand in the frames."""
        return [_plain(value) for value in self.axis(field).values]


def load_run(folder: Path) -> Run:
    """Read a run folder `<root>/studies/<run>` and its trials' records from `<root>`.

    Raises:
        UserError: the folder is not a run.
    """
    files = read_run(folder)
    store = Store(folder.parent.parent)
    records = [store.record(asked.trial_id) for asked in files.asked]
    scored = [record for record in records if record is not None and record.test is not None]
    groups = tuple(scored[0].test.groups) if scored and scored[0].test is not None else ()
    rows = []
    for asked, record in zip(files.asked, records, strict=True):
        values = {field: _plain(value) for field, value in asked.cell.items()}
        ids = {"seed": asked.seed, "trial_id": asked.trial_id}
        rows.append({**values, **ids, **_row(record, groups)})
    cells = files.study.cells()
    own = {axis.field for axis in files.study.axes}
    on_axes = not files.study.space and all(own == set(asked.cell) for asked in files.asked)
    if not on_axes:
        tried = {json.dumps(asked.cell, sort_keys=True): asked.cell for asked in files.asked}
        cells = list(tried.values())
    return Run(
        study=files.study,
        on_axes=on_axes,
        cells=[{field: _plain(value) for field, value in cell.items()} for cell in cells],
        store=folder.parent.parent,
        environment=files.environment,
        searches=files.searches,
        trials=pd.DataFrame(rows),
        groups=groups,
        chance=100 / scored[0].num_classes if scored else float("nan"),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return json.dumps(value)
    return "+".join(str(part) for part in value) if isinstance(value, list | tuple) else value


def _row(record: TrialRecord | None, groups: tuple[str, ...]) -> dict[str, Any]:
    row: dict[str, Any] = {"status": record.status if record else "MISSING"}
    for part in ("select", "test"):
        scores: SplitMetrics | None = getattr(record, part) if record else None
        if record is not None and record.status == "PRUNED":
            scores = None  # a part of a training is not a score of its cell
        diverged = record is not None and record.status == "DIVERGED"
        guess = 1 / record.num_classes if record and diverged else float("nan")
        for name in OVERALL:
            row[f"{part}_{name}"] = 100 * (getattr(scores, name) if scores else guess)
        for group in groups:
            row[f"{part}_{group}"] = 100 * (scores.groups[group] if scores else guess)
            if part == "test":
                row[f"binomial_{group}"] = 100 * scores.groups_se[group] if scores else np.nan
                row[f"distance_{group}"] = scores.distance[group] if scores else float("nan")
    for name in ("trainable_params", "head_params", "epochs_run", "tested_epoch"):
        row[name] = getattr(record, name) if record else None
    for name in ("wall_s", "device_s", "images_forward", "images_backward", "flops"):
        row[name] = getattr(record.cost, name) if record else float("nan")
    row["peak_memory_mb"] = record.cost.peak_memory_mb if record else float("nan")
    return row


def search_answers(run: Run) -> pd.DataFrame:
    """What each search learned, in that order: a row per answer.

    Its repeat, number, trial and status, its selection score, its cost and the sum so far, and the
    incumbent: the best selection score of a whole trial so far, and that trial's test score.
    """
    metric = run.study.objective
    tests = run.trials.drop_duplicates("trial_id").set_index("trial_id")[f"test_{metric}"]
    rows = []
    for repeat, events in run.searches.items():
        spent, best, best_test = 0.0, float("nan"), float("nan")
        answers = [event for event in events if "tell" in event]
        for number, event in enumerate(answers, start=1):
            spent += event["device_s"]
            objective = event["objective"]
            score = float("nan") if objective is None else 100 * objective
            whole = event["status"] in ("COMPLETE", "DIVERGED")
            if whole and not score <= best:
                best, best_test = score, float(tests[event["tell"]])
            rows.append(
                {
                    "repeat": repeat,
                    "number": number,
                    "trial_id": event["tell"],
                    "status": event["status"],
                    "epochs": event["epochs"],
                    "select": score,
                    "device_s": event["device_s"],
                    "spent_device_s": spent,
                    "incumbent_select": best,
                    "incumbent_test": best_test,
                }
            )
    return pd.DataFrame(rows)


def summarise(run: Run) -> pd.DataFrame:
    """One row per cell: mean over seeds and 95 % Student-t half-width `_ci` of every accuracy.

    The half-width is NaN with fewer than two seeds. `n` counts the seeds that have a score.
    """
    names = [*OVERALL, *run.groups]
    scores = [f"{part}_{name}" for part in ("select", "test") for name in names]
    rows = []
    for cell in run.cells:
        mask = np.logical_and.reduce([run.trials[f] == v for f, v in cell.items()])
        some = run.trials[mask]
        row: dict[str, Any] = dict(cell)
        for status in STATUSES if run.searches else GRID_STATUSES:
            row[status] = int((some["status"] == status).sum())
        row["n"] = int(some["test_class_mean"].notna().sum())
        row["trainable_params"] = some["trainable_params"].max()
        for name in scores:
            row[name], row[f"{name}_ci"] = mean_and_half_width(some[name])
        rows.append(row)
    return pd.DataFrame(rows)


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
    """Ordered axes at whose end the choice lies, so that more might lie beyond."""
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
    ordered = field == "depth" or all(isinstance(v, int | float) for v in values)
    return ordered and len(values) > 1 and value in (values[0], values[-1])


def over_nuisance(run: Run, summary: pd.DataFrame) -> pd.DataFrame:
    """One row per scientific cell, at the nuisance values that the selection score prefers."""
    nuisance = {axis.field for axis in run.study.axes if axis.role == "nuisance"}
    fields = [field for field in run.fields if field not in nuisance]
    if len(fields) == len(run.fields):
        return summary
    # Without any score the first row stands for the cell, so that holes stay visible.
    score = summary[f"select_{run.study.objective}"].fillna(-1.0)
    best = score.groupby([summary[field] for field in fields], sort=False).idxmax()
    return summary.loc[best].reset_index(drop=True)


def grid(run: Run, summary: pd.DataFrame, rows: str, columns: str, value: str) -> pd.DataFrame:
    """`value` as a rows x columns table with every cell of the axes, in the study's order.

    Further scientific axes are averaged over.
    """
    # Averaging NaN alone gives NaN, so a hole stays a hole.
    table = summary.groupby([rows, columns], sort=False)[value].mean().unstack(columns)
    return table.reindex(index=run.order(rows), columns=run.order(columns))


def paper_points(run: Run, rows: str) -> tuple[pd.DataFrame, str] | None:
    """The paper's numbers for a single axis, a column per group or average; None without them."""
    if run.study.reference is None:
        return None
    published = pd.read_csv(_paper_file(run.study.reference))
    if rows not in published.columns:
        return None
    table = published.drop(columns="source").set_index(rows).reindex(run.order(rows))
    return table, str(published["source"].mode()[0])


def _paper_file(name: str) -> str:
    return str(resources.files("baselines") / "paper" / f"{name}.csv")


def paper_grid(run: Run, rows: str, columns: str) -> tuple[pd.DataFrame, str] | None:
    """The paper's numbers in the same shape and where they were read; None without a reference."""
    if run.study.reference is None:
        return None
    published = pd.read_csv(_paper_file(run.study.reference))
    if not {rows, columns} <= set(published.columns):
        return None
    table = published.set_index([rows, columns])["class_mean"].unstack(columns)
    source = str(published["source"].mode()[0])
    return table.reindex(index=run.order(rows), columns=run.order(columns)), source
