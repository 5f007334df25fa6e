"""Random search in closed form: what it is expected to find by which cost, seed by seed.

Our random search proposes cells with equal chance; one that it had is answered at no cost, so it
trains different cells in random order until the budget has no room for the next. All orders are
equally likely, which makes its expected score a sum that is computed exactly, up to costs being
rounded down to one of at most `STEPS` steps of the budget.

Owns: this sum. Must not know: logs, searches that were run.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.reports.numbers.landscape import AllCells
from harness.reports.numbers.recorded import Recorded
from harness.reports.numbers.statistics import Array

Whole = NDArray[np.int64]

STEPS = 10_000
"""Most steps that a budget is counted in."""
MOST_WORK = 1e8
"""Cells times trials times steps: of larger spaces, costs are counted in fewer steps."""
SHOWN = 200
"""Points of a curve."""


def expected_by_cost(
    select: Array, values: Array, costs: Whole, needs: Whole, limit: int
) -> tuple[Array, Array]:
    """Expected `values` of the cell with the best `select` among those drawn by a cost.

    `select`, `costs` and `needs` are `[cells]`, `values` `[quantities, cells]`; a drawn cell counts
    from where what was spent before it and its `needs` are within the cost, and is charged `costs`.
    Returns `[quantities, limit + 1]`, the expectation for every whole cost where there is a choice
    (NaN where there cannot be one), and `[limit + 1]`, the probability that there is. Of equal
    `select` the mean of their values stands for each.

    A cell drawn after the set S raises the incumbent's value from that of the best of S to its own
    if all of S are below it; S are the first k of N cells, and that cell the next, with probability
    1 / (C(N, k) (N - k)). So the sum runs over the cells by rising `select`, and needs of the sets
    below only their number and the sum of their best values, by size and cost.
    """
    count = len(select)
    order = np.argsort(select, kind="stable")
    levels = np.unique(select, return_inverse=True)[1]
    means = np.array([np.bincount(levels, each) for each in values]) / np.bincount(levels)
    worth = means[:, levels]
    most = int(np.searchsorted(np.cumsum(np.sort(costs)), limit, side="right"))
    sizes = np.arange(most + 1)
    draw = 1 / np.maximum(1, count - sizes)
    draw[sizes >= count] = 0.0
    sets = np.zeros((most + 1, limit + 1))
    """Share of all sets of a size that are of cells so far and have this cost."""
    sets[0, 0] = 1.0
    best = np.zeros((len(values), *sets.shape))
    """The same, times the value of the set's best cell."""
    found = np.zeros((len(values) + 1, limit + 1))
    for cell in order:
        cost, need, own = int(costs[cell]), int(needs[cell]), worth[:, cell, None]
        if need <= limit:
            room = limit + 1 - need
            gain = own * (draw @ sets)[:room] - np.stack([draw @ each for each in best])[:, :room]
            found[:-1, need:] += gain
            found[-1, need] += draw[0]
        if cost <= limit and most:
            grown = sets[:-1, : limit + 1 - cost] * (sizes[1:] * draw[:-1])[:, None]
            best[:, 1:, cost:] += own[:, None] * grown
            sets[1:, cost:] += grown
    totals = found.cumsum(axis=1)
    chance = totals[-1]
    with np.errstate(invalid="ignore"):
        return np.where(chance > 0, totals[:-1] / chance, np.nan), chance


@dataclass(frozen=True, kw_only=True)
class Expected:
    """Random search in closed form."""

    seeds: pd.DataFrame
    """A row per training seed: the expected scores of its choice at the budget, percent."""
    curve: pd.DataFrame
    """`runs` spent, by the measure of the budget, and the expected `test` score and `regret` of the
    choice by then; means over seeds, from where a first trial is sure to have finished."""


def expected_random(recorded: Recorded, cells: AllCells, end: float) -> Expected:
    """What random search is expected to find at the budget, and by every cost up to `end` runs."""
    names, budget = ["test", *recorded.groups], recorded.budget
    regret = cells.best_select - cells.select.mean(axis=-1).ravel()
    costs = cells.flop_runs if budget.unit == "runs" else cells.runs
    rows, curves = [], []
    for seed in recorded.comparison.seeds:
        place = cells.seeds.index(seed)
        select, cost = cells.select[..., place].ravel(), costs[..., place].ravel()
        values = np.array([cells.scores[name][..., place].ravel() for name in names])
        if budget.unit == "epochs":
            used, most = (each[..., place].ravel() for each in (cells.epochs, cells.most_epochs))
            whole, needs, limit = _whole_epochs(used, most, budget.amount)
        else:
            whole, limit = in_steps(cost, recorded.most_cost)
            needs = whole
        at_budget, _ = expected_by_cost(select, values, whole, needs, limit)
        rows.append({"seed": seed, **dict(zip(names, map(float, at_budget[:, -1]), strict=True))})
        steps, limit = in_steps(cost, end)
        shown = np.array([values[0], regret])
        curve, chance = expected_by_cost(select, shown, steps, steps, limit)
        points = np.linspace(0, limit, SHOWN + 1).round().astype(int)[1:]
        curves.append(np.where(chance > 1 - 1e-9, curve, np.nan)[:, points])
    test, regrets = np.mean(curves, axis=0)
    at = np.linspace(0, end, SHOWN + 1)[1:]
    line = pd.DataFrame({"runs": at, "test": test, "regret": regrets}).dropna()
    return Expected(seeds=pd.DataFrame(rows), curve=line.reset_index(drop=True))


def _whole_epochs(used: Array, most: Array, amount: float) -> tuple[Whole, Whole, int]:
    """Charges and needs of a budget in epochs.

    A trial begins if all of its epochs are left, and gives back those that it did not take.
    """
    limit = min(amount, float(used.sum() + most.max()))
    trials = 1 + np.searchsorted(np.cumsum(np.sort(used)), limit, side="right")
    together = max(1, int(len(used) * trials * limit / MOST_WORK))
    costs, needs = (each.astype(np.int64) // together for each in (used, most))
    return costs, needs, int(limit) // together


def in_steps(cost: Array, limit: float) -> tuple[Whole, int]:
    """Costs in whole steps, rounded down, and how many of them the limit has."""
    trials = 1 + int(np.searchsorted(np.cumsum(np.sort(cost)), limit, side="right"))
    steps = min(STEPS, max(1000, int(MOST_WORK / (len(cost) * trials))))
    return np.floor(cost * steps / limit + 1e-6).astype(np.int64), steps
