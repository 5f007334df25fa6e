"""What a table of every cell says of the space itself, whichever search is asked.

Where the best cell lies, what an early epoch tells of the final score, and whether the axes can be
chosen one after the other. Accuracies are in percent; cost is in full runs.

Owns: these numbers. Must not know: searches and their logs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from harness.reports.numbers.recorded import Recorded
from harness.reports.numbers.statistics import (
    Array,
    best_from,
    foretold,
    interactions,
    mean_and_half_width,
    seed_sd,
    separately_best,
)
from harness.search.optuna_search import REDUCTION
from harness.store.table import Table
from harness.study.space import cell_key

FIXED_TARGET = 0.01
"""Regret, in units of `harness.metrics.worth`, that counts as having found the best where no spread
over seeds is known: a point."""


@dataclass(frozen=True, kw_only=True)
class AllCells:
    """Every cell of the space; arrays are `[axis 1, ..., axis k, seeds]`."""

    fields: list[str]
    labels: list[str]
    values: list[tuple[Any, ...]]
    select: Array
    test: Array
    scores: dict[str, Array]
    """Test scores, all classes (`test`) and by group."""
    runs: Array
    """Costs by device seconds."""
    flop_runs: Array
    """Costs by FLOPs."""
    epochs: Array
    """Trained."""
    most_epochs: Array
    """That had to be left in a budget for the trial to begin."""
    means: dict[str, tuple[float, float]]
    """Cell -> mean selection and test score over all seeds of the table."""
    seeds: tuple[int, ...]
    best_select: float
    """Highest mean selection score of a cell."""
    best_test: float
    """Highest mean test score of a cell."""
    best: dict[str, Any]
    """The cell with the highest mean selection score."""
    target: float
    """Regret that counts as having found the best."""


@dataclass(frozen=True, kw_only=True)
class Effects:
    """How far the axes act apart from each other."""

    anova: pd.DataFrame
    """Analysis of variance of the test scores: a row per effect."""
    flat: pd.DataFrame | None
    """The same without the values at which a cell collapses; None if there are none or too many."""
    left_out: str
    """Those values, in words."""
    gaps: pd.DataFrame
    """The jointly best cell, and what cells of separately best values lose against it."""

    @property
    def has_noise(self) -> bool:
        """Whether noise is told apart from interactions, for which it takes two seeds."""
        return bool(self.anova["F"].notna().any())


@dataclass(frozen=True, kw_only=True)
class Landscape:
    """The space of a comparison, as far as its table knows it."""

    cells: AllCells
    fidelity: pd.DataFrame
    """A row per rung of a pruner: its epoch, `tau` and `recall` (see `statistics.foretold`) among
    the cells of a seed, means over seeds."""
    effects: Effects | None
    """None with a single axis."""


def landscape(recorded: Recorded) -> Landscape | None:
    """What the table of a comparison says; None where trials were trained."""
    if recorded.table is None:
        return None
    cells = _all_cells(recorded.table, recorded)
    return Landscape(
        cells=cells,
        fidelity=_fidelity(recorded.table, recorded),
        effects=_effects(cells, recorded) if len(cells.fields) > 1 else None,
    )


def _all_cells(table: Table, recorded: Recorded) -> AllCells:
    trials = recorded.trials
    axes = table.info.study.axes
    seeds = table.info.study.seeds
    shape = [*(len(axis.values) for axis in axes), len(seeds)]
    by_place = trials.reset_index().set_index(["cell", "seed"])
    cells = table.info.study.cells()
    places = [(cell_key(cell), seed) for cell in cells for seed in seeds]
    found = by_place.loc[places]
    select = found[recorded.select].to_numpy(float).reshape(shape)
    test = found[recorded.test].to_numpy(float).reshape(shape)
    groups = {n: found[f"test_{n}"].to_numpy(float).reshape(shape) for n in recorded.groups}
    seconds, flops, epochs = (
        found[name].to_numpy(float).reshape(shape) for name in ("device_s", "flops", "epochs")
    )
    is_whole = (found["status"] == "COMPLETE").to_numpy().reshape(shape)
    reference = recorded.comparison.reference
    best = int(select.mean(axis=-1).argmax())
    sd = seed_sd(select.reshape(-1, len(seeds)))
    means = trials.groupby("cell")[[recorded.select, recorded.test]].mean()
    return AllCells(
        fields=[axis.field for axis in axes],
        labels=[axis.label for axis in axes],
        values=[axis.values for axis in axes],
        select=select,
        test=test,
        scores={"test": test, **groups},
        runs=seconds / reference.device_s,
        flop_runs=flops / reference.flops,
        epochs=epochs,
        most_epochs=np.where(is_whole, epochs, table.info.study.base.recipe.epochs),
        means={str(c): (float(s), float(t)) for c, s, t in means.itertuples()},
        seeds=seeds,
        best_select=float(select.mean(axis=-1).max()),
        best_test=float(test.mean(axis=-1).max()),
        best=cells[best],
        target=recorded.scale.factor * FIXED_TARGET if np.isnan(sd) else sd,
    )


def _fidelity(table: Table, recorded: Recorded) -> pd.DataFrame:
    """What the rungs of a pruner can know of a cell's final score; no row if it was not scored."""
    if table.info.study.base.recipe.score_epochs == "last":
        return pd.DataFrame()
    keys = {cell_key(cell) for cell in table.info.study.cells()}
    epochs = table.info.study.base.recipe.epochs
    final = recorded.trials[recorded.trials["cell"].isin(keys)]
    curves = table.rows[["trial_id", "epoch"]].assign(worth=table.worths(recorded.study.objective))
    early = curves.pivot(index="trial_id", columns="epoch", values="worth")
    rungs = [REDUCTION**n for n in range(epochs) if REDUCTION**n < epochs]
    rows = []
    for rung in rungs:
        told = [
            foretold(
                early[rung].loc[own.index].to_numpy(float),
                own[recorded.select].to_numpy(float),
                1 / REDUCTION,
            )
            for _, own in final.groupby("seed")
        ]
        tau, recall = np.mean(told, axis=0)
        rows.append({"epoch": rung, "tau": tau, "recall": recall})
    return pd.DataFrame(rows)


