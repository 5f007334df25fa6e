"""How much of the differences between a run's trials goes with each axis, and with chance alone.

Owns: these shares. Must not know: how they are shown.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from harness.reports.numbers.run import Run

MOST_LEVELS = 8
"""Values of an axis that are told apart; numbers of more fall into as many equal parts as below."""
PARTS = 4
FEWEST = 4
"""Trials below which nothing is said."""


class Importance(NamedTuple):
    """One axis's share of the variance of the selection scores, each in [0, 1]."""

    field: str
    share: float
    """Between the axis's values over all: eta squared of that axis alone."""
    floor: float | None
    """The share that seeds alone would give an axis of so many values on average; None where no
    configuration has two seeds."""


def importances(run: Run) -> list[Importance]:
    """Axes by their share of the selection scores' variance, the largest first.

    Each axis is looked at alone, over the trials that have a score. The shares add up to less than
    one where axes act together or seeds differ; where a search chose what to try, they are of that.
    The floor of an axis of k values is (k - 1) MS / SS, MS being the mean square within
    configurations and SS the sum over all: what k means of equal groups differ by chance.

    Empty where fewer than two axes have values to compare, or fewer than `FEWEST` trials.
    """
    scores = run.trials[run.select]
    has_score = scores.notna() & np.isfinite(scores)
    values = scores[has_score].to_numpy(dtype=float)
    if len(values) < FEWEST or np.ptp(values) == 0:
        return []
    total = float(((values - values.mean()) ** 2).sum())
    cells = run.cell_numbers[has_score.to_numpy()]
    spare = len(values) - len(np.unique(cells))
    noise = (total - _between(values, cells)) / spare if spare else None
    found = []
    for name in run.fields:
        levels = _levels(run.trials.loc[has_score, name])
        count = len(np.unique(levels))
        if not 1 < count < len(values):
            continue
        floor = None if noise is None else min(1.0, (count - 1) * noise / total)
        found.append(Importance(name, _between(values, levels) / total, floor))
    return sorted(found, key=lambda each: -each.share) if len(found) > 1 else []


def _between(values: np.ndarray, levels: np.ndarray) -> float:
    """The sum of squares between the means of the levels."""
    _, place = np.unique(levels, return_inverse=True)
    counts = np.bincount(place)
    means = np.bincount(place, weights=values) / counts
    return float((counts * (means - values.mean()) ** 2).sum())


def _levels(column: pd.Series) -> np.ndarray:
    """Which value of the axis each trial has, numbered; of a fine scale, which part of it."""
    codes, kept = pd.factorize(column, use_na_sentinel=False)
    numbers = pd.to_numeric(column, errors="coerce")
    if len(kept) <= MOST_LEVELS or numbers.isna().any():
        return np.asarray(codes)
    ranks = numbers.rank(method="average").to_numpy()
    return np.asarray(np.floor((ranks - 1) * PARTS / len(ranks)), dtype=int)