def _effects(cells: AllCells, recorded: Recorded) -> Effects:
    flat, left_out = None, ""
    kept = _without_collapse(cells, recorded.chance)
    if kept is not None:
        axis, values = kept
        flat = interactions(cells.test.take(values, axis=axis), cells.labels)
        gone = [v for n, v in enumerate(cells.values[axis]) if n not in values]
        left_out = f"{cells.labels[axis]} {', '.join(f'{v}' for v in gone)}"
    return Effects(
        anova=interactions(cells.test, cells.labels),
        flat=flat,
        left_out=left_out,
        gaps=_gaps(cells, recorded),
    )


def _gaps(cells: AllCells, recorded: Recorded) -> pd.DataFrame:
    """A row per way of choosing: the cell, its scores, and its distance to the jointly best."""
    means = cells.select.mean(axis=-1)
    best = np.unravel_index(int(means.argmax()), means.shape)
    start = tuple(
        _index(values, recorded.comparison.reference.cell.get(field))
        for field, values in zip(cells.fields, cells.values, strict=True)
    )
    rows = []
    for words, cell in (
        ("jointly best", tuple(int(n) for n in best)),
        ("best of each axis by its mean over the others", separately_best(means)),
        ("best of each axis with the others at the default", best_from(means, start)),
    ):
        chosen = [values[n] for values, n in zip(cells.values, cell, strict=True)]
        gap, half = mean_and_half_width(pd.Series(cells.test[best] - cells.test[cell]))
        rows.append(
            {
                "choice": words,
                "cell": ", ".join(
                    f"{label} {value}" for label, value in zip(cells.labels, chosen, strict=True)
                ),
                "select": float(means[cell]),
                "test": float(cells.test[cell].mean()),
                "select_gap": float(means[best] - means[cell]),
                "test_gap": gap,
                "test_gap_ci": half,
            }
        )
    return pd.DataFrame(rows)


def _index(values: tuple[Any, ...], value: Any) -> int:
    return values.index(value) if value in values else 0


def _without_collapse(cells: AllCells, chance: float) -> tuple[int, list[int]] | None:
    """An axis and those of its values at which no cell collapses.

    None if nothing collapses, or if no axis has two such values. Of several axes, the one that
    keeps the most.
    """
    collapsed = cells.test.mean(axis=-1) < 2 * chance
    if not collapsed.any():
        return None
    kept = []
    for axis in range(collapsed.ndim):
        away = tuple(a for a in range(collapsed.ndim) if a != axis)
        values = [int(n) for n in np.flatnonzero(~collapsed.any(axis=away))]
        kept.append((len(values) / collapsed.shape[axis], axis, values))
    _, axis, values = max(kept, key=lambda each: each[0])
    return (axis, values) if len(values) > 1 else None
